"""Shaping of the losses' differences: what an ES estimate weighs its noise with."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from metaopt.core.types import PyTree
from metaopt.estimators.kernel import require_one_of
from metaopt.parallel.sharding import gather_particles

Shaping = Literal["raw", "standardise", "centered_rank"]


def weigh_differences(
    shaping: Shaping, mesh: Mesh | None
) -> Callable[[PyTree, jax.Array, jax.Array], jax.Array]:
    """A kernel's ``weigh``: shaped differences over 2 sigma^2, with the carry's own ``sigma``.

    Raises:
      ValueError: for an unknown shaping.
    """
    require_one_of("shaping", shaping, Shaping)

    def weigh(carry: PyTree, losses: jax.Array, finite: jax.Array) -> jax.Array:
        return shaped_differences(shaping, losses, finite, mesh) / (2 * carry.sigma**2)

    return weigh


def shaped_differences(
    shaping: Shaping, losses: jax.Array, finite: jax.Array, mesh: Mesh | None
) -> jax.Array:
    """Window-averaged L^+ - L^- of each pair, shaped.

    Args:
      shaping: ``"raw"``; ``"standardise"``, divided by the differences' standard deviation over
        particles; ``"centered_rank"``, of the ranks of all 2N losses, scaled to [-1/2, 1/2]
        (Salimans et al. 2017, arXiv 1703.03864). The shaped ones estimate another gradient.
      losses: float32 ``[n, 2, W]``.
      finite: bool ``[n]``, the pairs that count.
      mesh: what the particles are spread over, for the statistics.

    Returns:
      float32 ``[n]``; undefined where not ``finite``.

    Example:
      >>> losses = jnp.array([[[3.0], [1.0]], [[0.0], [4.0]]])
      >>> both = jnp.array([True, True])
      >>> shaped_differences("raw", losses, both, None).tolist()
      [2.0, -4.0]
      >>> (3 * shaped_differences("centered_rank", losses, both, None)).tolist()
      [1.0, -3.0]
    """
    means = losses.mean(axis=2)  # [n, 2]
    differences = means[:, 0] - means[:, 1]
    if shaping == "raw":
        return differences
    means, counts = gather_particles((means, finite), mesh)  # of all N
    if shaping == "standardise":
        return differences / jnp.std(means[:, 0] - means[:, 1], where=counts)
    pool = jnp.sort(jnp.where(counts[:, None], means, jnp.inf), axis=None)
    last = jnp.maximum(2 * counts.sum(dtype=jnp.float32) - 1, 1)
    # Equal losses share the mean of their ranks, so that they differ by nothing.
    doubled = lambda x: jnp.searchsorted(pool, x, "left") + jnp.searchsorted(pool, x, "right")
    own = losses.mean(axis=2)
    return (doubled(own[:, 0]) - doubled(own[:, 1])).astype(jnp.float32) / 2 / last
