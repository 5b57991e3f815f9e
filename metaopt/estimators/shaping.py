"""Shaping of the losses' differences: what an ES estimate weighs its noise with.

Equal losses weigh exactly 0, so that a loss that theta does not move leaves theta where it is: two
means that are only then subtracted differ by rounding, of which an adaptive optimizer makes steps.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from metaopt.core.types import PyTree
from metaopt.estimators.kernel import Rollout, require_one_of
from metaopt.parallel.sharding import gather_particles

Shaping = Literal["raw", "standardise", "centered_rank"]

SAME = 1e-5
"""Standard deviation, in units of the largest difference, that rounding leaves of equal ones."""


def weigh_differences(
    shaping: Shaping, rollout: Rollout
) -> Callable[[PyTree, jax.Array, jax.Array], jax.Array]:
    """A kernel's ``weigh``: shaped differences over 2 sigma^2, with the carry's own ``sigma``.

    Raises:
      ValueError: for an unknown shaping, or one particle to be standardised.
    """
    require_one_of("shaping", shaping, Shaping)
    if shaping == "standardise" and rollout.particles < 2:
        raise ValueError("shaping='standardise' needs particles of at least 2, got 1.")

    def weigh(carry: PyTree, losses: jax.Array, finite: jax.Array) -> jax.Array:
        differences = shaped_differences(shaping, losses, finite, rollout.mesh)
        return differences / carry.sigma / (2 * carry.sigma)  # a sigma of 1e-20 has a square of 0

    return weigh


def shaped_differences(
    shaping: Shaping, losses: jax.Array, finite: jax.Array, mesh: Mesh | None
) -> jax.Array:
    """Window-averaged L^+ - L^- of each pair, shaped; exactly 0 where the losses are equal.

    Args:
      shaping: ``"raw"``; ``"standardise"``, divided by the differences' standard deviation over
        particles; ``"centered_rank"``, of the ranks of all 2N losses, scaled to [-1/2, 1/2]
        (Salimans et al. 2017, arXiv 1703.03864). The shaped ones estimate another gradient. Where
        all differences are the same there is no deviation to measure them in, and standardised
        they are 0.
      losses: float32 ``[n, 2, W]``.
      finite: bool ``[n]``, the pairs that count.
      mesh: what the particles are spread over, for the statistics.

    Returns:
      float32 ``[n]``; undefined where not ``finite``.

    Examples:
      >>> losses = jnp.array([[[3.0], [1.0]], [[0.0], [4.0]]])
      >>> both = jnp.array([True, True])
      >>> shaped_differences("raw", losses, both, None).tolist()
      [2.0, -4.0]
      >>> (3 * shaped_differences("centered_rank", losses, both, None)).tolist()
      [1.0, -3.0]
    """
    plus, minus = losses[:, 0], losses[:, 1]
    # The select is not idle: where a loss is a product, a fused multiply-subtract would round one
    # of two equal losses and not the other.
    differences = jnp.where(plus == minus, 0.0, plus - minus).mean(axis=1)
    if shaping == "raw":
        return differences
    if shaping == "standardise":
        everyone, counts = gather_particles((differences, finite), mesh)  # of all N
        largest = jnp.max(jnp.abs(everyone), where=counts, initial=0.0)
        unit = jnp.where(largest > 0, largest, 1.0)  # neither squares nor ratios leave float32
        deviation = jnp.std(everyone / unit, where=counts)
        known = deviation > SAME
        return jnp.where(known, differences / unit / jnp.where(known, deviation, 1.0), 0.0)
    sums = losses.sum(axis=2)  # [n, 2]
    everyone, counts = gather_particles((sums, finite), mesh)
    pool = jnp.sort(jnp.where(counts[:, None], everyone, jnp.inf), axis=None)
    last = jnp.maximum(2 * counts.sum(dtype=jnp.float32) - 1, 1)
    # Equal losses share the mean of their ranks, so that they differ by nothing.
    doubled = lambda x: jnp.searchsorted(pool, x, "left") + jnp.searchsorted(pool, x, "right")
    ranks = (doubled(sums[:, 0]) - doubled(sums[:, 1])).astype(jnp.float32) / 2 / last
    return jnp.where(differences == 0, 0.0, ranks)
