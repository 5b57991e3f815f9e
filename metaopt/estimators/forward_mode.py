"""Forward mode along random directions: unbiased, online, without smoothing.

Each particle carries the derivative of its state along a random direction v of theta. A window's
mean loss then has the directional derivative dL, and dL v is unbiased for its gradient, as
E[v v^T] = I (the forward gradient of Baydin et al. 2022, arXiv 2202.08587): the ES family's
estimate in the limit of sigma to 0, block rule included.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from metaopt.core.types import GradientEstimator, PyTree, Theta, UnrolledProblem
from metaopt.core.unroll import unroll
from metaopt.estimators.float_leaves import (
    FloatLeaves,
    float_leaves,
    require_differentiable,
    with_float_leaves,
)
from metaopt.estimators.horizons import Horizon
from metaopt.estimators.kernel import Episode, ParticleKernel, Rollout, Window, inner_start
from metaopt.estimators.noise import block_noise
from metaopt.estimators.options import Reusing, takes
from metaopt.estimators.population import make_estimator
from metaopt.estimators.stagger import FirstEpisode, Stagger


class Tangent(NamedTuple):
    """What is kept of a particle, beside its episode.

    Attributes:
      inner: the problem's state.
      tangent: its float leaves' derivative along the directions so far.
      noise_sum: like theta, the finished blocks' directions summed; where K = T the episode's, or
        ``()`` where that is large, and drawn again in every window.
    """

    inner: PyTree
    tangent: FloatLeaves
    noise_sum: PyTree


@dataclass(frozen=True, kw_only=True)
class Forward(Reusing):
    """The options of `forward`, for `metaopt.Config`, JSON and the command line."""

    name: ClassVar[str] = "forward"


@takes(Forward)
def forward(
    problem: UnrolledProblem,
    *,
    particles: int,
    horizon: int | Horizon,
    window: int,
    reuse: int | None = None,
    stagger: Stagger = "balanced",
    first_episode: FirstEpisode = "short",
    particles_per_chunk: int | None = None,
    mesh: Mesh | None = None,
) -> GradientEstimator:
    """Forward mode along v ~ N(0, I), drawn anew every ``reuse`` steps (DODGE).

    g = 1/W sum_{t in window} dL_t sum_{c <= n(t)} v_c, where dL_t is the derivative of L_t along
    all directions v_c of the blocks c so far, n(t) = ceil(t/K) (Silver et al. 2022, "Learning by
    directional gradient descent"; Li et al. 2023, arXiv 2304.12180, use it as the unsmoothed
    counterpart of NRES). The initial state counts as part of the first block.

    Args:
      problem: what is unrolled; differentiable.
      particles: N, the number of directions at a time.
      horizon: T, inner steps an episode, or a distribution of them (`metaopt.estimators.horizons`).
      window: W, inner steps between two updates of theta; divides the (longest) horizon.
      reuse: K, inner steps for which a direction is kept: a multiple of ``window`` up to
        ``horizon``; ``None`` keeps it for the whole episode.
      stagger: how phases are spread: ``"balanced"``, ``"random"`` or ``"none"``.
      first_episode: how a particle gets to its phase: ``"short"`` or ``"burn_in"``.
      particles_per_chunk: how many of a device's particles advance at a time, at most.
      mesh: spreads the particles over devices; see `metaopt.estimators.gpes` for these four.

    Returns:
      A `GradientEstimator` on a `metaopt.estimators.population.Population` of `Tangent`.

    Raises:
      ValueError: for a problem that is not differentiable, or a value out of its range.

    Examples:
      >>> from metaopt.tasks import PROBLEMS
      >>> problem = PROBLEMS["linear_recursion"]()
      >>> estimator = forward(problem, particles=8, horizon=8, window=2, reuse=4)
      >>> theta = problem.init_theta(jax.random.key(0))
      >>> state = estimator.init(theta, (), jax.random.key(1))
      >>> estimate, state = estimator.estimate(theta, state, (), jax.random.key(2))
      >>> int(estimate.metrics["unroll_steps"])
      16
    """
    require_differentiable(problem, "forward")
    rollout = Rollout(particles, horizon, window, stagger, first_episode, particles_per_chunk, mesh)
    noise, unit = block_noise(reuse, rollout), jnp.float32(1)

    def start(theta: Theta, data: PyTree, episode: Episode) -> Tangent:
        def begin(theta):
            inner = inner_start(problem, theta, data, episode)
            return float_leaves(inner), inner

        v, noise_sum = noise.start(theta, episode, unit)
        _, tangent, inner = jax.jvp(begin, (theta,), (v,), has_aux=True)
        return Tangent(inner, tangent, noise.keep(noise_sum, (inner, tangent)))

    def advance(theta: Theta, data: PyTree, episode: Episode, carry: Tangent) -> Window:
        def run(theta, leaves):
            inner = with_float_leaves(carry.inner, leaves)
            inner, losses = unroll(problem, theta, inner, data, window)
            return (float_leaves(inner), losses.mean()), (inner, losses)

        v, total, noise_sum = noise.advance(theta, episode, unit, carry.noise_sum)
        _, (tangent, slope), (inner, losses) = jax.jvp(
            run, (theta, float_leaves(carry.inner)), (v, carry.tangent), has_aux=True
        )
        direction = jax.tree.map(lambda leaf: slope.astype(leaf.dtype) * leaf, total)
        return Window(Tangent(inner, tangent, noise_sum), direction, losses[None])

    return make_estimator(problem, ParticleKernel(start, advance, cost=window), rollout)
