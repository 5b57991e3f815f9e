"""Truncated evolution strategies: cheap to think of, and biased.

Every window draws fresh noise, both halves start from the same state, which was reached with theta
itself, and that noise alone multiplies the losses' difference: what theta did to the state before
the window is left out of the gradient. Metz et al. 2019 (arXiv 1810.10180) train learned optimizers
over truncated unrolls; Li et al. 2023 (arXiv 2304.12180) compare it with the unbiased family.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
from jax.sharding import Mesh

from metaopt.core.types import GradientEstimator, PyTree, Theta, UnrolledProblem
from metaopt.core.unroll import unroll
from metaopt.estimators.horizons import Horizon
from metaopt.estimators.kernel import Episode, ParticleKernel, Rollout, Window, inner_start
from metaopt.estimators.noise import (
    NoiseKind,
    Sigma,
    antithetic,
    drawn_noise,
    is_coupled,
    sigma_schedule,
)
from metaopt.estimators.options import EndingEarly, Smoothed, Windowed, takes
from metaopt.estimators.population import make_estimator
from metaopt.estimators.shaping import Shaping, weigh_differences
from metaopt.estimators.stagger import FirstEpisode, Stagger


class Centre(NamedTuple):
    """What is kept of a particle, beside its episode.

    Attributes:
      inner: the problem's state, reached with theta itself.
      sigma: float32 scalar, the noise's scale in this episode.
    """

    inner: PyTree
    sigma: jax.Array


@dataclass(frozen=True, kw_only=True)
class TruncatedES(EndingEarly, Windowed, Smoothed):
    """The options of `truncated_es`, for `metaopt.Config`, JSON and the command line."""

    name: ClassVar[str] = "truncated_es"


@takes(TruncatedES)
def truncated_es(
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
    scale_to_horizon: bool = True,
) -> GradientEstimator:
    """Truncated ES: fresh noise every window and nothing remembered, so biased.

    Arguments and errors are those of `metaopt.estimators.gpes`. Costs 3 N W an update. An episode
    ends early where the state that theta itself reached has ended.

    Returns:
      A `GradientEstimator` on a `metaopt.estimators.population.Population` of `Centre`.

    Examples:
      >>> from metaopt.tasks import PROBLEMS
      >>> problem = PROBLEMS["linear_recursion"]()
      >>> estimator = truncated_es(problem, particles=4, horizon=8, window=2, sigma=0.1)
    """
    rollout = Rollout(particles, horizon, window, stagger, first_episode, particles_per_chunk, mesh)
    schedule, draw = sigma_schedule(sigma), drawn_noise(noise, rollout)

    def start(theta: Theta, data: PyTree, episode: Episode) -> Centre:
        return Centre(inner_start(problem, theta, data, episode), schedule(episode.updates))

    def advance(theta: Theta, data: PyTree, episode: Episode, centre: Centre) -> Window:
        eps = draw(theta, episode, centre.sigma, episode.elapsed)
        run = lambda half: unroll(problem, half, centre.inner, data, window)
        _, losses = jax.vmap(run)(antithetic(theta, eps))
        inner, _ = run(theta)
        ended = None if problem.done is None else problem.done(inner)
        return Window(centre._replace(inner=inner), eps, losses, ended)

    weigh = weigh_differences(shaping, rollout)
    kernel = ParticleKernel(start, advance, 3 * window, weigh, is_coupled(noise))
    return make_estimator(problem, kernel, rollout, scale_to_horizon)
