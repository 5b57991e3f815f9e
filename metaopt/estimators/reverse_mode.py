"""Backpropagation through time: whole episodes (exact), or windows of them (biased).

Where the problem has a loss cap, a loss at the cap is constant and adds nothing to the gradient;
a particle whose gradient overflows is left out, started anew and counted.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from metaopt.core.types import GradientEstimator, PyTree, Theta, UnrolledProblem
from metaopt.core.unroll import unroll
from metaopt.estimators.float_leaves import require_differentiable
from metaopt.estimators.horizons import Horizon, as_horizon
from metaopt.estimators.kernel import Episode, ParticleKernel, Rollout, Window, inner_start
from metaopt.estimators.options import Options, Windowed, takes
from metaopt.estimators.population import make_estimator
from metaopt.estimators.stagger import FirstEpisode, Stagger


@dataclass(frozen=True, kw_only=True)
class BPTT(Options):
    """The options of `bptt`, for `metaopt.Config`, JSON and the command line."""

    name: ClassVar[str] = "bptt"

    remat: bool = True
    """Keep O(sqrt T) states instead of O(T), for one more unroll."""


@takes(BPTT)
def bptt(
    problem: UnrolledProblem,
    *,
    particles: int,
    horizon: int | Horizon,
    remat: bool = True,
    particles_per_chunk: int | None = None,
    mesh: Mesh | None = None,
) -> GradientEstimator:
    """Backpropagation through whole episodes, each unrolled from a fresh state. W = T.

    The gradient is exact for each episode, the initial state's dependence on theta included.

    Args:
      problem: what is unrolled; differentiable.
      particles: N, the number of episodes that an update averages.
      horizon: T, inner steps an episode; of a distribution of them, the longest.
      remat: keep the states at the ends of about sqrt(T) segments only, and unroll each segment
        again on the way back (Chen et al. 2016, arXiv 1604.06174): memory O(sqrt T) instead of
        O(T) for one more unroll, which ``unroll_steps`` does not count.
      particles_per_chunk: how many of a device's particles advance at a time, at most.
      mesh: spreads the particles over devices, see `metaopt.estimators.gpes`.

    Returns:
      A `GradientEstimator` on a `metaopt.estimators.population.Population` that carries nothing.

    Raises:
      ValueError: for a problem that is not differentiable, or a value out of its range.

    Examples:
      >>> from metaopt.tasks import PROBLEMS
      >>> problem = PROBLEMS["influence_balancing"]()
      >>> estimator = bptt(problem, particles=1, horizon=100)
      >>> theta = problem.init_theta(jax.random.key(0))
      >>> state = estimator.init(theta, (), jax.random.key(1))
      >>> estimate, state = estimator.estimate(theta, state, (), jax.random.key(2))
      >>> bool(estimate.grad > 0), int(estimate.metrics["unroll_steps"])
      (True, 100)
    """
    require_differentiable(problem, "bptt")
    length = as_horizon(horizon).longest
    rollout = Rollout(particles, horizon, length, "none", "short", particles_per_chunk, mesh)
    run = unroll_in_segments if remat else unroll

    def advance(theta: Theta, data: PyTree, episode: Episode, carry: PyTree) -> Window:
        def objective(theta):
            # The start is made here, not kept: theta shapes it as well.
            state = inner_start(problem, theta, data, episode)
            _, losses = run(problem, theta, state, data, length)
            return losses.mean(), losses

        grad, losses = jax.grad(objective, has_aux=True)(theta)
        return Window(carry, grad, losses[None])

    nothing = lambda theta, data, episode: ()
    return make_estimator(problem, ParticleKernel(nothing, advance, cost=length), rollout)


@dataclass(frozen=True, kw_only=True)
class TBPTT(Windowed):
    """The options of `tbptt`, for `metaopt.Config`, JSON and the command line."""

    name: ClassVar[str] = "tbptt"


@takes(TBPTT)
def tbptt(
    problem: UnrolledProblem,
    *,
    particles: int,
    horizon: int | Horizon,
    window: int,
    stagger: Stagger = "balanced",
    first_episode: FirstEpisode = "short",
    particles_per_chunk: int | None = None,
    mesh: Mesh | None = None,
) -> GradientEstimator:
    """Truncated backpropagation: a window's gradient from a state that is taken as given.

    Biased: what theta did to the state before the window is left out (Tallec and Ollivier 2017,
    arXiv 1705.08209).

    Args:
      problem: what is unrolled; differentiable.
      particles: N, the number of episodes that are under way.
      horizon: T, inner steps an episode, or a distribution of them (`metaopt.estimators.horizons`).
      window: W, inner steps between two updates of theta; divides the (longest) horizon.
      stagger: how phases are spread: ``"balanced"``, ``"random"`` or ``"none"``.
      first_episode: how a particle gets to its phase: ``"short"`` or ``"burn_in"``.
      particles_per_chunk: how many of a device's particles advance at a time, at most.
      mesh: spreads the particles over devices; see `metaopt.estimators.gpes` for these four.

    Returns:
      A `GradientEstimator` on a `metaopt.estimators.population.Population` of the problem's states.

    Raises:
      ValueError: for a problem that is not differentiable, or a value out of its range.

    Examples:
      >>> from metaopt.tasks import PROBLEMS
      >>> problem = PROBLEMS["linear_recursion"]()
      >>> estimator = tbptt(problem, particles=4, horizon=8, window=2)
    """
    require_differentiable(problem, "tbptt")
    rollout = Rollout(particles, horizon, window, stagger, first_episode, particles_per_chunk, mesh)

    def advance(theta: Theta, data: PyTree, episode: Episode, inner: PyTree) -> Window:
        def objective(theta):
            after, losses = unroll(problem, theta, inner, data, window)
            return losses.mean(), (after, losses)

        grad, (after, losses) = jax.grad(objective, has_aux=True)(theta)
        return Window(after, grad, losses[None])

    kernel = ParticleKernel(partial(inner_start, problem), advance, cost=window)
    return make_estimator(problem, kernel, rollout)


def unroll_in_segments(
    problem: UnrolledProblem, theta: Theta, state: PyTree, data: PyTree, length: int
) -> tuple[PyTree, jax.Array]:
    """`unroll`, whose reverse mode keeps O(sqrt(length)) states.

    Segments of floor(sqrt(length)) steps, and a shorter one at the end where they do not fit.

    Examples:
      >>> from metaopt.tasks import PROBLEMS
      >>> problem = PROBLEMS["influence_balancing"]()
      >>> state = problem.init(0.5, (), 7, jax.random.key(0))
      >>> unroll_in_segments(problem, 0.5, state, (), 7)[1].shape
      (7,)
    """

    def segment(steps: int):
        return jax.checkpoint(lambda theta, state: unroll(problem, theta, state, data, steps))

    each = math.isqrt(length)
    whole, rest = divmod(length, each)
    run = segment(each)
    state, losses = jax.lax.scan(lambda state, _: run(theta, state), state, None, length=whole)
    losses = losses.reshape(-1)
    if rest:
        state, last = segment(rest)(theta, state)
        losses = jnp.concatenate([losses, last])
    return state, losses
