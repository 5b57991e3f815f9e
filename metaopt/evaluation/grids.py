"""Meta-generalisation: how a learned optimizer does on networks and runs of other sizes."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from metaopt.config.components import make
from metaopt.config.schema import Component
from metaopt.core.types import LearnedOptimizer, Theta
from metaopt.evaluation.changes import change_of
from metaopt.evaluation.measures import counted
from metaopt.evaluation.trials import Trial

WIDTHS, DEPTHS, SEEDS = (16, 64, 256), (1, 2, 4), 2


class Grid(NamedTuple):
    """Meta-generalisation of an optimizer: its progress over the tuned reference's, less 1.

    Attributes:
      optimizer: whose.
      widths, depths, horizons: of the hidden layers of ``digits_mlp``, and of the runs.
      progress: ``[depths, widths, horizons]`` by what fraction the progress from the initial to the
        mean loss exceeds the reference's: above 0 it is better; NaN where that makes none.
    """

    optimizer: str
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    horizons: tuple[int, ...]
    progress: np.ndarray


def measure_grids(
    trained: Mapping[str, tuple[LearnedOptimizer, Theta]],
    reference: str,
    *,
    horizons: tuple[int, ...],
    split: str,
    run: Callable[..., Trial],
) -> tuple[Grid, ...]:
    """A grid for each trained optimizer.

    Args:
      trained: name -> (optimizer, theta).
      reference: the baseline that it is against, tuned for each cell.
      horizons: lengths of runs.
      split: whose loss decides.
      run: ``(task, label, data, name, horizons, seeds) -> Trial`` of an optimizer or a baseline.
    """
    progress = {name: np.zeros((len(DEPTHS), len(WIDTHS), len(horizons))) for name in trained}
    for d, depth in enumerate(DEPTHS):
        for w, width in enumerate(WIDTHS):
            task = make("task", Component("digits_mlp", (f"hidden={[width] * depth}",)))
            data, size = task.data(), f"{depth} layers of {width}"
            of = {
                name: run(task, size, data, name, horizons, SEEDS) for name in (reference, *trained)
            }
            for name in trained:
                names = {"task": size, "optimizer": name, "against": reference}
                for i, h in enumerate(horizons):
                    ours = counted(of[name].at(h), task.loss_cap)
                    theirs = counted(of[reference].at(h), task.loss_cap)
                    change = change_of(ours, theirs, number="mean", split=split, **names)
                    progress[name][d, w, i] = change.progress.mean
    return tuple(Grid(name, WIDTHS, DEPTHS, horizons, progress[name]) for name in trained)
