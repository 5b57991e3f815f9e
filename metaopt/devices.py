"""What a program does with the devices of the machine it finds itself on."""

import os
from pathlib import Path

import jax


def prepare_jax(devices: int | None = None) -> None:
    """A device a core on a CPU, and a compilation cache on disk; comes before JAX's first use.

    Args:
      devices: CPU devices; one a core, up to 8, where ``None``.

    The cache is in ``XDG_CACHE_HOME`` (``~/.cache``) unless JAX was told of another one.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    jax.config.update("jax_num_cpu_devices", devices or min(cores or 1, 8))
    if jax.config.values["jax_compilation_cache_dir"] is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(cache / "metaopt" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def share(particles: int, devices: int) -> int:
    """The most devices, of those there are, that particles can be spread over evenly.

    Example:
      >>> share(16, 6)
      4
    """
    return max(n for n in range(1, devices + 1) if particles % n == 0)
