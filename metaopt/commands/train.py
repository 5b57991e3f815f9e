"""``metaopt train``: meta-train, stop, resume, and compare with tuned Adam."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from metaopt.commands.data_folder import DataFolder
from metaopt.config.schema import Config
from metaopt.parallel.processes import is_primary, together
from metaopt.training import placement


@dataclass(frozen=True)
class Train(DataFolder):
    """Meta-train an optimizer, or resume a run; then compare it with tuned Adam.
    --task, --optimizer, --estimator and --problem stand for --task.name and so on."""

    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)
    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")] = "digits_mlp"
    """Where the configuration starts; `metaopt list` shows the recipes."""
    estimator: Annotated[str | None, tyro.conf.arg(name="estimator.name")] = None
    """The meta-gradient's estimator; its options follow. The recipe's own if not given."""
    out: Path | None = None
    """The run's directory; runs/RECIPE if not given. An existing run is resumed."""
    devices: int | None = None
    """Devices, of all processes, that share the particles; all that divide them if not given (on a
    CPU, its cores)."""
    quiet: bool = False
    """Print nothing but errors."""
    by_several_processes: ClassVar[bool] = True

    def __call__(self) -> int:
        """Does it, and returns the exit code."""
        from rich.console import Console

        from metaopt.evaluation.run_report import report_run
        from metaopt.training.lock import only_writer
        from metaopt.training.run import meta_train
        from metaopt.training.run_directory import RunDirectory, disk_faults

        out = self.out or Path("runs") / self.recipe
        with ExitStack() as until_reported:
            with together():
                placement.prepare_jax(self.devices)
                until_reported.enter_context(only_writer(out))
                console = Console(quiet=self.quiet or not is_primary())
                stopped = meta_train(self.config, out, devices=self.devices, console=console)
            if stopped is not None:
                return 128 + stopped
            if is_primary():
                with disk_faults(RunDirectory(out)):
                    report_run(out, Console(quiet=self.quiet))
        return 0
