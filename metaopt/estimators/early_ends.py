"""Episodes that end before their horizon: frozen halves, freed particles, and how long they lived.

The objective stays (1/T) sum_t L_t, with a constant ``loss_after_end`` from an episode's end to T.
A half that has ended is frozen (`metaopt.core.unroll`). A pair of which both halves have ended
would say exactly 0 until T; it is freed instead, and starts a new episode at the next window.
Episodes are then renewals, and the long-run mean of an estimate is

    E[sum over an episode's windows of g] / E[windows lived]

which is the objective's gradient times M / E[windows lived], M = T/W.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from metaopt.core.errors import UserError
from metaopt.core.types import Estimate, PyTree, UnrolledProblem
from metaopt.estimators.kernel import Rollout

MEMORY = 1
"""Horizons after which what was counted has lost all but 1/e of its weight."""


class Lives(NamedTuple):
    """What a particle's windows were spent on, older ones with less weight, see `MEMORY`.

    Attributes:
      lived: float32, windows that it was in an episode.
      forgone: float32, windows between its episodes' early ends and their horizons.
      planned: float32, windows in the horizons of its episodes that ended, early or not.
      episodes: float32, these episodes.
    """

    lived: jax.Array
    forgone: jax.Array
    planned: jax.Array
    episodes: jax.Array


def require_valid_end(problem: UnrolledProblem) -> None:
    """Refuses a ``loss_after_end`` that is of no use.

    Raises:
      UserError: where it is not finite, or is given without ``done``.
    """
    loss = problem.loss_after_end
    if not (isinstance(loss, (int, float)) and math.isfinite(loss)):
        raise UserError(f"loss_after_end must be a finite number, got {loss!r}.")
    if problem.done is None and loss:
        raise UserError(
            f"loss_after_end={loss!r} is given, but the problem has no done, which says when an "
            "episode ends: give it one, or leave loss_after_end out."
        )


def all_ended(problem: UnrolledProblem, states: PyTree, axes: PyTree) -> jax.Array | None:
    """Whether all of a particle's states have ended: bool scalar.

    Args:
      problem: whose states they are.
      states: every leaf ``[halves, ...]``, but for those that are shared.
      axes: 0 for those that have the axis, else ``None``, as `jax.vmap` has it.

    Returns:
      ``None`` where the problem's episodes do not end early.
    """
    if problem.done is None:
        return None
    return jax.vmap(problem.done, in_axes=(axes,))(states).all()


def no_lives(particles: int) -> Lives:
    """What is counted of so many particles before their first window."""
    return Lives(*jnp.zeros((len(Lives._fields), particles), jnp.float32))


def count_lives(
    lives: Lives, ended: jax.Array, remaining: jax.Array, horizon: jax.Array, rollout: Rollout
) -> tuple[Lives, dict[str, jax.Array]]:
    """Counts a window of n particles.

    Args:
      lives: before it ``[n]``.
      ended: bool ``[n]``, those that have ended early by its end.
      remaining: int32 ``[n]``, inner steps from its end to the horizon.
      horizon: int32 ``[n]``, inner steps of the whole episode.
      rollout: for the window and the longest horizon.

    Returns:
      After it, and the counts ``[n]`` whose sums over particles `summarise_lives` takes.

    Examples:
      >>> rollout = Rollout(particles=2, horizon=8, window=2)
      >>> ended, left, horizon = jnp.array([True, False]), jnp.array([6, 6]), jnp.array([8, 8])
      >>> lives, counts = count_lives(no_lives(2), ended, left, horizon, rollout)
      >>> lives.lived.tolist(), lives.forgone.tolist(), counts["freed"].tolist()
      ([1.0, 1.0], [3.0, 0.0], [True, False])
    """
    kept = 1 - rollout.window / (MEMORY * rollout.longest)
    freed = ended & (remaining > 0)
    windows = lambda steps: steps.astype(jnp.float32) / rollout.window
    over = (ended | (remaining <= 0)).astype(jnp.float32)
    forgone = jnp.where(freed, windows(remaining), 0.0)
    window = Lives(jnp.ones_like(over), forgone, over * windows(horizon), over)
    lives = jax.tree.map(lambda old, new: kept * old + new, lives, window)
    return lives, {"freed": freed} | lives._asdict()


def summarise_lives(said: Estimate, sums: dict[str, jax.Array], rollout: Rollout) -> Estimate:
    """An estimate with how long episodes lived.

    Args:
      said: the mean over the windows that were lived.
      sums: over all particles, of what `count_lives` counted.
      rollout: for the window and the longest horizon.

    Returns:
      The estimate with the metrics

      - ``freed_particles``: particles whose episode ended early in this window, both halves of a
        pair: they start a new one with the next;
      - ``lived_fraction``: the fraction of its horizon that an episode lasts, over the last horizon
        or so; 1 until one has ended;
      - ``windows_lived``: the same in windows.
    """
    lived, forgone, planned, episodes = (sums[name] for name in Lives._fields)
    fraction = lived / (lived + forgone)
    some = episodes > 0
    horizon = jnp.where(
        some, planned / jnp.where(some, episodes, 1.0), rollout.longest / rollout.window
    )
    metrics = {
        "freed_particles": sums["freed"].astype(jnp.int32),
        "lived_fraction": fraction,
        "windows_lived": fraction * horizon,
    }
    return said._replace(metrics=said.metrics | metrics)


def over_horizon(said: Estimate, loss_after_end: float) -> Estimate:
    """From the mean over windows lived to the mean over the whole horizon, the objective.

    Args:
      said: an estimate with the metrics of `summarise_lives`.
      loss_after_end: the problem's, the loss where nothing is lived.
    """
    fraction, metrics = said.metrics["lived_fraction"], said.metrics
    variance = fraction**2 * metrics["particle_variance"]
    return Estimate(
        optax.tree.scale(fraction, said.grad),
        fraction * said.loss + (1 - fraction) * loss_after_end,
        metrics | {"particle_variance": variance},
    )
