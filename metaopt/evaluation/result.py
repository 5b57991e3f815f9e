"""What an evaluation found: all loss curves, and the numbers that follow from them."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from metaopt.evaluation.grids import Grid
from metaopt.evaluation.measures import Row, best, counted, mean_losses
from metaopt.evaluation.statistics import (
    Range,
    interquartile_mean,
    probability_of_improvement,
    with_interval,
)
from metaopt.evaluation.trials import Trial


class Aggregate(NamedTuple):
    """An optimizer over all tasks; each with a 95% interval of the stratified bootstrap.

    Attributes:
      optimizer: its name.
      score, speedup: interquartile means; see `metaopt.evaluation.measures`.
      improvement: the probability that a run of it scores above one of the reference baseline.
      bounded: whether some of the speed-ups are only lower bounds.
      diverged, runs: how many did, of how many.
    """

    optimizer: str
    score: Range
    speedup: Range
    improvement: Range
    bounded: bool
    diverged: int
    runs: int


@dataclass(frozen=True, repr=False)
class Result:
    """All loss curves of an evaluation, and the rows made of them.

    Attributes:
      optimizers, baselines, tasks: names; the first baseline is the reference.
      num_steps: T, inner steps of a run.
      every: inner steps between two measurements.
      seeds: runs of each optimizer, and each rate, on each task.
      rates: ``[R]`` learning rates of the baselines' sweeps.
      split: the split whose loss decides: rates, scores, speed-ups.
      trials: task -> optimizer -> all loss curves.
      caps: task -> the largest loss that counts, ``None`` for the loss before the first step.
      rows: a row for each task and optimizer.
      grids: meta-generalisation, where it was asked for.
    """

    optimizers: tuple[str, ...]
    baselines: tuple[str, ...]
    tasks: tuple[str, ...]
    num_steps: int
    every: int
    seeds: int
    rates: tuple[float, ...]
    split: str
    trials: dict[str, dict[str, Trial]]
    caps: dict[str, float | None]
    rows: tuple[Row, ...]
    grids: tuple[Grid, ...] = ()

    @property
    def reference(self) -> str:
        """The baseline that scores and speed-ups are relative to."""
        return self.baselines[0]

    def curves(self, task: str, optimizer: str, horizon: int | None = None) -> np.ndarray:
        """Counted losses ``[M, seeds, points + 1, 3]`` at M rates; of T steps if not said."""
        trial = self.trials[task][optimizer]
        return counted(trial.at(horizon or self.num_steps, self.every), self.caps[task])

    def tuned(self, task: str, optimizer: str, horizon: int | None = None) -> np.ndarray:
        """The same ``[seeds, points + 1, 3]`` at the rate with the best mean loss on ``split``."""
        losses = self.curves(task, optimizer, horizon)
        return losses[best(mean_losses(losses, self.split))]

    def stacked(self, optimizer: str, what: str) -> np.ndarray:
        """``[tasks, seeds]`` of a field: ``"scores"``, ``"speedups"`` or ``"bounded"``."""
        return np.stack([getattr(row, what) for row in self.rows if row.optimizer == optimizer])

    def aggregates(self) -> list[Aggregate]:
        """Every optimizer over all tasks, learned ones first."""
        reference = self.stacked(self.reference, "scores")

        def of(name: str) -> Aggregate:
            scores, speedups = self.stacked(name, "scores"), self.stacked(name, "speedups")
            # Against itself it is one half; two samples of the same runs would add nothing.
            half = Range(0.5, 0.5, 0.5)
            return Aggregate(
                optimizer=name,
                score=with_interval(interquartile_mean, scores),
                speedup=with_interval(interquartile_mean, speedups),
                improvement=half
                if name == self.reference
                else with_interval(probability_of_improvement, scores, reference),
                bounded=bool(self.stacked(name, "bounded").any()),
                diverged=sum(row.diverged for row in self.rows if row.optimizer == name),
                runs=scores.size,
            )

        return [of(name) for name in (*self.optimizers, *self.baselines)]
