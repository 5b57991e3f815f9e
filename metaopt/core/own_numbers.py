"""A run's numbers are its own, whatever JAX was told to use."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax

IMPLEMENTATION = "threefry2x32"
"""Its numbers are the same on every device, however many there are."""


@contextmanager
def own_numbers(double: bool = False) -> Iterator[None]:
    """Draws by `IMPLEMENTATION`, in float32, in this thread while the block runs; also a decorator.

    ``JAX_DEFAULT_PRNG_IMPL``, ``JAX_THREEFRY_PARTITIONABLE`` and ``JAX_ENABLE_X64`` would otherwise
    decide what a run's seed means, and a run that was begun under others would go on with others.

    Args:
      double: whether there are float64 numbers in the block, for objects of somebody's own.

    Examples:
      >>> with jax.default_prng_impl("rbg"), jax.enable_x64(True), own_numbers():
      ...     str(jax.random.key_impl(key := jax.random.key(0))), str(jax.random.normal(key).dtype)
      ('threefry2x32', 'float32')
    """
    with (
        jax.default_prng_impl(IMPLEMENTATION),
        jax.threefry_partitionable(True),
        jax.enable_x64(double),
    ):
        yield


def are_double() -> bool:
    """Whether numbers are float64 by default here.

    Examples:
      >>> with own_numbers():
      ...     are_double()
      False
    """
    return bool(jax.config.read("jax_enable_x64"))
