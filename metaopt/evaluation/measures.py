"""From loss curves to the numbers of an evaluation; every rule that decides is here, and said.

* A loss that is not finite, or above the task's cap, counts as the cap; where a task has none, as
  the loss before the first step. So a run that diverged costs what no training at all would have
  cost; it is counted and never left out.
* A run has *diverged* where a measured loss is not finite or its training loss ends above its
  start.
* A baseline's learning rate is the best of the sweep, in the mean over seeds, *by the very number
  that is reported*: another one for each column, which is in the baseline's favour.
* *Score*: the fraction by which a run's mean loss is below its initial loss, over that of the tuned
  reference baseline: 0 is no progress, 1 is the reference's.
* *Speed-up*: the steps that the reference needs to reach the loss with which a run ends, on the
  same seed, over the steps that the run took. The reference runs several times longer, at the rate
  that needs the fewest steps on average. A run that it never catches up with counts as all the
  steps there were, and the speed-up is a lower bound.
"""

from typing import NamedTuple

import numpy as np

from metaopt.evaluation.comparison import Interval, interval
from metaopt.evaluation.trials import SPLITS, Trial


class Row(NamedTuple):
    """One optimizer on one task.

    Attributes:
      task, optimizer: names.
      rate: the baseline's best rate by the mean loss on the reported split; ``None`` for others.
      mean, final: split -> mean over the run's measurements, and the last one.
      per_seed: the mean loss where the rate is the best for each seed by itself (in a task family:
        for each member); ``None`` where nothing is tuned.
      scores, speedups: ``[seeds]``, see the module.
      bounded: ``[seeds]`` where the speed-up is only a lower bound.
      diverged: runs of them that diverged.
      seconds_per_step, state_bytes: its cost.
    """

    task: str
    optimizer: str
    rate: float | None
    mean: dict[str, Interval]
    final: dict[str, Interval]
    per_seed: float | None
    scores: np.ndarray
    speedups: np.ndarray
    bounded: np.ndarray
    diverged: int
    seconds_per_step: float
    state_bytes: int


def counted(losses: np.ndarray, cap: float | None) -> np.ndarray:
    """Losses ``[..., points + 1, 3]`` as they count; see the module.

    Example:
      >>> counted(np.array([[2.0], [1.0], [np.nan], [9.0]]), None)[:, 0].tolist()
      [2.0, 1.0, 2.0, 2.0]
    """
    ceiling = losses[..., :1, :] if cap is None else np.float32(cap)
    return np.where(np.isfinite(losses) & (losses < ceiling), losses, ceiling)


def diverged(losses: np.ndarray) -> np.ndarray:
    """Which runs of ``[..., points + 1, 3]`` diverged.

    Example:
      >>> diverged(np.array([[[2.0], [1.0]], [[2.0], [np.inf]], [[2.0], [3.0]]])).tolist()
      [False, True, True]
    """
    return ~np.isfinite(losses).all(axis=(-1, -2)) | (losses[..., -1, 0] > losses[..., 0, 0])


def best(values: np.ndarray) -> int:
    """The index of the rate whose ``[rates, seeds]`` values are lowest on average."""
    return int(np.argmin(values.mean(axis=1)))


def mean_losses(losses: np.ndarray, split: str) -> np.ndarray:
    """The mean of counted losses along runs, without the one before the first step; ``[...]``."""
    return losses[..., 1:, SPLITS.index(split)].mean(axis=-1)


def steps_to_reach(
    targets: np.ndarray, curves: np.ndarray, every: int
) -> tuple[np.ndarray, np.ndarray]:
    """Steps after which the best loss so far is at most the target, at the best rate.

    Args:
      targets: ``[seeds]``.
      curves: ``[rates, seeds, points + 1]``, a measurement every ``every`` steps.
      every: that.

    Returns:
      Steps ``[seeds]``, the length of the curves where it is never reached; and whether it is.

    Example:
      >>> curve = np.array([[[4.0, 2.0, 3.0, 1.0]]])
      >>> [steps_to_reach(np.array([t]), curve, 5)[0].item() for t in (2.0, 1.5, 0.5)]
      [5, 15, 15]
    """
    reached = np.minimum.accumulate(curves, axis=-1) <= targets[:, None]
    ever = reached[..., -1]
    steps = every * np.where(ever, reached.argmax(axis=-1), curves.shape[-1] - 1)
    # Of rates that tie, the one that gets there more often.
    fastest = np.lexsort((-ever.mean(axis=1), steps.mean(axis=1)))[0]
    return steps[fastest], ever[fastest]


def summarise(
    task: str,
    cap: float | None,
    trials: dict[str, Trial],
    *,
    rates: tuple[float, ...],
    baselines: tuple[str, ...],
    num_steps: int,
    every: int,
    split: str,
) -> list[Row]:
    """A row for each optimizer; ``baselines`` were swept, the first of them is the reference."""
    reference = baselines[0]
    long = counted(next(iter(trials[reference].curves.values())), cap)[..., SPLITS.index(split)]

    def progress(losses: np.ndarray) -> np.ndarray:
        start = losses[..., 0, SPLITS.index(split)]
        return (start - mean_losses(losses, split)) / np.maximum(np.abs(start), 1e-30)

    rows, of_reference = [], np.ones(1)
    for name in sorted(trials, key=lambda name: name != reference):
        raw = trials[name].at(num_steps, every)
        losses = counted(raw, cap)
        means = {s: mean_losses(losses, s) for s in SPLITS}
        finals = {s: losses[..., -1, i] for i, s in enumerate(SPLITS)}
        chosen, chosen_final = best(means[split]), best(finals[split])
        if name == reference:
            of_reference = progress(losses[chosen])
        steps, reached = steps_to_reach(finals[split][chosen_final], long, every)
        swept = name in baselines
        row = Row(
            task=task,
            optimizer=name,
            rate=rates[chosen] if swept else None,
            mean={s: interval(values[best(values)]) for s, values in means.items()},
            final={s: interval(values[best(values)]) for s, values in finals.items()},
            per_seed=float(means[split].min(axis=0).mean()) if swept else None,
            scores=progress(losses[chosen]) / max(float(of_reference.mean()), 1e-30),
            speedups=steps / num_steps,
            bounded=~reached,
            diverged=int(diverged(raw[chosen]).sum()),
            seconds_per_step=trials[name].seconds_per_step,
            state_bytes=trials[name].state_bytes,
        )
        rows.append(row)
    return sorted(rows, key=lambda row: list(trials).index(row.optimizer))
