"""Aggregates over tasks and seeds that a few outliers do not decide, with their uncertainty.

Scores are arrays ``[..., tasks, seeds]``, higher is better. The recommendations are those of
Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice" (arXiv
2108.13264): interquartile means, stratified-bootstrap intervals, performance profiles and
probabilities of improvement.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

FEWEST_SEEDS = 5
"""Fewer values a task are too few to resample: the bootstrap's interval would be far too short."""


class Range(NamedTuple):
    """An aggregate and the ends of its interval, NaN where there are too few seeds for one."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        ends = "?" if math.isnan(self.low) else f"{_short(self.low)}, {_short(self.high)}"
        return f"{_short(self.value)} [{ends}]"

    def excludes(self, value: float) -> bool:
        """Whether the interval leaves a value out; never where there is no interval."""
        return self.low > value or self.high < value


def _short(value: float) -> str:
    """Two decimals of what is near 1, as scores and speed-ups are, three digits of the rest."""
    return f"{value:.2f}" if 0.095 <= abs(value) < 10 else f"{value:.3g}"


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """The mean of the middle half of all runs ``[..., tasks, seeds]``; returns ``[...]``.

    As many runs as go into a quarter are cut off at either end, rounded down.

    Examples:
      >>> float(interquartile_mean(np.array([[0.0, 1.0, 2.0, 99.0], [0.0, 3.0, 4.0, -9.0]])))
      1.5
    """
    flat = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)
    cut = flat.shape[-1] // 4
    return flat[..., cut : flat.shape[-1] - cut].mean(axis=-1)


def probability_of_improvement(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """P(a run of x scores above one of y), averaged over tasks: Mann and Whitney's U over n m.

    Args:
      x: ``[..., tasks, n]``.
      y: ``[..., tasks, m]``. Ties count half.

    Examples:
      >>> float(probability_of_improvement(np.array([[1.0, 2.0]]), np.array([[1.0, 0.0]])))
      0.875
    """
    above = x[..., :, None] > y[..., None, :]
    equal = x[..., :, None] == y[..., None, :]
    return (above + 0.5 * equal).mean(axis=(-3, -2, -1))


def performance_profile(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """The fraction of runs whose score is above each threshold; ``[..., len(thresholds)]``.

    Examples:
      >>> performance_profile(np.array([[0.0, 1.0], [2.0, 3.0]]), np.array([0.5, 2.5])).tolist()
      [0.75, 0.25]
    """
    flat = scores.reshape(*scores.shape[:-2], 1, -1)
    return (flat > thresholds[:, None]).mean(axis=-1)


def bootstrap(
    statistic: Callable[..., np.ndarray],
    *scores: np.ndarray,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """The ends of a percentile interval, by resampling seeds with replacement within each task.

    Args:
      statistic: takes arrays ``[resamples, tasks, seeds]``, returns ``[resamples, ...]``.
      *scores: ``[tasks, seeds]`` each, resampled independently of one another.
      resamples: how many.
      level: of confidence.
      seed: of the draws; the same call gives the same interval.

    Examples:
      >>> low, high = bootstrap(interquartile_mean, np.array([[1.0, 2.0, 3.0, 4.0, 5.0]]))
      >>> bool(1 <= low < 3 < high <= 5)
      True
    """
    draw, drawn = np.random.default_rng(seed), []
    for one in scores:
        tasks, seeds = one.shape
        index = draw.integers(seeds, size=(resamples, tasks, seeds))
        drawn.append(one[np.arange(tasks)[:, None], index])
    tail = (1 - level) / 2
    low, high = np.quantile(statistic(*drawn), [tail, 1 - tail], axis=0)
    return low, high


def with_interval(statistic: Callable[..., np.ndarray], *scores: np.ndarray, **options) -> Range:
    """A scalar statistic of ``scores`` and its `bootstrap` interval.

    The ends are NaN where a task has fewer than `FEWEST_SEEDS` values.
    """
    if min(one.shape[-1] for one in scores) < FEWEST_SEEDS:
        return Range(float(statistic(*scores)), float("nan"), float("nan"))
    low, high = bootstrap(statistic, *scores, **options)
    return Range(float(statistic(*scores)), float(low), float(high))
