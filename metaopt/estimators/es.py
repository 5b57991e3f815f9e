"""Evolution strategies on unrolled problems: one mechanism, a few choices.

N particles, each an antithetic pair, unroll W steps under theta ± eps between two updates of theta.
A particle's noise is drawn anew for each block c of K steps counted from its episode's start, and

    g = 1/(2 sigma^2 W) * sum_{t in window} (L_t^+ - L_t^-) * sum_{c <= n(t)} eps_c,  n = ceil(t/K)

averaged over particles, is unbiased for the gradient of the smoothed per-step loss while theta
stands still (GPES_K). The smoothing is by independent noises of the blocks, and so not quite the
same for every K. K = W is PES (Vicol et al. 2021, arXiv 2112.13835); K = T, one noise for the whole
episode, is NRES, whose variance is the least of the family (Li et al. 2023, arXiv 2304.12180). Then
the sum over blocks is the noise itself: its key is enough.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
from jax.sharding import Mesh

from metaopt.core.types import GradientEstimator, PyTree, Theta, UnrolledProblem
from metaopt.core.unroll import unroll
from metaopt.estimators.early_ends import all_ended
from metaopt.estimators.horizons import Horizon, as_horizon
from metaopt.estimators.kernel import (
    ContinueFrom,
    Episode,
    ParticleKernel,
    Rollout,
    Window,
    inner_start,
)
from metaopt.estimators.noise import (
    NoiseKind,
    Sigma,
    antithetic,
    block_noise,
    is_coupled,
    sigma_schedule,
)
from metaopt.estimators.options import Continuing, EndingEarly, Reusing, Smoothed, Windowed, takes
from metaopt.estimators.population import make_estimator
from metaopt.estimators.shaping import Shaping, weigh_differences
from metaopt.estimators.stagger import FirstEpisode, Stagger


class Pair(NamedTuple):
    """What is kept of an antithetic pair, beside its episode.

    Attributes:
      inner: the problem's states ``[2, ...]``, under theta + eps and under theta - eps; without
        that axis where the problem says that they are shared.
      sigma: float32 scalar, the scale under which the episode's noise is drawn: a scheduled sigma
        that moves on does not move it.
      noise_sum: like theta, the finished blocks' noise summed; where K = T the episode's noise, or
        ``()`` where that is large, and drawn again in every window.
    """

    inner: PyTree
    sigma: jax.Array
    noise_sum: PyTree


def _estimator(
    problem: UnrolledProblem,
    rollout: Rollout,
    sigma: Sigma,
    reuse: int | None,
    shaping: Shaping,
    noise: NoiseKind,
    scale_to_horizon: bool = True,
) -> GradientEstimator:
    """Any member of the family: its rollout and K are what distinguishes it."""
    schedule = sigma_schedule(sigma)
    blocks, window = block_noise(reuse, rollout, noise), rollout.window
    halves_axes = jax.tree.map(lambda shared: None if shared else 0, problem.shared)

    def start(theta: Theta, data: PyTree, episode: Episode) -> Pair:
        scale = schedule(episode.updates)
        eps, noise_sum = blocks.start(theta, episode, scale)
        of_half = lambda half: inner_start(problem, half, data, episode)
        inner = jax.vmap(of_half, out_axes=halves_axes)(antithetic(theta, eps))
        return Pair(inner, scale, blocks.keep(noise_sum, inner))

    def advance(theta: Theta, data: PyTree, episode: Episode, pair: Pair) -> Window:
        eps, total, noise_sum = blocks.advance(theta, episode, pair.sigma, pair.noise_sum)
        run = lambda half, state: unroll(problem, half, state, data, window)
        both = jax.vmap(run, in_axes=(0, halves_axes), out_axes=(halves_axes, 0))
        inner, losses = both(antithetic(theta, eps), pair.inner)
        pair = pair._replace(inner=inner, noise_sum=noise_sum)
        return Window(pair, total, losses, all_ended(problem, inner, halves_axes))

    weigh = weigh_differences(shaping, rollout)
    kernel = ParticleKernel(start, advance, 2 * window, weigh, is_coupled(noise))
    return make_estimator(problem, kernel, rollout, scale_to_horizon)


@dataclass(frozen=True, kw_only=True)
class GPES(EndingEarly, Continuing, Reusing, Smoothed):
    """The options of `gpes`, for `metaopt.Config`, JSON and the command line."""

    name: ClassVar[str] = "gpes"

    def arguments(self) -> dict[str, Any]:
        if self.reuse is None:
            raise ValueError("it needs a value for reuse, a multiple of the window.")
        return super().arguments()


@takes(GPES)
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
    noise: NoiseKind = "gaussian",
    particles_per_chunk: int | None = None,
    mesh: Mesh | None = None,
    continue_from: ContinueFrom | None = None,
    continue_probability: float = 0.5,
    scale_to_horizon: bool = True,
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
        first episode early; biased for T/W updates) or ``"burn_in"`` (it is unrolled to its phase
        first, counted; unbiased at once).
      shaping: of the losses' differences: ``"raw"``, ``"standardise"`` (divided by their standard
        deviation over particles, two at least) or ``"centered_rank"`` (of ranks in [-1/2, 1/2]
        instead).
      noise: ``"gaussian"``; ``"orthogonal"``: those of particles that start one after another are
        orthogonal to each other, each by itself still Gaussian, so that the estimate is as unbiased
        and, where N is not far below theta's size, of less variance; ``"orthogonal_fixed"``: the
        same of length sigma sqrt(d), which smooths over a ball; ``"rademacher"``: plus or minus
        sigma for each number.
      particles_per_chunk: how many of a device's particles advance at a time, at most; what fits
        where it is ``None``. The estimate is the same up to rounding.
      mesh: spreads the particles over devices, see `metaopt.parallel.sharding.particle_mesh`; the
        estimate is the same up to the order of a sum.
      continue_from: what may go on at an episode's end, with the same states under the same noise,
        by a newly drawn length, instead of starting anew: ``"length"``, any episode, which leaves
        the estimate unbiased for the mean loss over the longer visits; ``"struggle"``, those whose
        loss rose further above its lowest than ever before in their last window, which tilts it
        (`metaopt.estimators.continuing`); ``None``, none. The problem knows the first length only.
      continue_probability: of going on, for those that may.
      scale_to_horizon: where episodes can end early (the problem has ``done``), whether estimate
        and loss are those of the mean over the whole horizon. A pair of which both halves have
        ended starts anew with the next window, so that what is measured is the mean over windows
        lived; it is multiplied by ``lived_fraction``, a running mean. With ``False`` it is not: the
        same direction, longer by 1 / ``lived_fraction``.

    Returns:
      A `GradientEstimator` on a `metaopt.estimators.population.Population` of `Pair`, with the
      metrics of `metaopt.estimators.averages.estimate_of` and, where episodes can end early, of
      `metaopt.estimators.early_ends.summarise_lives`; with ``continue_from``, ``mean_visit`` and
      ``longest_visit`` (inner steps from their starts to now, over the particles there are).

    Raises:
      ValueError: for a value out of its range, naming it and the valid ones.

    Examples:
      >>> from metaopt.tasks import PROBLEMS
      >>> problem = PROBLEMS["linear_recursion"]()
      >>> estimator = gpes(problem, particles=8, horizon=8, window=2, sigma=0.1, reuse=4)
      >>> theta = problem.init_theta(jax.random.key(0))
      >>> state = estimator.init(theta, (), jax.random.key(1))
      >>> estimate, state = estimator.estimate(theta, state, (), jax.random.key(2))
      >>> int(estimate.metrics["unroll_steps"])
      32
    """
    rollout = Rollout(
        particles, horizon, window, stagger, first_episode, particles_per_chunk, mesh,
        continue_from, continue_probability,
    )  # fmt: skip
    return _estimator(problem, rollout, sigma, reuse, shaping, noise, scale_to_horizon)


