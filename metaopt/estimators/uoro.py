"""UORO: forward accumulation with a random rank-one stand-in for d state / d theta.

With s~ theta~^T unbiased for ds/dtheta, one step of s' = f(s, theta) takes

    a1 = (df/ds) s~,  b1 = theta~;   a2 = nu,  b2 = nu^T df/dtheta,   nu random signs
    s~ <- rho1 a1 + rho2 a2,  theta~ <- b1/rho1 + b2/rho2,  rho_i = sqrt(|b_i| / |a_i|)

which is unbiased again: nu is independent of the past, and E[nu nu^T] = I (Tallec and Ollivier
2017, arXiv 1702.05043).
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from metaopt.core.types import GradientEstimator, Key, PyTree, Theta, UnrolledProblem
from metaopt.core.unroll import unroll
from metaopt.estimators.float_leaves import (
    FloatLeaves,
    float_leaves,
    require_differentiable,
    with_float_leaves,
)
from metaopt.estimators.horizons import Horizon
from metaopt.estimators.kernel import Episode, ParticleKernel, Rollout, Window, inner_start
from metaopt.estimators.options import Windowed, takes
from metaopt.estimators.population import make_estimator
from metaopt.estimators.stagger import FirstEpisode, Stagger

EPSILON = 1e-7
"""Keeps the scales rho finite and above 0."""


class RankOne(NamedTuple):
    """What is kept of a particle, beside its episode.

    Attributes:
      inner: the problem's state.
      tangent: s~, like the state's float leaves.
      cotangent: theta~, like theta.
    """

    inner: PyTree
    tangent: FloatLeaves
    cotangent: Theta


@dataclass(frozen=True, kw_only=True)
class UORO(Windowed):
    """The options of `uoro`, for `metaopt.Config`, JSON and the command line."""

    name: ClassVar[str] = "uoro"


@takes(UORO)
def uoro(
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
    """Unbiased online recurrent optimization: rank-one forward accumulation (arXiv 1702.05043).

    The estimate is the window's mean of g_t = (dL_t/ds . s~) theta~ + dL_t/dtheta, where L_t is a
    function of the state before step t and of theta. At an episode's start the rank-one product is
    that of the initial state's own dependence on theta: zero if it has none.

    Args:
      problem: what is unrolled; differentiable.
      particles: N, the number of rank-one products at a time.
      horizon: T, inner steps an episode, or a distribution of them (`metaopt.estimators.horizons`).
      window: W, inner steps between two updates of theta; divides the (longest) horizon.
      stagger: how phases are spread: ``"balanced"``, ``"random"`` or ``"none"``.
      first_episode: how a particle gets to its phase: ``"short"`` or ``"burn_in"``.
      particles_per_chunk: how many of a device's particles advance at a time, at most.
      mesh: spreads the particles over devices; see `metaopt.estimators.gpes` for these four.

    Returns:
      A `GradientEstimator` on a `metaopt.estimators.population.Population` of `RankOne`.

    Raises:
      ValueError: for a problem that is not differentiable, or a value out of its range.

    Examples:
      >>> from metaopt.tasks import PROBLEMS
      >>> problem = PROBLEMS["linear_recursion"]()
      >>> estimator = uoro(problem, particles=8, horizon=8, window=2)
      >>> theta = problem.init_theta(jax.random.key(0))
      >>> state = estimator.init(theta, (), jax.random.key(1))
      >>> estimate, state = estimator.estimate(theta, state, (), jax.random.key(2))
      >>> int(estimate.metrics["unroll_steps"])
      16
    """
    require_differentiable(problem, "uoro")
    rollout = Rollout(particles, horizon, window, stagger, first_episode, particles_per_chunk, mesh)

    def start(theta: Theta, data: PyTree, episode: Episode) -> RankOne:
        def begin(theta):
            inner = inner_start(problem, theta, data, episode)
            return float_leaves(inner), inner

        leaves, pull, inner = jax.vjp(begin, theta, has_aux=True)
        nothing = optax.tree.zeros_like((leaves, theta))
        nu = signs(episode.key, jnp.int32(0), leaves)
        return RankOne(inner, *add_rank_one(nothing, (nu, pull(nu)[0])))

    def advance(theta: Theta, data: PyTree, episode: Episode, carry: RankOne) -> Window:
        def step(theta, state, data):
            """One inner step of everything, so that `unroll` is the scan here as well."""
            carry, grad_sum, done = state

            def one(theta, leaves):  # through unroll, for the loss cap
                inner = with_float_leaves(carry.inner, leaves)
                inner, (loss,) = unroll(problem, theta, inner, data, 1)
                return (float_leaves(inner), loss), inner

            leaves = float_leaves(carry.inner)
            along = lambda leaves: one(theta, leaves)
            (new, loss), (a, slope), inner = jax.jvp(
                along, (leaves,), (carry.tangent,), has_aux=True
            )
            _, pull, _ = jax.vjp(lambda theta: one(theta, leaves), theta, has_aux=True)
            (direct,) = pull((optax.tree.zeros_like(new), jnp.ones_like(loss)))
            grad_sum = jax.tree.map(
                lambda total, b, g: total + slope.astype(b.dtype) * b + g,
                *(grad_sum, carry.cotangent, direct),
            )
            nu = signs(episode.key, done + 1, new)
            (b,) = pull((nu, jnp.zeros_like(loss)))
            carry = RankOne(inner, *add_rank_one((a, carry.cotangent), (nu, b)))
            return (carry, grad_sum, done + 1), loss

        together = problem._replace(step=step, loss_cap=None)
        state = carry, optax.tree.zeros_like(theta), episode.elapsed
        (carry, grad_sum, _), losses = unroll(together, theta, state, data, window)
        mean = jax.tree.map(lambda leaf: leaf / window, grad_sum)
        return Window(carry, mean, losses[None])

    return make_estimator(problem, ParticleKernel(start, advance, cost=window), rollout)


def signs(key: Key, step: jax.Array, leaves: FloatLeaves) -> FloatLeaves:
    """Random signs like the leaves: a function of the episode's key and step."""
    key = jax.random.fold_in(jax.random.fold_in(key, 1), step)
    return optax.tree.random_like(key, leaves, sampler=jax.random.rademacher)


def add_rank_one(
    first: tuple[FloatLeaves, Theta], second: tuple[FloatLeaves, Theta]
) -> tuple[FloatLeaves, Theta]:
    """A rank-one product whose mean is the sum of two, each ``(a, b)``, under a random sign of one.

    Examples:
      >>> a, b = add_rank_one(([jnp.ones(1)], jnp.zeros(2)), ([jnp.ones(1)], jnp.full(2, 3.0)))
      >>> bool(jnp.allclose(a[0] * b, 3.0))
      True
    """
    # Scaled so, the two products' cross terms, the noise, are least.
    (a1, b1), (a2, b2) = first, second
    norm = optax.tree.norm
    rho1, rho2 = (
        jnp.sqrt(norm(b) / (norm(a) + EPSILON)) + EPSILON for a, b in ((a1, b1), (a2, b2))
    )

    def combine(scale1, scale2):
        return lambda x, y: scale1.astype(x.dtype) * x + scale2.astype(y.dtype) * y

    return (
        jax.tree.map(combine(rho1, rho2), a1, a2),
        jax.tree.map(combine(1 / rho1, 1 / rho2), b1, b2),
    )
