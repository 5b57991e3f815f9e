"""Truncated evolution strategies: cheap to think of, and biased.

Every window draws fresh noise, both halves start from the same state, which was reached with theta
itself, and that noise alone multiplies the losses' difference: what theta did to the state before
the window is left out of the gradient. Metz et al. 2019 (arXiv 1810.10180) train learned optimizers
over truncated unrolls; Li et al. 2023 (arXiv 2304.12180) compare it with the unbiased family.
"""

from typing import NamedTuple

import jax
from jax.sharding import Mesh

from metaopt.core.types import GradientEstimator, PyTree, Theta, UnrolledProblem
from metaopt.core.unroll import unroll
from metaopt.estimators.es import Sigma, antithetic, noise, sigma_schedule
from metaopt.estimators.horizons import Horizon
from metaopt.estimators.population import Episode, FirstEpisode, Stagger, Window, online
from metaopt.estimators.shaping import Shaping, shaped_differences, validate_shaping


class Centre(NamedTuple):
    """What is kept of a particle, beside its episode.

    Attributes:
      inner: the problem's state, reached with theta itself.
      sigma: float32 scalar, the noise's scale in this episode.
    """

    inner: PyTree
    sigma: jax.Array


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
    particles_per_chunk: int | None = None,
    mesh: Mesh | None = None,
) -> GradientEstimator:
    """Truncated ES: fresh noise every window and nothing remembered, so biased.

    The arguments are those of `metaopt.estimators.gpes`. Costs 3 N W an update.

    Example:
      >>> from metaopt.tasks import PROBLEMS
      >>> problem = PROBLEMS["linear_recursion"]()
      >>> estimator = truncated_es(problem, particles=4, horizon=8, window=2, sigma=0.1)
    """
    schedule = sigma_schedule(sigma)
    validate_shaping(shaping)

    def start(theta: Theta, data: PyTree, episode: Episode) -> Centre:
        inner = problem.init(theta, data, episode.horizon, jax.random.fold_in(episode.key, 0))
        return Centre(inner, schedule(episode.updates))

    def advance(theta: Theta, data: PyTree, episode: Episode, centre: Centre) -> Window:
        eps = noise(theta, episode, centre.sigma, episode.elapsed)
        _, losses = jax.vmap(lambda half: unroll(problem, half, centre.inner, data, window))(
            antithetic(theta, eps)
        )
        inner, _ = unroll(problem, theta, centre.inner, data, window)
        return Window(centre._replace(inner=inner), eps, losses)

    def weigh(centre: Centre, losses: jax.Array, finite: jax.Array) -> jax.Array:
        return shaped_differences(shaping, losses, finite, mesh) / (2 * centre.sigma**2)

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
        cost=3 * window,
    )