@dataclass(frozen=True, kw_only=True)
class NRES(EndingEarly, Continuing, Windowed, Smoothed):
    """The options of `nres`, for `metaopt.Config`, JSON and the command line."""

    name: ClassVar[str] = "nres"

    @property
    def noise_period(self) -> int:
        return self.horizon


@takes(NRES)
def nres(
    problem: UnrolledProblem,
    *,
    particles: int,
    horizon: int | Horizon,
    window: int,
    sigma: Sigma,
    stagger: Stagger = "balanced",
    first_episode: FirstEpisode = "short",
    shaping: Shaping = "raw",
    noise: NoiseKind = "gaussian",
    particles_per_chunk: int | None = None,
    mesh: Mesh | None = None,
    continue_from: ContinueFrom | None = None,
    continue_probability: float = 0.5,
    scale_to_horizon: bool = True,
) -> GradientEstimator:
    """Noise-Reuse Evolution Strategies: one noise for a whole episode (arXiv 2304.12180). K = T.

    Unbiased for a theta that stands still, with the least variance of the family. Arguments,
    result and errors are those of `gpes`.

    Examples:
      >>> from metaopt.tasks import PROBLEMS
      >>> problem = PROBLEMS["linear_recursion"]()
      >>> estimator = nres(problem, particles=4, horizon=8, window=2, sigma=0.1)
    """
    rollout = Rollout(
        particles, horizon, window, stagger, first_episode, particles_per_chunk, mesh,
        continue_from, continue_probability,
    )  # fmt: skip
    return _estimator(problem, rollout, sigma, None, shaping, noise, scale_to_horizon)


