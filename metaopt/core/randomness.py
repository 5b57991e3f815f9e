"""Random numbers of one implementation, whatever JAX was told to use."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax

IMPLEMENTATION = "threefry2x32"
"""Its numbers are the same on every device, however many there are."""


@contextmanager
def own_randomness() -> Iterator[None]:
    """Draws by `IMPLEMENTATION` in this thread while the block runs; also a decorator.

    ``JAX_DEFAULT_PRNG_IMPL`` and ``JAX_THREEFRY_PARTITIONABLE`` would otherwise decide what a run's
    seed means, and a run that was begun under others could not be resumed.

    Examples:
      >>> with jax.default_prng_impl("rbg"), own_randomness():
      ...     str(jax.random.key_impl(jax.random.key(0)))
      'threefry2x32'
    """
    with jax.default_prng_impl(IMPLEMENTATION), jax.threefry_partitionable(True):
        yield
