"""What an evaluation found: all loss curves, and the numbers that follow from them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from metaopt.config.registry import choose
from metaopt.core.errors import UserError
from metaopt.evaluation.baselines import Setting
from metaopt.evaluation.changes import NUMBERS, change_of
from metaopt.evaluation.grids import Grid
from metaopt.evaluation.measures import Row, counted, mean_losses
from metaopt.evaluation.runs import SPLITS
from metaopt.evaluation.speedups import best
from metaopt.evaluation.statistics import (
    Range,
    interquartile_mean,
    probability_of_improvement,
    with_interval,
)
from metaopt.evaluation.trials import Trial
from metaopt.pretrained.gains import Change


class Aggregate(NamedTuple):
    """An optimizer over all tasks; each with a 95% interval of the stratified bootstrap.

    Tasks on which the reference makes no progress are left out; NaN if that are all of them.

    Attributes:
      optimizer: its name.
      score, final_score, speedup: interquartile means; see `metaopt.evaluation.measures`.
      improvement: the probability that a run of it scores above one of the reference baseline.
      diverged, runs: how many did, of how many on all tasks.
    """

    optimizer: str
    score: Range
    final_score: Range
    speedup: Range
    improvement: Range
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
      settings: baseline -> the M points of its sweep; the rate changes fastest.
      split: the split whose loss decides: rates, scores, speed-ups.
      trials: task -> optimizer -> all loss curves.
      caps: task -> the largest loss that counts, ``None`` for the loss before the first step.
      rows: a row for each task and optimizer.
      grids: meta-generalisation, where it was asked for.
      ranges: task -> optimizer -> a sentence on whether that is in its trained range.
      machine: the hardware and the versions that it ran with.
      costs: optimizer -> what its meta-training took, in a sentence, of those that say it.
      shipped: which baselines' curves were not measured here, in a sentence; empty if all were.
      suite: whose tasks these are, empty where they were named one by one.
      horizons: the lengths of the runs of the reference and of the learned optimizers; T is one.
    """

    optimizers: tuple[str, ...]
    baselines: tuple[str, ...]
    tasks: tuple[str, ...]
    num_steps: int
    every: int
    seeds: int
    rates: tuple[float, ...]
    settings: dict[str, tuple[Setting, ...]]
    split: str
    trials: dict[str, dict[str, Trial]]
    caps: dict[str, float | None]
    rows: tuple[Row, ...]
    grids: tuple[Grid, ...] = ()
    ranges: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    machine: str = ""
    costs: Mapping[str, str] = field(default_factory=dict)
    horizons: tuple[int, ...] = ()
    shipped: str = ""
    suite: str = ""

    @property
    def reference(self) -> str:
        """The baseline that scores and speed-ups are relative to."""
        return self.baselines[0]

    @property
    def meaningful(self) -> tuple[str, ...]:
        """The tasks on which the reference makes progress: the others have no scores."""
        rows = [row for row in self.rows if row.optimizer == self.reference]
        return tuple(row.task for row in rows if not np.isnan(row.scores).any())

    def steps(self, horizon: int | None = None) -> np.ndarray:
        """Inner steps ``[points + 1]`` of the measurements of a curve; of T steps if not said."""
        return np.arange(0, (horizon or self.num_steps) + 1, self.every)

    def curves(self, task: str, optimizer: str, horizon: int | None = None) -> np.ndarray:
        """Counted losses ``[M, seeds, points + 1, 3]`` at M settings; of T steps if not said.

        Raises:
          UserError: if there are no such runs, naming those that there are.
        """
        trial = self._trial(task, optimizer)
        return counted(trial.at(horizon or self.num_steps), self.caps[task])

    def _trial(self, task: str, optimizer: str) -> Trial:
        return choose("optimizer", optimizer, choose("task", task, self.trials))

    def tuned(self, task: str, optimizer: str, horizon: int | None = None) -> np.ndarray:
        """The same ``[seeds, points + 1, 3]`` at the setting whose mean on ``split`` is best."""
        losses = self.curves(task, optimizer, horizon)
        return losses[best(mean_losses(losses, self.split))]

    def losses(self, task: str, optimizer: str, horizon: int | None = None) -> np.ndarray:
        """The same on ``split`` alone, ``[seeds, points + 1]``, measured at `steps`."""
        return self.tuned(task, optimizer, horizon)[..., SPLITS.index(self.split)]

    def accuracies(self, task: str, optimizer: str) -> np.ndarray:
        """Accuracies ``[seeds, points + 1]`` on ``split`` at the rate that ends with the best one.

        Raises:
          UserError: for an unknown name, or a task without an accuracy.
        """
        curves = self._trial(task, optimizer).accuracies
        if self.num_steps not in curves:
            raise UserError(f"the task {task!r} has no accuracy.")
        values = curves[self.num_steps][..., SPLITS.index(self.split)]
        return values[best(-values[..., -1])]

    def sweep(self, task: str, baseline: str) -> np.ndarray:
        """Mean losses ``[R]`` on ``split`` over runs and seeds, for each of ``rates``.

        Each at the weight decay and schedule that are best for it, where these were tuned.
        """
        means = mean_losses(self.curves(task, baseline), self.split).mean(axis=1)
        return means.reshape(-1, len(self.rates)).min(axis=0) if len(means) > 1 else means

    def row(self, task: str, optimizer: str) -> Row:
        """The numbers of an optimizer on a task.

        Raises:
          UserError: for an unknown name.
        """
        choose("task", task, dict.fromkeys(self.tasks))
        of_task = {row.optimizer: row for row in self.rows if row.task == task}
        return choose("optimizer", optimizer, of_task)

    def change(
        self,
        optimizer: str | None = None,
        task: str | None = None,
        *,
        number: str = "mean",
        against: str | None = None,
    ) -> Change:
        """One optimizer against another by pairs of runs: a difference of losses, and of progress.

        Args:
          optimizer, task: the first ones if not given.
          number: ``"mean"`` loss over the run, or the ``"final"`` one; a baseline is at the rate
            that is best for it.
          against: the reference if not given.

        Raises:
          UserError: for an unknown name.
        """
        if number not in NUMBERS:
            raise UserError(f"number must be 'mean' or 'final', got {number!r}.")
        task, optimizer = task or self.tasks[0], optimizer or self.optimizers[0]
        against = against or self.reference
        ours, theirs = self.curves(task, optimizer), self.curves(task, against)
        names = {"task": task, "optimizer": optimizer, "against": against}
        return change_of(ours, theirs, number=number, split=self.split, **names)

    def changes(self) -> list[Change]:
        """Every learned optimizer against every baseline, the reference first."""
        return [
            self.change(optimizer, task, number=number, against=against)
            for against in self.baselines
            for optimizer in self.optimizers
            for task in self.tasks
            for number in NUMBERS
        ]

    def stacked(self, optimizer: str, what: str) -> np.ndarray:
        """``[tasks, seeds]`` of a row's ``"scores"`` and such, on the tasks that have them."""
        values = [getattr(self.row(task, optimizer), what) for task in self.meaningful]
        known = [one for one in values if not np.isnan(one).any()]
        return np.stack(known or values)

    def aggregates(self) -> list[Aggregate]:
        """Every optimizer over all tasks, learned ones first."""
        unknown = Range(*[float("nan")] * 3)

        def of(name: str) -> Aggregate:
            score = final = speedup = improvement = unknown
            if self.meaningful:
                scores, speedups = self.stacked(name, "scores"), self.stacked(name, "speedups")
                score = with_interval(interquartile_mean, scores)
                final = with_interval(interquartile_mean, self.stacked(name, "final_scores"))
                speedup = with_interval(interquartile_mean, speedups)
                # Against itself it is one half; two samples of the same runs would add nothing.
                improvement = Range(0.5, 0.5, 0.5)
                if name != self.reference:
                    theirs = self.stacked(self.reference, "scores")
                    improvement = with_interval(probability_of_improvement, scores, theirs)
            rows = [row for row in self.rows if row.optimizer == name]
            diverged, runs = sum(row.diverged for row in rows), self.seeds * len(rows)
            return Aggregate(name, score, final, speedup, improvement, diverged, runs)

        return [of(name) for name in (*self.optimizers, *self.baselines)]
