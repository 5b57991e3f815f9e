"""``metaopt diagnose``: variance and bias of the estimators."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from metaopt.commands.data_folder import DataFolder
from metaopt.core.errors import UserError
from metaopt.training import placement

DEFAULT = ("pes", "gpes", "nres", "full_es", "truncated_es")
"""Estimators that are measured where none is named."""


@dataclass(frozen=True)
class Diagnose(DataFolder):
    """Measure variance and bias of the meta-gradient's estimators, for a recipe or a run."""

    target: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE|RUN")] = "digits_mlp"
    """A recipe, at the theta where it starts; or a run's directory, at the theta that it saved."""
    estimators: tuple[str, ...] = ()
    """Which, as `metaopt list` shows them; pes, gpes, nres, full_es and truncated_es if not given,
    and with --noise the recipe's own."""
    reuse: tuple[int, ...] = ()
    """K of gpes: multiples of the window; some that divide the horizon if not given."""
    noise: tuple[str, ...] = ()
    """Compare kinds of noise instead (orthogonal, orthogonal_fixed, rademacher) with gaussian, by
    the variance of the mean estimate of all particles; writes noises.json."""
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

        from metaopt.diagnosis.noise_report import report_noises
        from metaopt.diagnosis.report import report_diagnosis

        console = Console(quiet=self.quiet)
        if self.noise:
            if self.reuse:
                raise UserError("--reuse and --noise are measured one at a time: leave one out.")
            report_noises(
                self.target,
                console,
                estimators=self.estimators,
                noises=self.noise,
                budget=self.budget,
                out=self.out,
            )
            return 0
        report_diagnosis(
            self.target,
            console,
            estimators=self.estimators or DEFAULT,
            reuses=self.reuse,
            budget=self.budget,
            out=self.out,
        )
        return 0
