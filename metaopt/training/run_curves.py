"""How the runs of a recipe went: their losses against updates, work, depth and seconds."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from metaopt.config.schema import Config
from metaopt.training.run_directory import RunDirectory

AXES = {
    "updates": "outer steps",
    "unroll_steps": "unroll steps",
    "sequential_steps": "sequential steps",
    "seconds": "seconds",
}


class RunCurves(NamedTuple):
    """How one recipe went, a row a logged outer step.

    Attributes:
      recipe: its name.
      losses: ``[seeds, rows]`` the test loss where the problem has one, else the meta-loss.
      measure: which of the two, ``"test_loss"`` or ``"loss"``.
      axes: the name of each of `AXES` -> ``[rows]``, the mean over seeds.
    """

    recipe: str
    losses: np.ndarray
    measure: str
    axes: dict[str, np.ndarray]


def run_curves(recipe: str, config: Config, folders: list[Path]) -> RunCurves:
    """Reads the metrics of a recipe's finished runs.

    An update of an estimator with a window is that many steps deep, of one without it the horizon.
    """
    metrics = [RunDirectory(folder).read_metrics() for folder in folders]
    measure = "test_loss" if any("test_loss" in row for row in metrics[0]) else "loss"
    tables = [[row for row in rows if measure in row] for rows in metrics]
    column = lambda name: np.array([[row[name] for row in rows] for rows in tables], float)
    steps = column("step").mean(axis=0)
    axes = {
        "updates": steps,
        "unroll_steps": column("unroll_steps").mean(axis=0),
        "sequential_steps": steps * config.estimator.depth,
        "seconds": column("seconds").mean(axis=0),
    }
    return RunCurves(recipe, column(measure), measure, axes)
