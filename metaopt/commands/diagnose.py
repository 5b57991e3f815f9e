"""``metaopt diagnose``: variance and bias of the estimators."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from metaopt.commands.data_folder import DataFolder
from metaopt.training import placement


@dataclass(frozen=True)
class Diagnose(DataFolder):
    """Measure variance and bias of the meta-gradient's estimators, for a recipe or a run."""

    target: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE|RUN")] = "digits_mlp"
    """A recipe, at the theta where it starts; or a run's directory, at the theta that it saved."""
    estimators: tuple[str, ...] = ("pes", "gpes", "nres", "full_es", "truncated_es")
    """Which; `metaopt list` shows them."""
    reuse: tuple[int, ...] = ()
    """K of gpes: multiples of the window; some that divide the horizon if not given."""
    budget: int | None = None
    """Unroll steps for each estimator, what takes a few seconds if not given; the reference has
    four times as many."""
    out: Path | None = None
    """Folder for diagnose.json and variance.png; runs/diagnose-NAME if not given."""
    quiet: bool = False
    """Print nothing but errors."""

    def __call__(self) -> int:
        """Does it, and returns the exit code."""
        placement.prepare_jax()
        from rich.console import Console

        from metaopt.diagnosis.report import report_diagnosis

        report_diagnosis(
            self.target,
            Console(quiet=self.quiet),
            estimators=self.estimators,
            reuses=self.reuse,
            budget=self.budget,
            out=self.out,
        )
        return 0
