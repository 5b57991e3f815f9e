"""Running statistics: what a problem measures along the way instead of learning it.

A policy that sees normalised observations needs their mean and variance, the same for all
particles. They are a `RunningStatistics` within theta, so that whatever keeps, tests, loads or
draws theta has them. Each particle's state gathers `Observations`, which every outer step merges,

    n = c + sum 1,  shift = sum (x - mean) / n
    mean <- mean + shift,  variance <- (c variance + sum (x - mean)^2) / n - shift^2,  c <- n

over all particles, both halves and all steps of the window (Chan et al. 1983, with the present mean
as the origin), and empties. Within an outer step the statistics stand still. They are no
parameters: no noise is added to them, and neither a gradient nor the outer optimizer moves them.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from metaopt.core.types import PyTree, Theta


class RunningStatistics(NamedTuple):
    """Mean and variance of all that was observed so far; a node of theta, one at most.

    Attributes:
      samples: float32 scalar, how many observations they are of.
      mean: float32, of the shape of one observation.
      variance: float32, the same shape.

    Examples:
      >>> statistics = RunningStatistics.fresh((2,))
      >>> statistics.normalise(jnp.array([0.5, -30.0])).tolist()
      [0.5, -10.0]
    """

    samples: jax.Array
    mean: jax.Array
    variance: jax.Array

    @classmethod
    def fresh(cls, shape: tuple[int, ...]) -> "RunningStatistics":
        """Before anything was observed: mean 0, variance 1, of 1e-4 observations."""
        return cls(jnp.float32(1e-4), jnp.zeros(shape), jnp.ones(shape))

    def normalise(self, observed: jax.Array, limit: float = 10.0) -> jax.Array:
        """An observation minus the mean, over the standard deviation, clipped to ±``limit``."""
        mean, variance = jax.lax.stop_gradient((self.mean, self.variance))
        return jnp.clip((observed - mean) * jax.lax.rsqrt(variance + 1e-8), -limit, limit)


class Observations(NamedTuple):
    """What one particle has observed since the last outer step; a node of a problem's state.

    Attributes:
      samples: float32 scalar.
      total: float32, the sum of the deviations from the statistics' mean.
      squares: float32, the sum of their squares.

    Examples:
      >>> statistics = RunningStatistics.fresh((2,))
      >>> seen = Observations.none((2,)).add(statistics, jnp.array([3.0, -1.0]))
      >>> seen.total.tolist(), seen.squares.tolist()
      ([3.0, -1.0], [9.0, 1.0])
    """

    samples: jax.Array
    total: jax.Array
    squares: jax.Array

    @classmethod
    def none(cls, shape: tuple[int, ...]) -> "Observations":
        """Nothing of that shape."""
        return cls(jnp.float32(0.0), jnp.zeros(shape), jnp.zeros(shape))

    def add(self, statistics: RunningStatistics, observed: jax.Array) -> "Observations":
        """With one more, under the statistics of theta."""
        off = observed - statistics.mean
        more = Observations(self.samples + 1, self.total + off, self.squares + off**2)
        return jax.lax.stop_gradient(more)


def is_statistics(node: Any) -> bool:
    """Whether it is a `RunningStatistics`: the ``is_leaf`` that keeps them whole."""
    return isinstance(node, RunningStatistics)


def without_statistics(tree: PyTree) -> PyTree:
    """A tree like theta, such as noise or an update, that is 0 where theta has statistics.

    Examples:
      >>> tree = {"weight": jnp.ones(2), "seen": RunningStatistics.fresh((1,))}
      >>> without_statistics(tree)["weight"].tolist(), without_statistics(tree)["seen"].variance
      ([1.0, 1.0], Array([0.], dtype=float32))
    """
    zero = lambda node: jax.tree.map(jnp.zeros_like, node) if is_statistics(node) else node
    return jax.tree.map(zero, tree, is_leaf=is_statistics)


def merge_observations(theta: Theta, state: PyTree) -> tuple[Theta, PyTree]:
    """Theta with what the particles have observed, and their state with that forgotten.

    A particle's half whose observations are not finite does not count.

    Args:
      theta: with one `RunningStatistics`, or none: then nothing is done.
      state: an estimator's; its `Observations` have any axes before their own.

    Raises:
      ValueError: where theta has more than one.

    Examples:
      >>> theta = RunningStatistics.fresh(())
      >>> state = Observations(jnp.ones(2), jnp.array([1.0, 3.0]), jnp.array([1.0, 9.0]))
      >>> theta, state = merge_observations(theta, state)
      >>> round(float(theta.mean), 3), round(float(theta.variance), 3), state.samples.tolist()
      (2.0, 1.0, [0.0, 0.0])
    """
    found = [n for n in jax.tree.leaves(theta, is_leaf=is_statistics) if is_statistics(n)]
    if not found:
        return theta, state
    if len(found) > 1:
        raise ValueError(f"theta may have one RunningStatistics, got {len(found)}.")
    (old,) = found
    is_seen = lambda node: isinstance(node, Observations)
    seen = [_sum(node) for node in jax.tree.leaves(state, is_leaf=is_seen) if is_seen(node)]
    if not seen:
        return theta, state
    new = jax.tree.map(lambda *parts: sum(parts[1:], parts[0]), *seen)  # those of a mixture's
    count = old.samples + new.samples
    shift = new.total / count
    variance = (old.samples * old.variance + new.squares) / count - shift**2
    merged = RunningStatistics(count, old.mean + shift, jnp.maximum(variance, 0.0))
    put = lambda node: merged if is_statistics(node) else node
    empty = lambda node: jax.tree.map(jnp.zeros_like, node) if is_seen(node) else node
    theta = jax.tree.map(put, theta, is_leaf=is_statistics)
    return theta, jax.tree.map(empty, state, is_leaf=is_seen)


def _sum(seen: Observations) -> Observations:
    """Over all axes before an observation's own, of those that are finite."""
    before = tuple(range(seen.samples.ndim))
    own = tuple(range(seen.samples.ndim, seen.squares.ndim))
    finite = jnp.isfinite(seen.squares).all(axis=own)
    wide = finite.reshape(*finite.shape, *(1 for _ in own))
    keep = lambda leaf, mask: jnp.where(mask, leaf, jnp.zeros_like(leaf)).sum(axis=before)
    return Observations(
        keep(seen.samples, finite), keep(seen.total, wide), keep(seen.squares, wide)
    )
