"""``metaopt compare``: several recipes and seeds, side by side."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from metaopt.core.errors import UserError
from metaopt.parallel.processes import is_first, most, together
from metaopt.training import placement


@dataclass(frozen=True)
class Compare:
    """Run several recipes and seeds, and draw how their losses went."""

    recipes: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")]
    """What to run; `metaopt list` shows the recipes."""
    seeds: int = 1
    """Runs of each recipe, with the seeds 0, 1, ..."""
    outer_steps: int | None = None
    """Updates of theta; the recipe's own if not given."""
    out: Path = Path("runs/compare")
    """Where the runs, the table and the picture go. Runs that are there are gone on with."""
    devices: int | None = None
    """As for train."""
    by_several_processes: ClassVar[bool] = True

    def __call__(self) -> int:
        """Does it, and returns the exit code."""
        with together():
            placement.prepare_jax(self.devices)
            code, folders = _train_all(self)
        return code if code or not is_first() else _draw(self, folders)


def _train_all(command: Compare) -> tuple[int, dict[str, list[Path]]]:
    from rich.console import Console

    from metaopt.config.registry import find
    from metaopt.parallel.sharding import particle_mesh
    from metaopt.training import sweep
    from metaopt.training.loop import train
    from metaopt.training.progress import show_progress
    from metaopt.training.signals import stop_on_signals

    if not command.recipes or command.seeds < 1:
        raise UserError("compare needs at least one recipe and one seed.")
    console = Console(quiet=not is_first())
    recipes = {name: find("recipe", name) for name in command.recipes}
    folders: dict[str, list[Path]] = {name: [] for name in recipes}
    with stop_on_signals() as stop:
        for place, config in sweep.runs(recipes, command.seeds, command.outer_steps):
            count = command.devices or placement.devices_for(config)
            console.print(f"{place}:", highlight=False)
            with show_progress(console) as on_progress:
                result = train(
                    config,
                    command.out / place,
                    mesh=particle_mesh(count),
                    on_progress=on_progress,
                    should_stop=stop,
                )
            if not result.finished:
                console.print(f"Stopped; the same command goes on in {command.out}.")
                return 128 + most(stop.signal or 0)[0], folders
            folders[place.partition("/")[0]].append(command.out / place)
    return 0, folders


def _draw(command: Compare, folders: dict[str, list[Path]]) -> int:
    from rich.console import Console

    from metaopt.config.registry import find
    from metaopt.core.files import write_atomically
    from metaopt.plotting.style import to_png
    from metaopt.training import plots, sweep

    console = Console()
    curves = [sweep.run_curves(name, find("recipe", name), runs) for name, runs in folders.items()]
    console.print(sweep.table(curves))
    write_atomically(command.out / "compare.json", sweep.to_json(curves))
    write_atomically(command.out / "compare.png", to_png(plots.run_curves(curves)))
    console.print(f"Picture: {command.out / 'compare.png'}", highlight=False, soft_wrap=True)
    return 0
