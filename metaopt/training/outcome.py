"""What a run found, in words: its test metric, and theta where it is small."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metaopt.config.recipes import summary
from metaopt.core.errors import UserError
from metaopt.core.metric import Metric
from metaopt.training.run_directory import RunDirectory
from metaopt.training.save import flat_theta

FEW = 8
"""Numbers of theta that a line has room for."""

SMALL = 32
"""As many numbers of theta are shown; of a larger one nothing is."""


class Measurements(NamedTuple):
    """The test metric of a run.

    Attributes:
      metric: what it is.
      steps, values: ``[measurements]``, after which outer steps it was measured, and what it was.
    """

    metric: Metric
    steps: np.ndarray
    values: np.ndarray

    def text(self) -> str:
        """The newest value, and the best where that is another one.

        Examples:
          >>> steps, values = np.array([10, 20, 30]), np.array([3.0, 1.5, 2.0])
          >>> Measurements(Metric(), steps, values).text()
          'test loss 2 after outer step 30 (best: 1.5 after 20)'
        """
        best = self.metric.best(self.values)
        said = f"{self.metric.text(self.values[-1])} after outer step {self.steps[-1]:,}"
        if best is None or self.values[best] == self.values[-1]:
            return said
        return f"{said} (best: {self.values[best]:.4g} after {self.steps[best]:,})"


def measured_in(run: Any) -> Measurements | None:
    """The test metric of a run; ``None`` where it was not measured.

    Args:
      run: a run's directory, or a `metaopt.Run`.
    """
    directory = RunDirectory(Path(run))
    metric = directory.read_test_metric()
    try:
        rows = [row for row in directory.read_metrics() if metric.key in row]
    except FileNotFoundError:
        return None
    if not rows:
        return None
    # JSON has null for what is not finite.
    values = [np.nan if row[metric.key] is None else row[metric.key] for row in rows]
    steps = np.array([row["step"] for row in rows])
    return Measurements(metric, steps, np.array(values, np.float64))


def theta_lines(flat: Mapping[str, np.ndarray]) -> list[str]:
    """The numbers of theta, an entry a leaf; none if they are more than `SMALL`.

    Examples:
      >>> theta_lines({"p": np.float32(0.25), "d": np.float32([2.3, 3.5])})
      ['p = 0.25', 'd = [2.3, 3.5]']
    """
    if sum(np.size(leaf) for leaf in flat.values()) > SMALL:
        return []
    return [f"{path} = {_numbers(leaf)}" for path, leaf in flat.items()]


def theta_text(flat: Mapping[str, np.ndarray]) -> str:
    """The same in a line, where theta has at most `FEW` numbers."""
    if sum(np.size(leaf) for leaf in flat.values()) > FEW:
        return ""
    return ", ".join(theta_lines(flat))


def outcome(run: Any) -> str:
    """What a run found, in a line; empty where there is nothing to say yet.

    Args:
      run: a run's directory, or a `metaopt.Run`.
    """
    measured = measured_in(run)
    said = [] if measured is None else [measured.text()]
    with suppress(UserError):  # it has saved none yet, or that is damaged
        said.append(theta_text(flat_theta(run)))
    return "; ".join(filter(None, said))


def problem_runs(folder: Path = Path("runs")) -> dict[str, str]:
    """The runs in a folder whose problem is no inner training, a line on each by its path.

    Examples:
      >>> problem_runs(Path("nowhere"))
      {}
    """
    found = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        directory = RunDirectory(path)
        if directory.read_problem() in (None, "training"):
            continue
        try:
            about = summary(directory.read_config())
        except UserError:
            about = "damaged"
        found[str(path)] = "; ".join(filter(None, (about, outcome(path))))
    return found


def _numbers(leaf: np.ndarray) -> str:
    return np.array2string(
        np.asarray(leaf),
        separator=", ",
        max_line_width=10_000,
        formatter={"float_kind": lambda value: f"{value:.4g}"},
    ).replace("\n", "")
