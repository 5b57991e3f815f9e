"""``metaopt compare``: several recipes and seeds, side by side."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from metaopt.parallel.processes import is_primary, together
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
    """Where the runs, the table and the picture go. Existing runs are resumed."""
    devices: int | None = None
    """As for train."""
    by_several_processes: ClassVar[bool] = True

    def __call__(self) -> int:
        """Does it, and returns the exit code."""
        from rich.console import Console

        from metaopt.training import sweep
        from metaopt.training.lock import only_writer
        from metaopt.training.run import meta_train

        folders: dict[str, list[Path]] = {}
        with together():
            placement.prepare_jax(self.devices)
            console = Console(quiet=not is_primary())
            for place, config in sweep.runs(self.recipes, self.seeds, self.outer_steps):
                console.print(f"{place}:", highlight=False, markup=False)
                folder = self.out / place
                with only_writer(folder):
                    stopped = meta_train(config, folder, devices=self.devices, console=console)
                if stopped is not None:
                    return 128 + stopped
                folders.setdefault(place.partition("/")[0], []).append(folder)
        if is_primary():
            console.print(sweep.read(folders, self.out).table())
            console.print(f"Picture: {self.out / 'compare.png'}", highlight=False, soft_wrap=True)
        return 0
