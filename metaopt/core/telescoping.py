"""The final loss as the sum of what every step changes of it.

A meta-objective that counts the end of a run only has one loss an episode, and an online estimator
nothing to see in all windows but the last. Written as p_t = L_t - L_{t-1}, with L_0 = 0, each step
has its share and an episode's sum is L_T (Vicol 2023, ES-Single, arXiv 2304.11153, section 5).
"""

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp

from metaopt.core.types import PyTree, UnrolledProblem
from metaopt.core.unroll import capped


class Telescoping(NamedTuple):
    """Attributes: ``inner``, the problem's state; ``previous``, float scalar, L_{t-1}."""

    inner: PyTree
    previous: jax.Array


def telescoping(problem: UnrolledProblem) -> UnrolledProblem:
    """The same problem with the losses p_t = L_t - L_{t-1}, whose mean over T steps is L_T / T.

    A loss above the problem's ``loss_cap``, or one that is not finite, counts as the cap before the
    difference is taken, so that the sum is right of a diverged episode, too.

    Args:
      problem: whose loss L_t should be of one kind throughout an episode, such as of a fixed batch.

    Examples:
      >>> from metaopt.tasks import PROBLEMS
      >>> from metaopt import unroll
      >>> plain = PROBLEMS["lorenz"]()
      >>> theta, key = plain.init_theta(jax.random.key(0)), jax.random.key(1)
      >>> losses = lambda p: unroll(p, theta, p.init(theta, (), 50, key), (), 50)[1]
      >>> bool(jnp.allclose(losses(telescoping(plain)).sum(), losses(plain)[-1], rtol=1e-4))
      True
    """
    cap, done = problem.loss_cap, problem.done

    def init(theta, data, horizon, key):
        inner = problem.init(theta, data, horizon, key)
        loss = jax.eval_shape(problem.step, theta, inner, data)[1]
        return Telescoping(inner, jnp.zeros((), loss.dtype))

    def step(theta, state, data):
        inner, loss = problem.step(theta, state.inner, data)
        loss = capped(loss, cap)
        return Telescoping(inner, loss), loss - state.previous

    return problem._replace(
        init=init,
        step=step,
        loss_cap=None,
        done=done and (lambda state: done(state.inner)),
        shared=cast(Any, Telescoping)(problem.shared, False),
    )
