"""How runs went that differ only in their seed, against updates, work, depth and seconds."""

from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import NamedTuple

import numpy as np

from metaopt.core.errors import UserError
from metaopt.core.metric import Metric
from metaopt.training.metrics import read_metrics
from metaopt.training.outcome import Measurements, measured_in
from metaopt.training.run_directory import RunDirectory

AXES = {
    "updates": "outer steps",
    "unroll_steps": "unroll steps",
    "sequential_steps": "sequential steps",
    "seconds": "seconds",
}


class RunCurves(NamedTuple):
    """How the runs of one line of a comparison went, a row a logged outer step.

    Attributes:
      name: the line's.
      metric: the test metric that the values are; ``None`` where they are the meta-loss.
      values: ``[seeds, rows]``.
      axes: the name of each of `AXES` -> ``[rows]``, the mean over seeds.
    """

    name: str
    metric: Metric | None
    values: np.ndarray
    axes: dict[str, np.ndarray]

    @property
    def title(self) -> str:
        """What the values are."""
        return "meta-loss" if self.metric is None else self.metric.title

    @property
    def last(self) -> np.ndarray:
        """``[seeds]`` of where each run ended: the last test, or the last tenth of meta-losses."""
        rows = self.values.shape[1]
        return self.values[:, -1 if self.metric else -max(1, rows // 10) :].mean(axis=1)

    @property
    def best(self) -> float:
        """The best of the mean over seeds; NaN if no value is finite."""
        mean = self.values.mean(axis=0)
        index = (self.metric or Metric()).best(mean)
        return float("nan") if index is None else float(mean[index])


def run_curves(folders: Mapping[str, Sequence[Path]]) -> tuple[RunCurves, ...]:
    """Reads the metrics of runs by name: the test metric if all have the same, else the meta-loss.

    Of the outer steps those that all seeds have. An update of an estimator with a window is that
    many steps deep, of one without it the horizon.

    Raises:
      UserError: where a folder holds no run or no metrics, or seeds have no outer step in common.
    """
    measured = {path: measured_in(path) for paths in folders.values() for path in paths}
    metrics = {one and one.metric for one in measured.values()}
    metric = metrics.pop() if len(metrics) == 1 else None
    return tuple(_curves(name, paths, metric, measured) for name, paths in folders.items())


def _curves(
    name: str,
    paths: Sequence[Path],
    metric: Metric | None,
    measured: Mapping[Path, Measurements | None],
) -> RunCurves:
    columns = [read_metrics(path) for path in paths]
    tests = [one for one in (measured[path] for path in paths) if one is not None]
    logged = [one["step"] for one in columns] if metric is None else [one.steps for one in tests]
    steps = reduce(np.intersect1d, logged)
    if not len(steps):
        raise UserError(f"the runs of {name!r} have no measured outer step in common.")
    # Every test is of an outer step that is logged.
    rows = [np.isin(one["step"], steps) for one in columns]
    of = lambda key: np.stack([one[key][row] for one, row in zip(columns, rows, strict=True)])
    updates = steps.astype(np.float64)
    axes = {
        "updates": updates,
        "unroll_steps": of("unroll_steps").mean(axis=0),
        "sequential_steps": updates * RunDirectory(paths[0]).read_config().estimator.depth,
        "seconds": of("seconds").mean(axis=0),
    }
    values = of("loss" if metric is None else metric.key)
    return RunCurves(name, metric, values.astype(np.float64), axes)
