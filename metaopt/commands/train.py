"""``metaopt train``: meta-train, stop, go on, and compare with tuned Adam."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from metaopt.config.schema import Config
from metaopt.parallel.processes import is_first, most, together
from metaopt.training import placement


@dataclass(frozen=True)
class Train:
    """Meta-train an optimizer, or go on with a run; then compare it with tuned Adam.
    --task, --optimizer, --estimator and --problem stand for --task.name and so on."""

    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)
    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")] = "digits_mlp"
    """Where the configuration starts; `metaopt list` shows the recipes."""
    out: Path | None = None
    """The run's directory; runs/RECIPE if not given. An existing run is gone on with."""
    devices: int | None = None
    """Devices, of all processes, that share the particles; all that divide them if not given (on a
    CPU, its cores)."""
    quiet: bool = False
    """Print nothing but errors."""
    by_several_processes: ClassVar[bool] = True

    def __call__(self) -> int:
        """Does it, and returns the exit code."""
        with together():
            placement.prepare_jax(self.devices)
            code = _meta_train(self)
        return code if code or not is_first() else _report(self)


def _meta_train(command: Train) -> int:
    import jax
    from rich.console import Console

    from metaopt.config.recipes import summary
    from metaopt.parallel.sharding import particle_mesh
    from metaopt.training.loop import experiment_of, train
    from metaopt.training.progress import show_progress
    from metaopt.training.run_directory import RunDirectory
    from metaopt.training.signals import stop_on_signals

    console = Console(quiet=command.quiet or not is_first())
    config, out = command.config, _out(command)
    experiment_of(config, RunDirectory(out))  # finds every fault before anything is said
    count = command.devices or placement.devices_for(config)
    going_on = (out / "checkpoints").is_dir()
    console.print(
        f"{'Going on with' if going_on else 'Starting'} {out}: {summary(config)}, on {count} "
        f"{jax.devices()[0].platform} device{'s' * (count > 1)}; compiling takes a moment.",
        highlight=False,
        soft_wrap=True,
    )
    with stop_on_signals() as stop:
        with show_progress(console) as on_progress:
            result = train(
                config,
                out,
                mesh=particle_mesh(count),
                on_progress=on_progress,
                should_stop=stop,
                on_notice=lambda text: console.print(text, highlight=False, soft_wrap=True),
            )
        if not result.finished:
            console.print(
                f"Stopped after outer step {int(result.state.step)} of {config.outer_steps}; "
                f"saved in {out}. The same command goes on from there.",
                highlight=False,
                soft_wrap=True,
            )
            return 128 + most(stop.signal or 0)[0]
    return 0


def _out(command: Train) -> Path:
    return command.out or Path("runs") / command.recipe


def _report(command: Train) -> int:
    from rich.console import Console

    from metaopt.evaluation.run_report import report_run

    report_run(_out(command), Console(quiet=command.quiet))
    return 0
