"""Visits: episodes that go on, with the same states under the same noise, where they would end.

Long horizons without long episodes. At an episode's end a particle starts anew, or, with some
probability, continues for another drawn length. A visit is one, two, three, ... episodes. Because
states and noise stay, the estimate remains that of `metaopt.estimators.nres`, unbiased for the mean
loss over visits while theta stands still. (Saved states that go on under a fresh noise would leave
out how theta shaped them.)

Which visits go on may depend on their losses: those that struggle, say. That tilts the law of the
noise. Here both halves of a pair are looked at in the same way, so that the tilt is the same for
eps and -eps: to first order the gradient is multiplied by E[eps eps^T] / sigma^2 over the particles
there are, which is positive definite.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from metaopt.estimators.kernel import Rollout

KEY_OF_VISIT = 3
"""Folded into an episode's key, with the inner steps done so far, at each of its ends."""


class Visit(NamedTuple):
    """How a visit has gone so far: the cumulative sum (CUSUM, Page 1954) of its rises in loss.

    Attributes:
      last: float32, the loss of its last inner step, mean of the halves; NaN before the first.
      cusum: float32, c_t = max(0, c_{t-1} + L_t - L_{t-1}): how far the loss is above its lowest.
      peak: float32, the highest that the cusum has been.
      struggles: bool, whether the peak rose in the last window.
    """

    last: jax.Array
    cusum: jax.Array
    peak: jax.Array
    struggles: jax.Array


def no_visit() -> Visit:
    """Before the first window."""
    zero = jnp.float32(0)
    return Visit(jnp.float32(jnp.nan), zero, zero, jnp.bool_(False))


def watch(visit: Visit, losses: jax.Array) -> Visit:
    """A visit after a window with the losses ``[halves, W]``.

    Examples:
      >>> visit = watch(no_visit(), jnp.array([[3.0, 1.0, 2.0]]))
      >>> float(visit.cusum), bool(visit.struggles)
      (1.0, True)
      >>> bool(watch(visit, jnp.array([[0.0, 0.5, 0.5]])).struggles)
      False
    """

    def step(carry, loss):
        last, cusum, highest = carry
        rise = jnp.where(jnp.isnan(last), 0.0, loss - last)
        cusum = jnp.maximum(0.0, cusum + rise)
        return (loss, cusum, jnp.maximum(highest, cusum)), None

    begun = visit.last, visit.cusum, visit.peak
    (last, cusum, peak), _ = jax.lax.scan(step, begun, losses.mean(axis=0))
    return Visit(last, cusum, peak, peak > visit.peak)


def extended(
    rollout: Rollout, episode: Any, remaining: jax.Array, visit: Visit
) -> tuple[Any, jax.Array]:
    """A particle's episode and what remains of it, longer where it ends and is to go on.

    Args:
      rollout: for what may go on, how likely, and the lengths.
      episode: after a window, `metaopt.estimators.kernel.Episode`.
      remaining: int32, inner steps from here to its end.
      visit: after the window.
    """
    own = jax.random.fold_in(jax.random.fold_in(episode.key, KEY_OF_VISIT), episode.elapsed)
    chance_key, length_key = jax.random.split(own)
    goes_on = jax.random.bernoulli(chance_key, rollout.continue_probability) & (remaining <= 0)
    if rollout.continue_from == "struggle":
        goes_on &= visit.struggles
    more = jnp.where(goes_on, rollout.draw_horizon(length_key, episode.updates), 0)
    return episode._replace(horizon=episode.horizon + more), remaining + more
