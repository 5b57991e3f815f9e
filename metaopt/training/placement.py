"""What a program does with the devices of the machine it finds itself on."""

import os
from contextlib import suppress
from pathlib import Path

import jax

from metaopt.config.schema import Config
from metaopt.core.errors import UserError
from metaopt.core.own_numbers import IMPLEMENTATION
from metaopt.core.sizes import bytes_of
from metaopt.training.experiment import Experiment

TINY = 2**16
"""Bytes of a population that one CPU device advances in less time than several take to agree."""


def prepare_jax(devices: int | None = None) -> None:
    """A device a core on a CPU, a compilation cache on disk, and random numbers of our own.

    Comes before JAX's first use; after it the devices stay what they are.

    Args:
      devices: CPU devices; where ``None`` those that JAX was told of, or one a core, up to 8.

    The cache is in ``XDG_CACHE_HOME`` (``~/.cache``) unless JAX was told of another one; there is
    none where that cannot be written.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    told = max(0, jax.config.values["jax_num_cpu_devices"])
    with suppress(RuntimeError):  # JAX was used before, and its devices are what they are
        jax.config.update("jax_num_cpu_devices", devices or told or min(cores or 1, 8))
    if jax.config.values["jax_compilation_cache_dir"] is None and (cache := _cache()):
        jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_default_prng_impl", IMPLEMENTATION)
    jax.config.update("jax_threefry_partitionable", True)


def _cache() -> Path | None:
    """The folder for compiled programs; ``None`` where none can be written."""
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = cache / "metaopt" / "xla"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # also for a user whose home nobody knows
        return None
    return folder if os.access(folder, os.W_OK) else None


def share(particles: int, devices: int, processes: int = 1) -> int:
    """The most devices, of those there are, that particles can be spread over evenly.

    Args:
      particles: how many there are.
      devices: how many there are, of all processes.
      processes: each gives as many devices.

    Raises:
      UserError: where each process cannot have as many particles.

    Examples:
      >>> share(16, 6)
      4
    """
    even = [n for n in range(processes, devices + 1, processes) if particles % n == 0]
    if not even:
        raise UserError(
            f"estimator.particles must be a multiple of {processes} processes, got {particles}."
        )
    return max(even)


def devices_for(config: Config, experiment: Experiment) -> int:
    """How many devices a run is spread over where nobody says it.

    All that `share` finds; one a process on a CPU where the particles of a problem are tiny, such
    as those of the Lorenz system (measured: 1.5 times faster on one than on two).

    Raises:
      UserError: where the particles cannot be spread over the processes.
    """
    particles = config.estimator.particles
    processes = jax.process_count()
    most = share(particles, jax.device_count(), processes)
    if jax.default_backend() != "cpu" or config.problem.name == "training":
        return most
    problem, key = experiment.problem, jax.random.key(0)
    theta = jax.eval_shape(problem.init_theta, key)
    state = jax.eval_shape(problem.init, theta, problem.data(), config.estimator.depth, key)
    return processes if particles * bytes_of(state) < TINY else most
