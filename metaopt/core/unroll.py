"""The only scan over inner steps."""

import jax
import optax

from metaopt.core.types import PyTree, Theta, UnrolledProblem


def unroll(
    problem: UnrolledProblem, theta: Theta, state: PyTree, data: PyTree, length: int
) -> tuple[PyTree, jax.Array]:
    """Advances a problem by ``length`` inner steps under one ``theta``.

    Args:
      problem: what to unroll.
      theta: its parameters, the same at every step.
      state: where it stands.
      data: handed to every step.
      length: inner steps, static.

    Returns:
      The state after the last step, and the losses L_t, float32 ``[length]``.

    Where the problem has a ``loss_cap``, a larger or non-finite loss counts as the cap. Where it
    has ``done``, a state that has ended stays as it is, and its losses are ``loss_after_end``.

    Examples:
      >>> import jax.numpy as jnp
      >>> halve = UnrolledProblem(
      ...     init=lambda theta, data, horizon, key: jnp.float32(8.0),
      ...     step=lambda theta, state, data: (theta * state, theta * state),
      ... )
      >>> state, losses = unroll(halve, 0.5, jnp.float32(8.0), (), 3)
      >>> losses.tolist()
      [4.0, 2.0, 1.0]
    """

    def step(before, _):
        state, loss = problem.step(theta, before, data)
        loss = capped(loss, problem.loss_cap)
        if problem.done is not None:
            ended = problem.done(before)
            state = _keep_where(ended, before, state, problem.shared)
            after_end = jax.numpy.asarray(problem.loss_after_end, loss.dtype)
            loss = jax.numpy.where(ended, after_end, loss)
        return state, loss

    return jax.lax.scan(step, state, None, length=length)


def capped(loss: jax.Array, cap: float | None) -> jax.Array:
    """A loss that counts as the cap where it is above it or not finite; as it is for ``None``.

    Examples:
      >>> capped(jax.numpy.array([1.0, 3.0, float("nan"), -float("inf")]), 2.0).tolist()
      [1.0, 2.0, 2.0, 2.0]
    """
    if cap is None:
        return loss
    # fmin would return the cap for NaN as well, but -inf must count as the cap, too.
    most = jax.numpy.asarray(cap, loss.dtype)
    return jax.numpy.where(jax.numpy.isfinite(loss), jax.numpy.minimum(loss, most), most)


def _keep_where(ended: jax.Array, before: PyTree, after: PyTree, shared: PyTree) -> PyTree:
    """The state before a step where the episode has ended, but for what theta never reaches.

    That is the same for both halves of a pair, of which one may have ended alone.
    """

    def keep(shared, before, after):
        return after if shared else optax.tree.where(ended, before, after)

    return jax.tree.map(keep, shared, before, after)
