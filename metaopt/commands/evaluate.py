"""``metaopt evaluate``: trained optimizers against tuned baselines."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from metaopt.commands.data_folder import DataFolder
from metaopt.training import placement


@dataclass(frozen=True)
class Evaluate(DataFolder):
    """Measure trained optimizers against tuned baselines, on several tasks, and write a report."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """Trained optimizers: what metaopt.load takes, such as the directory of a run."""
    tasks: tuple[str, ...] = ()
    """Names, also with arguments, as digits_mlp:hidden=[64]; if not given, all that the optimizers
    were trained on."""
    suite: str | None = None
    """Tasks of a suite instead, with its steps and seeds: metaopt list shows them."""
    baselines: tuple[str, ...] | None = None
    """What they have to beat, each with its learning rate swept; speed-ups are over the first. If
    not given, adam, adam_cosine, adamw, adamw_cosine, sgdm and lion, or those of the suites. Also
    NAME_cosine of a trained optimizer NAME that leaves the rate to its user."""
    num_steps: int | None = None
    """T, inner steps of a run; as in the first one's training if not given."""
    seeds: int | None = None
    """Runs of each optimizer and learning rate on each task, at least 2; 5 or the suite's if not
    given."""
    rates: tuple[float, ...] = ()
    """Learning rates of the sweeps; if not given, 15 from 1e-4 to 4.64, three a decade."""
    tune: tuple[str, ...] = ("rate",)
    """What the baselines' sweeps turn: rate, decay (weight decay), schedule; rates always."""
    split: str = "test"
    """Whose loss decides: train, valid or test."""
    grid: bool = False
    """Also measure on digits_mlp of several widths, depths and horizons."""
    out: Path = Path("runs/evaluate")
    """Where report, numbers, curves and the cache go, from which the same command resumes."""
    anew: bool = False
    """Use neither the cache nor the curves that are shipped."""
    quiet: bool = False
    """Print nothing but errors."""

    def __call__(self) -> int:
        """Does it, and returns the exit code."""
        placement.prepare_jax()
        from rich.console import Console

        from metaopt.evaluation.baselines import RATES
        from metaopt.evaluation.show import show, show_progress
        from metaopt.evaluation.suites import preview
        from metaopt.pretrained.shipped import directory_of

        for name in self.names:
            directory_of(name)  # says so before anything is announced
        console = Console(quiet=self.quiet)
        tune, rates = _words(self.tune), self.rates or RATES
        baselines = None if self.baselines is None else _words(self.baselines)
        if self.suite is not None and self.names and not self.tasks:
            said = preview(
                self.suite, len(self.names), baselines,
                num_steps=self.num_steps, seeds=self.seeds, rates=rates, tune=tune,
                grid=self.grid, anew=self.anew,
            )  # fmt: skip
            if (self.out / "cache").is_dir() and not self.anew:
                said += f" Less what {self.out / 'cache'} has already."
            console.print(said, highlight=False, soft_wrap=True, markup=False)
        try:
            found = self._evaluate(baselines, tune, rates, show_progress(console))
        except KeyboardInterrupt:
            said = f"Stopped: the same command goes on from what is in {self.out / 'cache'}."
            console.print(said, highlight=False, soft_wrap=True, markup=False)
            raise
        show(found, console)
        report = f"Report: {self.out / 'report.html'}"
        console.print(report, highlight=False, soft_wrap=True, markup=False)
        return 0

    def _evaluate(
        self,
        baselines: list[str] | None,
        tune: list[str],
        rates: tuple[float, ...],
        on_progress: Any,
    ) -> Any:
        from metaopt.evaluation.evaluate import evaluate

        return evaluate(
            self.names,
            tasks=self.tasks,
            suite=self.suite,
            baselines=baselines,
            num_steps=self.num_steps,
            seeds=self.seeds,
            rates=rates,
            tune=tune,
            split=self.split,
            grid=self.grid,
            out=self.out,
            anew=self.anew,
            on_progress=on_progress,
        )


def _words(given: tuple[str, ...]) -> list[str]:
    """Names given apart or with commas between them."""
    return [name for word in given for name in word.split(",") if name]
