"""Meta-training in one call, and a run as an object."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from rich.console import Console
from safetensors import SafetensorError
from safetensors.numpy import load

from metaopt.config.components import make
from metaopt.config.recipes import recipe, summary
from metaopt.config.schema import Config
from metaopt.core.errors import UserError
from metaopt.core.theta import unflatten_theta
from metaopt.core.types import Theta
from metaopt.parallel.processes import is_primary, max_over_processes
from metaopt.parallel.sharding import particle_mesh
from metaopt.pretrained import artefact
from metaopt.pretrained import load as pretrained
from metaopt.training import loop
from metaopt.training.metrics import read_metrics
from metaopt.training.placement import devices_for
from metaopt.training.progress import show_progress
from metaopt.training.run_directory import RunDirectory
from metaopt.training.signals import stop_on_signals


@dataclass(frozen=True)
class Run:
    """A run in its directory; a path to it wherever one is wanted.

    Attributes:
      path: the directory.

    Raises:
      UserError: where it holds no run.

    Example:
      >>> Run("nowhere")
      Traceback (most recent call last):
      ...
      metaopt.core.errors.UserError: nowhere holds no run: there is no config.json.
    """

    path: Path

    def __post_init__(self):
        object.__setattr__(self, "path", Path(self.path))
        RunDirectory(self.path).read_config()

    @property
    def config(self) -> Config:
        """What it runs."""
        return RunDirectory(self.path).read_config()

    @property
    def theta(self) -> Theta:
        """Theta as it was saved last, arrays on the default device."""
        return load_theta(self.path)

    @property
    def metrics(self) -> dict[str, np.ndarray]:
        """Columns ``[rows]``, see `metaopt.read_metrics`."""
        return read_metrics(self.path)

    @property
    def outer_steps(self) -> int:
        """Outer steps whose metrics are on disk."""
        return int(self.metrics["step"][-1]) if "step" in self.metrics else 0

    @property
    def finished(self) -> bool:
        """Whether all outer steps of the configuration are done."""
        return self.outer_steps >= self.config.outer_steps

    def load(self, num_steps: int | None = None) -> optax.GradientTransformationExtraArgs:
        """The trained optimizer as an optax transformation; see `metaopt.load`."""
        return pretrained.load(self.path, num_steps)

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        done = f"{self.outer_steps:,} of {self.config.outer_steps:,} outer steps"
        return f"<Run {self.path}: {summary(self.config)}; {done}>"


def train(
    what: str | Config = "digits_mlp",
    *,
    out: str | Path | None = None,
    devices: int | None = None,
    quiet: bool = False,
) -> Run:
    """Meta-trains a recipe or a configuration, or resumes its run; public as `metaopt.train`.

    Stopped at any moment and called again, it ends with the same bits as if it had never stopped.
    Ctrl-C, SIGTERM and a notebook's interrupt save before they end it. It may be called in a
    thread; signals are then left to the main one.

    Args:
      what: a recipe's name, as `metaopt list` shows them, or a `metaopt.Config`.
      out: the run's directory; ``runs/NAME`` for a recipe's name.
      devices: over how many of JAX's devices the particles are spread; if not given, over all that
        divide their number.
      quiet: print nothing.

    Returns:
      The run, finished.

    Raises:
      UserError: as `metaopt.training.loop.train`; or for a `Config` without ``out``.
      KeyboardInterrupt: where a signal asked for a stop; everything so far is saved then.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     run = train("tiny", out=f"{folder}/run", quiet=True)
      ...     run.outer_steps, run.finished, sorted(run.theta)
      (50, True, ['log_lr'])
    """
    config = recipe(what) if isinstance(what, str) else what
    if out is None and not isinstance(what, str):
        raise UserError("say where the run goes: metaopt.train(config, out='runs/mine').")
    path = Path("runs") / str(what) if out is None else Path(out)
    console = Console(quiet=quiet or not is_primary())
    if meta_train(config, path, devices=devices, console=console) is not None:
        raise KeyboardInterrupt
    return Run(path)


def meta_train(config: Config, out: Path, *, devices: int | None, console: Console) -> int | None:
    """Runs a configuration to its end, or until a signal, and says on ``console`` how it goes.

    Args:
      config, out, devices: as for `train`.
      console: where progress goes.

    Returns:
      The signal's number where one asked for a stop; ``None`` where the run is finished.
    """
    say = lambda text: console.print(text, highlight=False, soft_wrap=True, markup=False)
    experiment = loop.experiment_of(config, RunDirectory(out))  # finds every fault
    count = devices or devices_for(config, experiment)
    resuming = (out / "checkpoints").is_dir()
    say(
        f"{'Resuming' if resuming else 'Starting'} {out}: {summary(config)}, on {count} "
        f"{jax.devices()[0].platform} device{'s' * (count > 1)}; compiling takes a moment."
    )
    with stop_on_signals() as stop, show_progress(console) as on_progress:
        result = loop.train(
            config,
            out,
            experiment=experiment,
            mesh=particle_mesh(count),
            on_progress=on_progress,
            should_stop=stop,
            on_notice=say,
        )
        (signal,) = max_over_processes(stop.signal or 0)
    if result.finished:
        return None
    say(
        f"Stopped after outer step {int(result.state.step)} of {config.outer_steps}; saved in "
        f"{out}. The same command resumes there."
    )
    return signal


def load_theta(what: Any) -> Theta:
    """The theta of a run or of a trained optimizer, as a tree; public as `metaopt.load_theta`.

    Args:
      what: a run's directory, whatever its problem is; or what `metaopt.load` takes.

    Raises:
      UserError: if there is none, or it is damaged.

    Example:
      >>> sorted(load_theta("mlp-digits"))
      ['layer_0', 'layer_1', 'layer_2']
    """
    directory = RunDirectory(Path(what))
    problem = directory.read_config().problem if directory.config.is_file() else None
    if problem is None or problem.name == "training":
        return pretrained.read(what)[1]
    file = directory.path / artefact.THETA
    try:
        flat = load(file.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{directory.path} holds no theta: `metaopt train` saves one.") from error
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    fresh = jax.eval_shape(make("problem", problem).init_theta, jax.random.key(0))
    return unflatten_theta(flat, fresh)
