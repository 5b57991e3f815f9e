"""Quadratic bowls: plain, ill-conditioned, noisy, under a logarithm; and families of them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from metaopt import Task
from metaopt.tasks.supervised import positive

FLOOR = 1e-6
"""Added below the logarithm, so that a minimum is log 1e-6 and not minus infinity."""


class Bowl(NamedTuple):
    """One quadratic.

    Attributes:
      centre: float32 ``[dim]``, where its minimum is.
      direction: float32 ``[dim]``, the unit vector at which its axes are mirrored.
      curvatures: float32 ``[dim]``, along its axes.
    """

    centre: jax.Array
    direction: jax.Array
    curvatures: jax.Array


def quadratics(
    *,
    dim: int = 10,
    condition: float = 1.0,
    noise: float = 0.0,
    log: bool = False,
    sampled: bool = False,
) -> Task:
    """Quadratics around a random centre: q(x) = mean_i h_i (R (x - c))_i^2 / 2, from x = 0.

    h goes geometrically from 1 to 1 / ``condition``, R is the reflection at a random hyperplane and
    c is standard normal; all are drawn for each episode. There is no data.

    Args:
      dim: of x.
      condition: the largest curvature over the smallest one.
      noise: training batches add noise n . (x - c) / dim to q with a standard normal n of their
        own, which is noise of the gradient with mean 0.
      log: the loss is log(q + 1e-6).
      sampled: a condition between 1 and ``condition`` is drawn for each episode, log-uniformly, and
        all curvatures are scaled by a log-uniform number between 0.1 and 10.

    Raises:
      ValueError: for a value out of its range.

    Examples:
      >>> task = quadratics(dim=4, condition=10.0)
      >>> bowl = task.sample(jax.random.key(0))
      >>> [f"{h:.3f}" for h in bowl.curvatures]
      ['1.000', '0.464', '0.215', '0.100']
      >>> float(task.loss(bowl, bowl.centre, jnp.zeros(4), None))
      0.0
    """
    positive(dim=dim)
    if not condition >= 1:
        raise ValueError(f"condition must be at least 1, got {condition!r}.")
    if not noise >= 0:
        raise ValueError(f"noise must be at least 0, got {noise!r}.")
    exponents = jnp.arange(dim, dtype=jnp.float32) / max(dim - 1, 1)

    def sample(key):
        drawn = jax.random.normal(key, (2, dim), jnp.float32)
        centre, direction = drawn[0], drawn[1] / jnp.linalg.norm(drawn[1])
        if not sampled:
            return Bowl(centre, direction, jnp.float32(condition) ** -exponents)
        of, scale = jax.random.uniform(jax.random.fold_in(key, 1), (2,), jnp.float32)
        curvatures = 10 ** (2 * scale - 1) * jnp.float32(condition) ** (-of * exponents)
        return Bowl(centre, direction, curvatures)

    def batch(data, bowl, split, key):
        if key is None or split != "train" or not noise:
            return jnp.zeros(dim, jnp.float32)
        return jax.random.normal(key, (dim,), jnp.float32)

    def loss(bowl, params, batch, key):
        away = params - bowl.centre
        along = away - 2 * (away @ bowl.direction) * bowl.direction
        value = (bowl.curvatures * jnp.square(along)).mean() / 2
        value = jnp.log(value + FLOOR) if log else value
        return value + noise * (batch @ away) / dim

    start = lambda config, key: jnp.zeros(dim, jnp.float32)
    return Task(data=lambda: (), init=start, batch=batch, loss=loss, sample=sample)
