"""Several recipes and seeds, side by side: trained one after the other, then drawn together."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from metaopt.config.registry import find
from metaopt.config.schema import Config
from metaopt.core.errors import UserError
from metaopt.core.files import json_text, write_atomically
from metaopt.parallel.processes import is_primary
from metaopt.plotting.style import to_png
from metaopt.training import plots
from metaopt.training.lock import only_writer
from metaopt.training.run import meta_train
from metaopt.training.run_curves import AXES, RunCurves, run_curves


@dataclass(frozen=True)
class Sweep:
    """How several recipes went.

    Attributes:
      curves: of each recipe, in the order in which they were named.
    """

    curves: tuple[RunCurves, ...]

    def table(self) -> Table:
        """The loss of each recipe at its end and at its best, and what it took; for a terminal."""
        first = self.curves[0]
        seeds, measure = len(first.losses), first.measure.replace("_", " ")
        table = Table(title=f"{measure}, mean over {seeds} seed{'s' * (seeds > 1)}")
        table.add_column("recipe", no_wrap=True)
        for heading in ("last tenth", "lowest", "updates", "unrolled", "depth", "seconds"):
            table.add_column(heading, justify="right")
        for one in self.curves:
            mean = one.losses.mean(axis=0)
            last = mean[-max(1, len(mean) // 10) :].mean()
            numbers = [f"{one.axes[axis][-1]:.3g}" for axis in AXES]
            table.add_row(one.recipe, f"{last:.4g}", f"{np.min(mean):.4g}", *numbers)
        return table

    def plot(self) -> Figure:
        """A matplotlib figure: loss against each of the axes, the range over seeds as a band."""
        return plots.run_curves(self.curves)

    def to_json(self) -> str:
        """The curves as JSON; a loss that was not finite is null."""
        return json_text(self.curves)


def compare(
    recipes: Sequence[str],
    *,
    seeds: int = 1,
    outer_steps: int | None = None,
    out: str | Path = "runs/compare",
    devices: int | None = None,
    quiet: bool = False,
) -> Sweep:
    """Trains several recipes with several seeds, and reads how they went; `metaopt.compare`.

    Runs below ``out`` that are there already are resumed, or only read where they are finished.
    ``compare.json`` and ``compare.png`` are written there, too.

    Args:
      recipes: names of recipes.
      seeds: runs of each, with the seeds 0, 1, ...
      outer_steps: updates of theta; the recipe's own if not given.
      out: where the runs go, as ``RECIPE/seedN``.
      devices: see `metaopt.train`.
      quiet: print nothing.

    Raises:
      UserError: for an unknown recipe, no recipe or no seed, or what `metaopt.train` refuses.
      KeyboardInterrupt: where a signal asked for a stop; everything so far is saved then.
    """
    console, out = Console(quiet=quiet or not is_primary()), Path(out)
    folders: dict[str, list[Path]] = {}
    for place, config in runs(recipes, seeds, outer_steps):
        console.print(f"{place}:", highlight=False, markup=False)
        with only_writer(out / place):
            if meta_train(config, out / place, devices=devices, console=console) is not None:
                raise KeyboardInterrupt
        folders.setdefault(place.partition("/")[0], []).append(out / place)
    return read(folders, out)


def runs(
    recipes: Sequence[str], seeds: int, outer_steps: int | None
) -> Iterator[tuple[str, Config]]:
    """Where each run goes, below the sweep's folder, and its configuration.

    Raises:
      UserError: for an unknown recipe, or none, or no seed; before the first run is handed out.
    """
    if not recipes or seeds < 1:
        raise UserError(f"compare needs at least one recipe and one seed, got {seeds} seeds.")
    named = {name: find("recipe", name) for name in recipes}
    changes = {} if outer_steps is None else {"outer_steps": outer_steps}
    for name, config in named.items():
        for seed in range(seeds):
            yield f"{name}/seed{seed}", dataclasses.replace(config, seed=seed, **changes)


def read(folders: dict[str, list[Path]], out: Path) -> Sweep:
    """A sweep from the folders of each recipe's runs; process 0 also writes its files."""
    sweep = Sweep(tuple(run_curves(n, find("recipe", n), runs) for n, runs in folders.items()))
    if is_primary():
        write_atomically(out / "compare.json", sweep.to_json())
        write_atomically(out / "compare.png", to_png(sweep.plot()))
    return sweep
