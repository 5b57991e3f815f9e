"""How long episodes are: fixed, log-uniform, or growing as meta-training goes on."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from metaopt.core.types import Key


class Horizon(NamedTuple):
    """A distribution of episode lengths, in inner steps.

    Attributes:
      longest: T, the longest that is drawn.
      draw: ``(key, updates) -> float32 scalar``; ``updates``: outer steps done so far, int32. The
        population rounds it to the nearest multiple of its window.
    """

    longest: int
    draw: Callable[[Key, jax.Array], jax.Array]


def fixed(length: int) -> Horizon:
    """Every episode has ``length`` steps.

    Raises:
      ValueError: where it is not an integer of at least 1.
    """
    _validate("horizon", length)
    return Horizon(length, lambda key, updates: jnp.float32(length))


def log_uniform(shortest: int, longest: int) -> Horizon:
    """Lengths whose logarithm is uniform between two bounds (as VeLO has it, arXiv 2211.09760).

    Raises:
      ValueError: where the bounds are not integers in order, of at least 1.

    Examples:
      >>> float(log_uniform(10, 10).draw(jax.random.key(0), jnp.int32(0)).round(3))
      10.0
    """
    _validate("shortest horizon", shortest)
    _validate("longest horizon", longest, shortest)
    low, high = jnp.log(jnp.float32(shortest)), jnp.log(jnp.float32(longest))
    uniform = lambda key: jax.random.uniform(key, (), jnp.float32, low, high)
    return Horizon(longest, lambda key, updates: jnp.exp(uniform(key)))


def growing(shortest: int, longest: int, updates: int) -> Horizon:
    """Lengths that grow geometrically from one bound to the other over so many outer steps.

    Raises:
      ValueError: where the bounds are not integers in order, or ``updates`` is below 1.

    Examples:
      >>> lengths = growing(10, 1000, updates=100)
      >>> [float(lengths.draw(None, jnp.int32(n)).round(2)) for n in (0, 50, 100, 200)]
      [10.0, 100.0, 1000.0, 1000.0]
    """
    _validate("shortest horizon", shortest)
    _validate("longest horizon", longest, shortest)
    _validate("updates", updates)

    def draw(key, done):
        fraction = jnp.minimum(done.astype(jnp.float32) / updates, 1.0)
        return shortest * jnp.float32(longest / shortest) ** fraction

    return Horizon(longest, draw)


def as_horizon(horizon: int | Horizon) -> Horizon:
    """A number of inner steps as the `fixed` horizon that it stands for."""
    return horizon if isinstance(horizon, Horizon) else fixed(horizon)


def _validate(name: str, value: int, least: int = 1) -> None:
    if not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}.")
