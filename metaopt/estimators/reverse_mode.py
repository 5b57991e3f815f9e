"""Backpropagation through time: whole episodes (exact), or windows of them (biased).

Where the problem has a loss cap, a loss at the cap is constant and adds nothing to the gradient;
a particle whose gradient overflows is left out, started anew and counted.
"""

import math

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from metaopt.core.types import GradientEstimator, PyTree, Theta, UnrolledProblem
from metaopt.core.unroll import unroll
from metaopt.estimators.float_leaves import require_differentiable
from metaopt.estimators.horizons import Horizon, as_horizon
from metaopt.estimators.population import Episode, FirstEpisode, Stagger, Window, online


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
      mesh: spreads the particles over devices, see `metaopt.estimators.gpes`.

    Returns:
      A `GradientEstimator` on a `metaopt.estimators.population.Population` that carries nothing.

    Raises:
      ValueError: for a problem that is not differentiable, or a value out of its range, naming it
        and the valid ones.

    Example:
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
    run = unroll_in_segments if remat else unroll

    def advance(theta: Theta, data: PyTree, episode: Episode, carry: PyTree) -> Window:
        def objective(theta):
            # The start is made here, not kept: theta shapes it as well.
            key = jax.random.fold_in(episode.key, 0)
            state = problem.init(theta, data, episode.horizon, key)
            _, losses = run(problem, theta, state, data, length)
            return losses.mean(), losses

        grad, losses = jax.grad(objective, has_aux=True)(theta)
        return Window(carry, grad, losses[None])

    return online(
        problem,
        particles=particles,
        horizon=horizon,
        window=length,
        stagger="none",
        first_episode="short",
        particles_per_chunk=particles_per_chunk,
        mesh=mesh,
        start=lambda theta, data, episode: (),
        advance=advance,
        weigh=as_they_are,
        cost=length,
    )


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
    arXiv 1705.08209). The arguments are those of `metaopt.estimators.gpes`.

    Raises:
      ValueError: for a problem that is not differentiable, or a value out of its range, naming it
        and the valid ones.

    Example:
      >>> from metaopt.tasks import PROBLEMS
      >>> problem = PROBLEMS["linear_recursion"]()
      >>> estimator = tbptt(problem, particles=4, horizon=8, window=2)
    """
    require_differentiable(problem, "tbptt")

    def start(theta: Theta, data: PyTree, episode: Episode) -> PyTree:
        return problem.init(theta, data, episode.horizon, jax.random.fold_in(episode.key, 0))

    def advance(theta: Theta, data: PyTree, episode: Episode, inner: PyTree) -> Window:
        def objective(theta):
            after, losses = unroll(problem, theta, inner, data, window)
            return losses.mean(), (after, losses)

        grad, (after, losses) = jax.grad(objective, has_aux=True)(theta)
        return Window(after, grad, losses[None])

    return online(
        problem,
        particles=particles,
        horizon=horizon,
        window=window,
        stagger=stagger,
        first_episode=first_episode,
        particles_per_chunk=particles_per_chunk,
        mesh=mesh,
        start=start,
        advance=advance,
        weigh=as_they_are,
        cost=window,
    )


def unroll_in_segments(
    problem: UnrolledProblem, theta: Theta, state: PyTree, data: PyTree, length: int
) -> tuple[PyTree, jax.Array]:
    """`unroll`, whose reverse mode keeps O(sqrt(length)) states.

    Segments of floor(sqrt(length)) steps, and a shorter one at the end where they do not fit.

    Example:
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


def as_they_are(carry: PyTree, losses: jax.Array, finite: jax.Array) -> jax.Array:
    """Weights of 1 ``[n]``: the directions are the estimates themselves."""
    return jnp.ones_like(losses[:, 0, 0])
