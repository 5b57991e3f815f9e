"""Several recipes and seeds, side by side: loss against updates, work, depth and seconds."""

import dataclasses
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.table import Table

from metaopt.config.registry import find
from metaopt.config.schema import Config
from metaopt.core.files import json_text
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


def runs(
    recipes: dict[str, Config], seeds: int, outer_steps: int | None
) -> Iterator[tuple[str, Config]]:
    """Where each run goes, below the comparison's folder, and its configuration."""
    for name, config in recipes.items():
        for seed in range(seeds):
            changed = dataclasses.replace(config, seed=seed)
            if outer_steps is not None:
                changed = dataclasses.replace(changed, outer_steps=outer_steps)
            yield f"{name}/seed{seed}", changed


def run_curves(recipe: str, config: Config, folders: list[Path]) -> RunCurves:
    """Reads the metrics of a recipe's finished runs.

    An update of an estimator with a window is that many steps deep, of one without it the horizon.
    """
    metrics = [RunDirectory(folder).read_metrics() for folder in folders]
    measure = "test_loss" if any("test_loss" in row for row in metrics[0]) else "loss"
    tables = [[row for row in rows if measure in row] for rows in metrics]
    column = lambda name: np.array([[row[name] for row in rows] for rows in tables], float)
    steps = column("step").mean(axis=0)
    online = "window" in inspect.signature(find("estimator", config.estimator.name)).parameters
    depth = config.estimator.window if online else config.estimator.horizon
    axes = {
        "updates": steps,
        "unroll_steps": column("unroll_steps").mean(axis=0),
        "sequential_steps": steps * depth,
        "seconds": column("seconds").mean(axis=0),
    }
    return RunCurves(recipe, column(measure), measure, axes)


def table(curves: list[RunCurves]) -> Table:
    """The loss of each recipe at its end and at its best, and what it took."""
    seeds = len(curves[0].losses)
    measure = curves[0].measure.replace("_", " ")
    table = Table(title=f"{measure}, mean over {seeds} seed{'s' * (seeds > 1)}")
    table.add_column("recipe", no_wrap=True)
    for heading in ("last tenth", "lowest", "updates", "unrolled", "depth", "seconds"):
        table.add_column(heading, justify="right")
    for one in curves:
        mean = one.losses.mean(axis=0)
        last = mean[-max(1, len(mean) // 10) :].mean()
        numbers = [f"{one.axes[axis][-1]:.3g}" for axis in AXES]
        table.add_row(one.recipe, f"{last:.4g}", f"{np.min(mean):.4g}", *numbers)
    return table


def to_json(curves: list[RunCurves]) -> str:
    """The curves as JSON; a loss that was not finite is null."""
    return json_text(curves)
