"""The named members of the ES family: each one choice of `gpes`, which explains the arguments."""

from jax.sharding import Mesh

from metaopt.core.types import GradientEstimator, UnrolledProblem
from metaopt.estimators.es import Sigma, gpes
from metaopt.estimators.horizons import Horizon, as_horizon
from metaopt.estimators.population import FirstEpisode, Stagger
from metaopt.estimators.shaping import Shaping


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
    particles_per_chunk: int | None = None,
    mesh: Mesh | None = None,
) -> GradientEstimator:
    """Noise-Reuse Evolution Strategies: one noise for a whole episode (arXiv 2304.12180).

    Unbiased for a theta that stands still, with the least variance of the family. K = T.

    Example:
      >>> from metaopt.tasks import PROBLEMS
      >>> problem = PROBLEMS["linear_recursion"]()
      >>> estimator = nres(problem, particles=4, horizon=8, window=2, sigma=0.1)
    """
    return gpes(
        problem,
        particles=particles,
        horizon=horizon,
        window=window,
        sigma=sigma,
        reuse=None,
        stagger=stagger,
        first_episode=first_episode,
        shaping=shaping,
        particles_per_chunk=particles_per_chunk,
        mesh=mesh,
    )


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
    particles_per_chunk: int | None = None,
    mesh: Mesh | None = None,
) -> GradientEstimator:
    """Persistent Evolution Strategies: fresh noise every window (arXiv 2112.13835). K = W.

    Example:
      >>> from metaopt.tasks import PROBLEMS
      >>> problem = PROBLEMS["linear_recursion"]()
      >>> estimator = pes(problem, particles=4, horizon=8, window=2, sigma=0.1)
    """
    return gpes(
        problem,
        particles=particles,
        horizon=horizon,
        window=window,
        sigma=sigma,
        reuse=window,
        stagger=stagger,
        first_episode=first_episode,
        shaping=shaping,
        particles_per_chunk=particles_per_chunk,
        mesh=mesh,
    )


def es_single(
    problem: UnrolledProblem,
    *,
    particles: int,
    horizon: int | Horizon,
    window: int,
    sigma: Sigma,
    shaping: Shaping = "raw",
    particles_per_chunk: int | None = None,
    mesh: Mesh | None = None,
) -> GradientEstimator:
    """ES-Single: one noise for a whole episode, all particles in step (arXiv 2304.11153).

    `nres` without stagger: an update sees one window of the horizon only.

    Example:
      >>> from metaopt.tasks import PROBLEMS
      >>> problem = PROBLEMS["linear_recursion"]()
      >>> estimator = es_single(problem, particles=4, horizon=8, window=2, sigma=0.1)
    """
    return nres(
        problem,
        particles=particles,
        horizon=horizon,
        window=window,
        sigma=sigma,
        stagger="none",
        shaping=shaping,
        particles_per_chunk=particles_per_chunk,
        mesh=mesh,
    )


def full_es(
    problem: UnrolledProblem,
    *,
    particles: int,
    horizon: int | Horizon,
    sigma: Sigma,
    shaping: Shaping = "raw",
    particles_per_chunk: int | None = None,
    mesh: Mesh | None = None,
) -> GradientEstimator:
    """Offline evolution strategies: every update unrolls whole episodes from fresh states. W = T.

    Example:
      >>> from metaopt.tasks import PROBLEMS
      >>> estimator = full_es(PROBLEMS["linear_recursion"](), particles=4, horizon=8, sigma=0.1)
    """
    return nres(
        problem,
        particles=particles,
        horizon=horizon,
        window=as_horizon(horizon).longest,
        sigma=sigma,
        stagger="none",
        shaping=shaping,
        particles_per_chunk=particles_per_chunk,
        mesh=mesh,
    )
