"""What a kind of noise is worth: the variance of the mean estimate, over a run that stands still.

Coupled noises differ in how particles' estimates go together, which the variance of one particle
does not say. So runs of the configured number of particles are unrolled at a theta that does not
move, each in its stationary phases, and the variance of their estimates is taken as it is.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
import optax

from metaopt.core.types import GradientEstimator, Key, PyTree, Theta

RUNS = 8
"""Independent runs, whose spread is the standard error."""


class NoiseRow(NamedTuple):
    """One kind of noise.

    Attributes:
      estimator, noise: which.
      particles: N.
      updates: estimates that were taken, over all runs.
      nonfinite: particles left out.
      variance: tr Cov of the mean estimate of N particles.
      variance_error: its standard error, from the spread over runs.
      ratio: over that of the first kind.
      ratio_error: of the ratio; 0 for the first kind. Runs of all kinds share keys, and it is from
        the runs' differences.
      norm: of the mean estimate, what chance adds taken off.
    """

    estimator: str
    noise: str
    particles: int
    updates: int
    nonfinite: int
    variance: float
    variance_error: float
    ratio: float
    ratio_error: float
    norm: float

    @property
    def verdict(self) -> str:
        """``"less"``, ``"more"`` or ``"same"``: by more than two standard errors, or not."""
        if abs(self.ratio - 1) <= 2 * self.ratio_error:
            return "same"
        return "less" if self.ratio < 1 else "more"


class Sums(NamedTuple):
    """Of one run's estimates: their mean ``[d]``, the mean of their squared norms, and counts."""

    mean: np.ndarray
    square: float
    nonfinite: int


def compare_noises(
    theta: Theta,
    data: PyTree,
    estimators: Sequence[tuple[str, str, GradientEstimator]],
    *,
    particles: int,
    episode: int,
    updates: int,
    key: Key,
    on_progress: Callable[[str, float], None] = lambda label, done: None,
) -> list[NoiseRow]:
    """Variances of the mean estimate, of one estimator under several kinds of noise.

    Args:
      theta: where.
      data: the problem's.
      estimators: ``(estimator, noise, made)``; the first is what the others are compared to.
      particles: N, of each.
      episode: M = T/W, updates that an episode lasts. As many are done before any is counted, so
        that frames lie as they do in a long run.
      updates: in each of `RUNS` runs, those counted.
      key: of everything random; the same for every kind.
      on_progress: told ``(noise, done)``.

    Examples:
      >>> from metaopt.estimators import nres
      >>> from metaopt.tasks import PROBLEMS
      >>> problem = PROBLEMS["linear_recursion"]()
      >>> make = partial(nres, problem, particles=4, horizon=8, window=2, sigma=0.1)
      >>> made = [("nres", noise, make(noise=noise)) for noise in ("gaussian", "orthogonal")]
      >>> theta, key = problem.init_theta(jax.random.key(0)), jax.random.key(1)
      >>> rows = compare_noises(
      ...     theta, (), made, particles=4, episode=4, updates=50, key=key
      ... )
      >>> [row.noise for row in rows], rows[0].ratio, rows[1].updates
      (['gaussian', 'orthogonal'], 1.0, 400)
    """
    found: list[list[Sums]] = []
    for _, noise, estimator in estimators:
        program = jax.jit(partial(_run, estimator, episode, updates))
        runs = []
        for i in range(RUNS):
            mean, square, nonfinite = jax.device_get(
                program(theta, data, jax.random.fold_in(key, i))
            )
            flat = [np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(mean)]
            runs.append(Sums(np.concatenate(flat), float(square), int(nonfinite)))
            on_progress(noise, (i + 1) / RUNS)
        found.append(runs)
    first, rows = found[0], []
    for (name, noise, _), runs in zip(estimators, found, strict=True):
        variance, signal = _variance(runs)
        without = np.array([_variance(runs[:i] + runs[i + 1 :])[0] for i in range(RUNS)])
        of_first = np.array([_variance(first[:i] + first[i + 1 :])[0] for i in range(RUNS)])
        rows.append(
            NoiseRow(
                estimator=name,
                noise=noise,
                particles=particles,
                updates=RUNS * updates,
                nonfinite=sum(run.nonfinite for run in runs),
                variance=variance,
                variance_error=_jackknifed(without),
                ratio=variance / _variance(first)[0],
                ratio_error=_jackknifed(without / of_first),
                norm=math.sqrt(max(signal, 0.0)),
            )
        )
    return rows


def _run(estimator: GradientEstimator, episode: int, updates: int, theta, data, key):
    """Mean estimate, mean squared norm and particles left out, of one run."""

    def step(state, i):
        said, state = estimator.estimate(theta, state, data, jax.random.fold_in(key, i))
        return state, said

    def counted(carry, i):
        state, mean, square, lost = carry
        state, said = step(state, i)
        mean = jax.tree.map(lambda old, new: old + new / updates, mean, said.grad)
        square += sum((leaf**2).sum() for leaf in jax.tree.leaves(said.grad)) / updates
        return (state, mean, square, lost + said.metrics["nonfinite_pairs"]), None

    state = estimator.init(theta, data, jax.random.fold_in(key, 0))
    state = jax.lax.scan(lambda s, i: (step(s, i)[0], None), state, 1 + np.arange(episode))[0]
    nothing = optax.tree.zeros_like(theta)
    begun = state, nothing, np.float32(0), np.int32(0)
    (_, *sums), _ = jax.lax.scan(counted, begun, 1 + episode + np.arange(updates))
    return sums


def _variance(runs: Sequence[Sums]) -> tuple[float, float]:
    """tr Cov of an estimate, and its squared mean: of that only products of different runs."""
    means = np.stack([run.mean for run in runs])
    n = len(means)
    signal = (np.square(means.sum(axis=0)).sum() - np.square(means).sum()) / (n * (n - 1))
    return float(np.mean([run.square for run in runs]) - signal), float(signal)


def _jackknifed(without: np.ndarray) -> float:
    """The standard error of a statistic from its values without each of the samples."""
    n = len(without)
    return math.sqrt((n - 1) / n * np.square(without - without.mean()).sum())
