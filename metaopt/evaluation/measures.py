"""From loss curves to the numbers of an evaluation; every rule that decides is here, and said.

* A loss that is not finite, or above the task's cap, counts as the cap; where a task has none, as
  the loss before the first step. So a run that diverged costs what no training at all would have
  cost; it is counted and never left out.
* A run has *diverged* where a measured loss is not finite or its training loss ends above its
  start.
* A baseline's learning rate is the best of the sweep, in the mean over seeds, *by the very number
  that is reported*: another one for each column, which is in the baseline's favour.
* *Score*: the progress of a run from its initial loss to its mean loss, over that of the tuned
  reference baseline from the same start: 0 is no progress, 1 is the reference's. Losses may be 0 or
  negative; nothing divides by one. On a seed where the reference makes no progress it is over its
  mean progress; where it makes none on average, scores and speed-ups are NaN. *Final score*: the
  same of the last loss instead of the mean.
* *Speed-up*: see `metaopt.evaluation.speedups`.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from metaopt.core.interval import Interval, interval
from metaopt.evaluation.baselines import Setting
from metaopt.evaluation.runs import SPLITS
from metaopt.evaluation.speedups import best, speed_ups
from metaopt.evaluation.trials import Trial


class Row(NamedTuple):
    """One optimizer on one task.

    Attributes:
      task, optimizer: names.
      rate, final_rate: the baseline's best rates by the mean and by the final loss on the reported
        split; ``None`` for others.
      start: the mean loss before the first step on the reported split.
      mean, final: split -> mean over the run's time, see `mean_losses`, and the last loss.
      per_seed: the mean loss where the rate is the best for each seed by itself (in a task family:
        for each member); ``None`` where nothing is tuned.
      accuracy: after the last step, on the reported split, at the rate that is best for it;
        ``None`` where the task has none.
      tuned, final_tuned: what was chosen beside ``rate`` and ``final_rate``, such as ``"decay 0.1,
        cosine"``; empty where only rates were swept.
      scores, final_scores, speedups: ``[seeds]``, see the module.
      diverged: runs of them that diverged.
      seconds_per_step, state_bytes: its cost.
    """

    task: str
    optimizer: str
    rate: float | None
    final_rate: float | None
    start: Interval
    mean: dict[str, Interval]
    final: dict[str, Interval]
    per_seed: float | None
    scores: np.ndarray
    final_scores: np.ndarray
    speedups: np.ndarray
    diverged: int
    seconds_per_step: float
    state_bytes: int
    accuracy: Interval | None = None
    tuned: str = ""
    final_tuned: str = ""


def counted(losses: np.ndarray, cap: float | None) -> np.ndarray:
    """Losses ``[..., points + 1, 3]`` as they count; see the module.

    NaN where the loss before the first step is not finite either, and there is no cap.

    Examples:
      >>> counted(np.array([[2.0], [1.0], [np.nan], [9.0]]), None)[:, 0].tolist()
      [2.0, 1.0, 2.0, 2.0]
    """
    start = np.where(np.isfinite(losses[..., :1, :]), losses[..., :1, :], np.float32(np.nan))
    ceiling = start if cap is None else np.float32(cap)
    return np.where(np.isfinite(losses) & (losses < ceiling), losses, ceiling)


def diverged(losses: np.ndarray) -> np.ndarray:
    """Which runs of ``[..., points + 1, 3]`` diverged.

    Examples:
      >>> diverged(np.array([[[2.0], [1.0]], [[2.0], [np.inf]], [[2.0], [3.0]]])).tolist()
      [False, True, True]
    """
    return ~np.isfinite(losses).all(axis=(-1, -2)) | (losses[..., -1, 0] > losses[..., 0, 0])


def mean_losses(losses: np.ndarray, split: str) -> np.ndarray:
    """The mean of counted losses over a run's time ``[...]``, from before its first step on.

    By the trapezoid rule, so that it hardly depends on how often a run was measured; the mean of
    the measurements would leave out the first steps, where losses fall most.

    Examples:
      >>> losses = np.array([4.0, 2.0, 1.0])[:, None]
      >>> float(mean_losses(np.repeat(losses, 3, axis=1), "test"))
      2.25
    """
    values = losses[..., SPLITS.index(split)].astype(np.float64)
    return np.trapezoid(values, axis=-1) / (values.shape[-1] - 1)


def makes_progress(start: np.ndarray, after: np.ndarray) -> bool:
    """Whether ``[seeds]`` losses are below those at the start, by more than rounding, on average.

    Examples:
      >>> one = np.ones(3, np.float32)
      >>> makes_progress(-one, -1.1 * one), makes_progress(one, one), makes_progress(one, 2 * one)
      (True, False, False)
    """
    rounding = 4 * float(np.finfo(np.float32).eps) * np.abs(start).mean()
    return bool((start - after).mean() > rounding)


def summarise(
    task: str,
    cap: float | None,
    trials: dict[str, Trial],
    *,
    settings: Mapping[str, Sequence[Setting]],
    num_steps: int,
    every: int,
    split: str,
) -> list[Row]:
    """A row for each optimizer; those with ``settings`` were swept, the first is the reference."""
    axis = SPLITS.index(split)
    reference = counted(trials[next(iter(settings))].at(num_steps), cap)
    start, means = reference[0, :, 0, axis].astype(np.float64), mean_losses(reference, split)
    progresses = makes_progress(start, means[best(means)])

    def scores(values: np.ndarray, of_reference: np.ndarray) -> np.ndarray:
        theirs = of_reference[best(of_reference)]
        if not (progresses and makes_progress(start, theirs)):
            return np.full(len(start), np.nan)
        made = start - theirs
        return (start - values) / np.where(made > 0, made, made.mean())

    def accuracy(name: str) -> Interval | None:
        curves = trials[name].accuracies.get(num_steps)
        if curves is None:
            return None
        ends = curves[..., -1, axis].astype(np.float64)
        return interval(ends[best(-ends)])

    def row(name: str) -> Row:
        raw = trials[name].at(num_steps)
        losses = counted(raw, cap)
        means = {s: mean_losses(losses, s) for s in SPLITS}
        finals = {s: losses[..., -1, i] for i, s in enumerate(SPLITS)}
        chosen, swept = best(means[split]), settings.get(name)
        last = best(finals[split])
        return Row(
            task=task,
            optimizer=name,
            rate=swept[chosen].rate if swept else None,
            final_rate=swept[last].rate if swept else None,
            start=interval(start),
            mean={s: interval(values[best(values)]) for s, values in means.items()},
            final={s: interval(values[best(values)]) for s, values in finals.items()},
            per_seed=float(means[split].min(axis=0).mean()) if swept else None,
            scores=scores(means[split][chosen], mean_losses(reference, split)),
            final_scores=scores(finals[split][last], reference[..., -1, axis]),
            speedups=speed_ups(losses[..., axis], reference[..., axis], every)
            if progresses
            else np.full(len(start), np.nan),
            diverged=int(diverged(raw[chosen]).sum()),
            seconds_per_step=trials[name].seconds_per_step,
            state_bytes=trials[name].state_bytes,
            accuracy=accuracy(name),
            tuned=swept[chosen].beside_rate() if swept else "",
            final_tuned=swept[last].beside_rate() if swept else "",
        )

    return [row(name) for name in trials]
