"""``metaopt bench``: how fast it is here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from metaopt.core.errors import UserError
from metaopt.training import placement


@dataclass(frozen=True)
class Bench:
    """Time outer steps here, as fractions of what the device can do."""

    cases: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="CASE")] = ()
    """Which, or families of tasks; all cases if none is given and nothing else is asked for."""
    seconds: float = 3.0
    """How long to time each case's outer steps for."""
    repeats: int = 3
    """How often each case runs, in turns with the others; medians and ranges are shown."""
    devices: int | None = None
    """As for train."""
    update: bool = False
    """Time one update of every learned optimizer on a tree of 11 million parameters."""
    scaling: bool = False
    """Measure time and memory against particles, window, horizon, sizes and devices; draw them."""
    tasks: bool = False
    """Time a member of every family of tasks, or of those given, trained by Adam."""
    profile: bool = False
    """Write a trace of each case, for TensorBoard or Perfetto."""
    out: Path = Path("runs/bench")
    """Folder for bench.json, scaling.png and the traces."""

    def __call__(self) -> int:
        """Does it, and returns the exit code."""
        placement.prepare_jax(self.devices)
        from rich.console import Console

        from metaopt.bench.report import report_bench

        if self.seconds <= 0:
            raise UserError(f"--seconds must be above 0, got {self.seconds}.")
        if self.repeats < 1:
            raise UserError(f"--repeats must be at least 1, got {self.repeats}.")
        report_bench(
            Console(),
            names=self.cases,
            seconds=self.seconds,
            repeats=self.repeats,
            devices=self.devices,
            update=self.update,
            scaling=self.scaling,
            tasks=self.tasks,
            profile=self.profile,
            out=self.out,
        )
        return 0
