"""What a program does with the devices of the machine it finds itself on."""

import os
from pathlib import Path

import jax

from metaopt.chunks import bytes_of
from metaopt.config import Config
from metaopt.experiment import build

TINY = 2**16
"""Bytes of a population that one CPU device advances in less time than several take to agree."""


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


def devices_for(config: Config) -> int:
    """How many devices a run is spread over where nobody says it.

    All that `share` finds; one on a CPU where the particles of a problem are tiny, such as those of
    the Lorenz system (measured: 1.5 times faster on one than on two).

    Raises:
      UserError: for a configuration at fault.
    """
    particles = config.estimator.particles
    most = share(particles, jax.device_count()) if particles > 0 else 1
    if jax.default_backend() != "cpu" or config.problem.name == "training":
        return most
    problem, key = build(config).problem, jax.random.key(0)
    theta = jax.eval_shape(problem.init_theta, key)
    state = jax.eval_shape(problem.init, theta, problem.data(), config.estimator.window, key)
    return 1 if particles * bytes_of(state) < TINY else most