@dataclass(frozen=True, kw_only=True)
class PES(EndingEarly, Continuing, Windowed, Smoothed):
    """The options of `pes`, for `metaopt.Config`, JSON and the command line."""

    name: ClassVar[str] = "pes"

    @property
    def noise_period(self) -> int:
        return self.window


@takes(PES)
def pes(
    problem: UnrolledProblem,
    *,
    particles: int,
    horizon: int | Horizon,
    window: int,
    sigma: Sigma,
    stagger: Stagger = "balanced",
    first_episode: FirstEpisode = "short",
    shaping: Shaping = "raw",
    noise: NoiseKind = "gaussian",
    particles_per_chunk: int | None = None,
    mesh: Mesh | None = None,
    continue_from: ContinueFrom | None = None,
    continue_probability: float = 0.5,
    scale_to_horizon: bool = True,
) -> GradientEstimator:
    """Persistent Evolution Strategies: fresh noise every window (arXiv 2112.13835). K = W.

    Arguments, result and errors are those of `gpes`.

    Examples:
      >>> from metaopt.tasks import PROBLEMS
      >>> problem = PROBLEMS["linear_recursion"]()
      >>> estimator = pes(problem, particles=4, horizon=8, window=2, sigma=0.1)
    """
    rollout = Rollout(
        particles, horizon, window, stagger, first_episode, particles_per_chunk, mesh,
        continue_from, continue_probability,
    )  # fmt: skip
    return _estimator(problem, rollout, sigma, window, shaping, noise, scale_to_horizon)


@dataclass(frozen=True, kw_only=True)
class ESSingle(EndingEarly, Smoothed):
    """The options of `es_single`, for `metaopt.Config`, JSON and the command line."""

    name: ClassVar[str] = "es_single"
    of_another: ClassVar[str | None] = "nres"

    window: int = 20
    """W, inner steps between two outer steps; divides the horizon."""


@takes(ESSingle)
def es_single(
    problem: UnrolledProblem,
    *,
    particles: int,
    horizon: int | Horizon,
    window: int,
    sigma: Sigma,
    shaping: Shaping = "raw",
    noise: NoiseKind = "gaussian",
    particles_per_chunk: int | None = None,
    mesh: Mesh | None = None,
    scale_to_horizon: bool = True,
) -> GradientEstimator:
    """ES-Single: one noise for a whole episode, all particles in step (arXiv 2304.11153).

    `nres` without stagger: an update sees one window of the horizon only. Where episodes end early
    each pair starts anew by itself, so that they fall out of step. Arguments, result and errors are
    those of `gpes`.

    Examples:
      >>> from metaopt.tasks import PROBLEMS
      >>> problem = PROBLEMS["linear_recursion"]()
      >>> estimator = es_single(problem, particles=4, horizon=8, window=2, sigma=0.1)
    """
    rollout = Rollout(particles, horizon, window, "none", "short", particles_per_chunk, mesh)
    return _estimator(problem, rollout, sigma, None, shaping, noise, scale_to_horizon)


@dataclass(frozen=True, kw_only=True)
class FullES(Smoothed):
    """The options of `full_es`, for `metaopt.Config`, JSON and the command line."""

    name: ClassVar[str] = "full_es"


@takes(FullES)
def full_es(
    problem: UnrolledProblem,
    *,
    particles: int,
    horizon: int | Horizon,
    sigma: Sigma,
    shaping: Shaping = "raw",
    noise: NoiseKind = "gaussian",
    particles_per_chunk: int | None = None,
    mesh: Mesh | None = None,
) -> GradientEstimator:
    """Offline evolution strategies: every update unrolls whole episodes from fresh states. W = T.

    Where episodes end early their halves are frozen until T; nothing has to be scaled. Arguments,
    result and errors are those of `gpes`.

    Examples:
      >>> from metaopt.tasks import PROBLEMS
      >>> estimator = full_es(PROBLEMS["linear_recursion"](), particles=4, horizon=8, sigma=0.1)
    """
    longest = as_horizon(horizon).longest
    rollout = Rollout(particles, horizon, longest, "none", "short", particles_per_chunk, mesh)
    return _estimator(problem, rollout, sigma, None, shaping, noise)
