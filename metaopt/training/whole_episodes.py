"""Thetas measured by whole episodes, and the best of a population."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metaopt.core.types import PyTree, Theta, UnrolledProblem
from metaopt.core.unroll import unroll

EPISODES = 16
"""On which the thetas of a population are compared."""

KEY_OF_VALIDATION = 0x76616C69
"""These episodes are the same for every run."""


def whole_episodes(
    problem: UnrolledProblem, horizon: int
) -> Callable[[Theta, Any, jax.Array], jax.Array]:
    """``(thetas, data, key) -> losses [n]``: the mean loss of an episode, the same one for all.

    Examples:
      >>> from metaopt.tasks import PROBLEMS
      >>> measure = whole_episodes(PROBLEMS["linear_recursion"](), 8)
      >>> measure(jnp.zeros((3, 5)), (), jax.random.key(0)).shape
      (3,)
    """

    def one(theta, data, key):
        state = problem.init(theta, data, jnp.int32(horizon), key)
        return unroll(problem, theta, state, data, horizon)[1].mean()

    return lambda thetas, data, key: jax.vmap(one, (0, None, None))(thetas, data, key)


def best_by_validation(
    problem: UnrolledProblem, thetas: Theta, data: PyTree, horizon: int
) -> tuple[Theta, np.ndarray]:
    """The theta of the least mean loss over `EPISODES` episodes, and the losses of all ``[n]``.

    Inner training measures them on the validation split, as it does while it trains.

    Examples:
      >>> from metaopt.tasks import PROBLEMS
      >>> thetas = jnp.array([[2.0, 0.0], [0.0, 0.0], [3.0, 3.0]])
      >>> problem = PROBLEMS["linear_recursion"](dim=2)
      >>> best_by_validation(problem, thetas, (), 4)[1].shape
      (3,)
    """
    measure = whole_episodes(problem, horizon)
    keys = jax.random.split(jax.random.key(KEY_OF_VALIDATION), EPISODES)
    over_keys = lambda thetas, data: jax.lax.map(lambda key: measure(thetas, data, key), keys)
    losses = np.asarray(jax.jit(over_keys)(thetas, data)).mean(axis=0)
    best = int(np.where(np.isfinite(losses), losses, np.inf).argmin())
    return jax.tree.map(lambda leaf: leaf[best], thetas), losses
