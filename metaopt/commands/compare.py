"""``metaopt compare``: several recipes, runs and seeds, side by side."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import tyro

from metaopt.commands.data_folder import DataFolder
from metaopt.parallel.processes import is_primary, together
from metaopt.training import placement


@dataclass(frozen=True)
class Compare(DataFolder):
    """Train several recipes with several seeds, and draw how they went, beside runs that exist."""

    what: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE|RUN")]
    """Recipes to train, as `metaopt list` shows them; directories of runs that exist, or of their
    seeds, which are read as they are."""
    problem: Annotated[str | None, tyro.conf.arg(name="problem.name")] = None
    """What the recipes unroll instead of their own problems; --problem is short for it."""
    problem_args: Annotated[tuple[str, ...], tyro.conf.arg(name="problem.args")] = ()
    """Its keyword arguments, each NAME=VALUE, the value in JSON."""
    estimators: tuple[str, ...] = ()
    """Train each recipe with each of these estimators; with its own if not given."""
    seeds: int = 1
    """Runs of each recipe, with the seeds 0, 1, ..."""
    outer_steps: int | None = None
    """Updates of theta; the recipe's own if not given."""
    out: Path = Path("runs/compare")
    """Where the runs, the table and the picture go. Existing runs are resumed."""
    devices: int | None = None
    """As for train."""
    by_several_processes: ClassVar[bool] = True

    def __call__(self) -> int:
        """Does it, and returns the exit code."""
        from rich.console import Console

        from metaopt.config.schema import Component
        from metaopt.plotting.terminal import print_table
        from metaopt.training import sweep
        from metaopt.training.entries import entries

        with together():
            placement.prepare_jax(self.devices)
            console = Console(quiet=not is_primary())
            problem = self.problem and Component(self.problem, self.problem_args)
            chosen = entries(self._named(), problem=problem or None, outer_steps=self.outer_steps)
            stopped = sweep.train_all(
                chosen, self.seeds, self.out, devices=self.devices, console=console
            )
            if stopped is not None:
                return 128 + stopped
        if is_primary():
            print_table(console, sweep.read(chosen, self.seeds, self.out).table())
            console.print(
                f"Picture: {self.out / 'compare.png'}",
                highlight=False,
                soft_wrap=True,
                markup=False,
            )
        return 0

    def _named(self) -> Any:
        """What is compared; a recipe once with each estimator, where these are named."""
        from metaopt.config.recipes import start_of
        from metaopt.config.registry import catalogue

        if not self.estimators:
            return self.what
        recipes = catalogue("recipe")
        return {
            name: thing
            for one in self.what
            for name, thing in (
                {f"{one}_{e}": start_of(one, e) for e in self.estimators}
                if one in recipes
                else {one: one}
            ).items()
        }
