"""How much lower one optimizer's loss is than another's, by pairs of runs."""

import numpy as np

from metaopt.core.interval import Interval, interval
from metaopt.evaluation.measures import makes_progress, mean_losses
from metaopt.evaluation.runs import SPLITS
from metaopt.evaluation.speedups import best
from metaopt.pretrained.gains import Change

NUMBERS = ("mean", "final")
"""The loss over the measurements of a run, and the last one."""


def change_of(
    ours: np.ndarray, theirs: np.ndarray, *, number: str, split: str, **names: str
) -> Change:
    """One optimizer against another, in one number; see `Change`.

    Seeds differ far more than optimizers do, and both have the same ones: the interval is that of
    the differences of pairs.

    Args:
      ours, theirs: ``[rates, seeds, points + 1, 3]`` counted losses from the same starts; each is
        taken at the rate that is best for the number.
      number: one of `NUMBERS`.
      split: whose loss it is.
      **names: ``task``, ``optimizer`` and ``against``.

    Examples:
      >>> adam = np.broadcast_to(np.array([5.0, -3.0])[:, None], (1, 2, 2, 3))
      >>> mine = np.broadcast_to(np.array([5.0, -4.0])[:, None], (1, 2, 2, 3))
      >>> names = {"task": "t", "optimizer": "mine", "against": "adam"}
      >>> found = change_of(mine, adam, number="final", split="test", **names)
      >>> found.difference.mean, found.progress.mean
      (-1.0, 0.125)
    """
    a, b = (_values(losses, number, split) for losses in (ours, theirs))
    start = theirs[0, :, 0, SPLITS.index(split)].astype(np.float64)
    difference = interval(a - b)
    progress = Interval(float("nan"), float("nan"))
    if makes_progress(start, b):
        made = float((start - b).mean())
        progress = Interval(-difference.mean / made, difference.half_width / made)
    return Change(
        number=number,
        split=split,
        seeds=len(a),
        start=float(start.mean()),
        ours=float(a.mean()),
        theirs=float(b.mean()),
        difference=difference,
        progress=progress,
        **names,
    )


def _values(losses: np.ndarray, number: str, split: str) -> np.ndarray:
    """``[seeds]`` of a number at its best rate."""
    if number == "mean":
        values = mean_losses(losses, split)
    else:
        values = losses[..., -1, SPLITS.index(split)].astype(np.float64)
    return values[best(values)]
