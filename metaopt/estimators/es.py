"""Evolution strategies on unrolled problems: one mechanism, a few choices.

N particles, each an antithetic pair, unroll W steps under theta ± eps between two updates of theta.
A particle's noise is drawn anew for each block c of K steps counted from its episode's start, and

    g = 1/(2 sigma^2 W) * sum_{t in window} (L_t^+ - L_t^-) * sum_{c <= n(t)} eps_c,  n = ceil(t/K)

averaged over particles, is unbiased for the gradient of the smoothed per-step loss while theta
stands still (GPES_K). The smoothing is by independent noises of the blocks, and so not quite the
same for every K. K = W is PES (Vicol et al. 2021, arXiv 2112.13835); K = T, one noise for the whole
episode, is NRES, whose variance is the least of the family (Li et al. 2023, arXiv 2304.12180). Then
the sum over blocks is the noise itself, and it is all that is kept.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from metaopt.core.types import GradientEstimator, PyTree, Theta, UnrolledProblem
from metaopt.core.unroll import unroll
from metaopt.estimators.horizons import Horizon, as_horizon
from metaopt.estimators.population import Episode, FirstEpisode, Stagger, Window, online, validate
from metaopt.estimators.shaping import Shaping, shaped_differences, validate_shaping

Sigma = float | Callable[[jax.Array], jax.Array]
"""A number, or a schedule of the outer step as optax has them."""


class Pair(NamedTuple):
    """What is kept of an antithetic pair, beside its episode.

    Attributes:
      inner: the problem's states ``[2, ...]``, under theta + eps and under theta - eps; without
        that axis where the problem says that they are shared.
      sigma: float32 scalar, the scale under which the episode's noise is drawn: a scheduled sigma
        that moves on does not move it.
      noise_sum: like theta, the finished blocks' noise summed; where K = T the episode's noise.
    """

    inner: PyTree
    sigma: jax.Array
    noise_sum: PyTree


def gpes(
    problem: UnrolledProblem,
    *,
    particles: int,
    horizon: int | Horizon,
    window: int,
    sigma: Sigma,
    reuse: int | None,
    stagger: Stagger = "balanced",
    first_episode: FirstEpisode = "short",
    shaping: Shaping = "raw",
    particles_per_chunk: int | None = None,
    mesh: Mesh | None = None,
) -> GradientEstimator:
    """Generalised persistent evolution strategies: fresh noise every ``reuse`` steps.

    Args:
      problem: what is unrolled.
      particles: N, the number of antithetic pairs.
      horizon: T, inner steps an episode, or a distribution of them (`metaopt.estimators.horizons`).
      window: W, inner steps between two updates of theta; divides the (longest) horizon.
      sigma: standard deviation of the perturbation of theta, or a schedule of it.
      reuse: K, inner steps for which one noise is kept, counted from the episode's start: a
        multiple of ``window`` up to ``horizon``; ``None`` keeps it for the whole episode.
      stagger: how the particles' phases are spread over the horizon: ``"balanced"`` (evenly; the
        least variance), ``"random"``, or ``"none"``.
      first_episode: how a particle gets to its phase: ``"short"`` (it starts fresh and ends its
        first episode early) or ``"burn_in"`` (it is unrolled to its phase first; counted).
      shaping: of the losses' differences: ``"raw"``, ``"standardise"`` (divided by their standard
        deviation over particles) or ``"centered_rank"`` (of ranks in [-1/2, 1/2] instead).
      particles_per_chunk: how many of a device's particles advance at a time, at most; what fits
        where it is ``None``. The estimate is the same up to rounding.
      mesh: spreads the particles over the devices of its axis ``"particles"``, see
        `metaopt.parallel.sharding.particle_mesh`; the estimate is the same up to the order of a
        sum.

    Returns:
      A `GradientEstimator` on a `metaopt.estimators.population.Population` of `Pair`.

    Raises:
      ValueError: for a value out of its range, naming it and the valid ones.

    Example:
      >>> from metaopt.tasks import PROBLEMS
      >>> problem = PROBLEMS["linear_recursion"]()
      >>> estimator = gpes(problem, particles=8, horizon=8, window=2, sigma=0.1, reuse=4)
      >>> theta = problem.init_theta(jax.random.key(0))
      >>> state = estimator.init(theta, (), jax.random.key(1))
      >>> estimate, state = estimator.estimate(theta, state, (), jax.random.key(2))
      >>> int(estimate.metrics["unroll_steps"])
      32
    """
    horizon = as_horizon(horizon)
    validate(particles, horizon, window, stagger, first_episode, mesh)
    schedule = sigma_schedule(sigma)
    reuse = validate_reuse(reuse, window, horizon.longest)
    validate_shaping(shaping)
    halves_axes = jax.tree.map(lambda shared: None if shared else 0, problem.shared)

    def start(theta: Theta, data: PyTree, episode: Episode) -> Pair:
        scale = schedule(episode.updates)
        eps = noise(theta, episode, scale, jnp.int32(0))
        halves = antithetic(theta, eps)
        key = jax.random.fold_in(episode.key, 0)  # one for both halves
        init = lambda half: problem.init(half, data, episode.horizon, key)
        begin = jax.vmap(init, out_axes=halves_axes)
        return Pair(begin(halves), scale, eps if reuse is None else optax.tree.zeros_like(theta))

    def advance(theta: Theta, data: PyTree, episode: Episode, pair: Pair) -> Window:
        eps, total, noise_sum = noise_of_window(
            theta, episode, pair.sigma, pair.noise_sum, reuse=reuse, window=window
        )
        run = lambda half, state: unroll(problem, half, state, data, window)
        both = jax.vmap(run, in_axes=(0, halves_axes), out_axes=(halves_axes, 0))
        inner, losses = both(antithetic(theta, eps), pair.inner)
        return Window(pair._replace(inner=inner, noise_sum=noise_sum), total, losses)

    def weigh(pair: Pair, losses: jax.Array, finite: jax.Array) -> jax.Array:
        return shaped_differences(shaping, losses, finite, mesh) / (2 * pair.sigma**2)

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
        weigh=weigh,
        cost=2 * window,
    )


def sigma_schedule(sigma: Sigma) -> Callable[[jax.Array], jax.Array]:
    """A number or a schedule as a function of the outer step, float32.

    Raises:
      ValueError: where it is not above 0, at any power of two as the outer step.
    """
    if not callable(sigma):
        if not (isinstance(sigma, (int, float)) and 0 < sigma < math.inf):
            raise ValueError(f"sigma must be a finite number above 0, got {sigma!r}.")
        return lambda updates: jnp.float32(sigma)

    def at(updates: jax.Array) -> jax.Array:
        with jax.numpy_dtype_promotion("standard"):  # optax mixes counters and floats
            return jnp.asarray(sigma(updates), jnp.float32)

    for step in [0, *(2**k for k in range(31))]:
        if not 0 < (value := float(at(jnp.int32(step)))) < math.inf:
            raise ValueError(
                f"a sigma schedule must stay finite and above 0, got {value:g} at outer step "
                f"{step}: give it an end value above 0."
            )
    return at


def validate_reuse(reuse: int | None, window: int, longest: int) -> int | None:
    """K as `noise_of_window` takes it: ``None`` where it is the whole horizon.

    Raises:
      ValueError: where it is not a multiple of the window up to the horizon.
    """
    if reuse is not None and (reuse % window or not window <= reuse <= longest):
        raise ValueError(
            f"reuse must be a multiple of window={window} up to horizon={longest}, got {reuse!r}."
        )
    return None if reuse == longest else reuse


def noise_of_window(
    theta: Theta,
    episode: Episode,
    sigma: jax.Array,
    noise_sum: PyTree,
    *,
    reuse: int | None,
    window: int,
) -> tuple[Theta, Theta, PyTree]:
    """A window's noise eps_n(t), the sum over blocks up to it, and the finished blocks' sum after.

    ``noise_sum`` is the latter before the window; where ``reuse`` is ``None`` it is the noise, kept
    because drawing it again for every window of one step costs a fifth of a small problem's time.
    """
    if reuse is None:
        return noise_sum, noise_sum, noise_sum
    eps = noise(theta, episode, sigma, episode.elapsed // reuse)
    total = optax.tree.add(noise_sum, eps)
    block_ends = (episode.elapsed + window) % reuse == 0
    return eps, total, optax.tree.where(block_ends, total, noise_sum)


def noise(theta: Theta, episode: Episode, sigma: jax.Array, block: jax.Array) -> Theta:
    """The noise of an episode's block: a function of its key, drawn again wherever it is needed."""
    key = jax.random.fold_in(jax.random.fold_in(episode.key, 1), block)
    return optax.tree.scale(sigma, optax.tree.random_like(key, theta))


def antithetic(theta: Theta, eps: Theta) -> Theta:
    """theta + eps and theta - eps, leaves ``[2, ...]``."""
    # As a loop, which writes its results down. What is only stacked XLA may add up again within
    # every operation on a weight, where a window is a single step: up to eight times as slow.
    signed = lambda sign: jax.tree.map(lambda t, e: t + sign.astype(t.dtype) * e, theta, eps)
    return jax.lax.map(signed, jnp.array([1.0, -1.0], jnp.float32))
