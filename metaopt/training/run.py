"""Meta-training in one call, and a run as an object."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from rich.console import Console

from metaopt.config.components import make
from metaopt.config.recipes import recipe, summary
from metaopt.config.registry import catalogue
from metaopt.config.schema import Component, Config
from metaopt.core.errors import UserError
from metaopt.core.files import sha256
from metaopt.core.own_numbers import are_double, own_numbers
from metaopt.core.theta import nested_theta, unflatten_theta
from metaopt.core.types import GradientEstimator, LearnedOptimizer, Task, Theta, UnrolledProblem
from metaopt.estimators.options import Options
from metaopt.parallel.processes import is_primary, max_over_processes, on_primary
from metaopt.parallel.sharding import particle_mesh
from metaopt.pretrained import load as pretrained
from metaopt.training import loop
from metaopt.training.experiment import NOTHING, Own, build
from metaopt.training.lock import only_writer
from metaopt.training.metrics import read_metrics
from metaopt.training.outcome import outcome
from metaopt.training.placement import devices_for
from metaopt.training.progress import show_progress
from metaopt.training.run_directory import RunDirectory
from metaopt.training.save import flat_theta
from metaopt.training.search import search
from metaopt.training.signals import stop_on_signals, stop_when_unread


@dataclass(frozen=True)
class Run:
    """A run in its directory; a path to it wherever one is wanted.

    Attributes:
      path: the directory.
      own: the objects that `train` was given, where it was it that returned the run: they are in no
        file.

    Raises:
      UserError: where it holds no run.

    Examples:
      >>> Run("nowhere")
      Traceback (most recent call last):
      ...
      metaopt.core.errors.UserError: nowhere holds no run: there is no config.json.
    """

    path: Path
    own: Own = field(default=NOTHING, repr=False, compare=False)

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
        if self.own.problem is not None:
            start = self.own.problem.init_theta
        elif self.own.optimizer is not None:
            start = self.own.optimizer.init
        else:
            return load_theta(self.path)
        fresh = jax.eval_shape(start, jax.random.key(0))
        return unflatten_theta(flat_theta(self.path), fresh)

    @property
    def optimizer(self) -> LearnedOptimizer:
        """What it trains, without its theta.

        Raises:
          UserError: where the run's problem is no training.
        """
        return self.own.optimizer or pretrained.read(self.path)[0]

    @property
    def metrics(self) -> dict[str, np.ndarray]:
        """Columns ``[rows]``, see `metaopt.read_metrics`."""
        return read_metrics(self.path)

    @property
    def outer_steps(self) -> int:
        """Outer steps whose metrics are on disk."""
        try:
            return int(self.metrics["step"][-1])
        except UserError:
            return 0

    @property
    def finished(self) -> bool:
        """Whether all outer steps of the configuration are done."""
        newest = RunDirectory(self.path).newest_checkpoint()
        return newest is not None and newest >= self.config.outer_steps

    def load(self, num_steps: int | None = None) -> optax.GradientTransformationExtraArgs:
        """The trained optimizer as an optax transformation; see `metaopt.load`."""
        if self.own.optimizer is None:
            return pretrained.load(self.path, num_steps)
        return self.own.optimizer.optimizer(self.theta, num_steps)

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        done = f"{self.outer_steps:,} of {self.config.outer_steps:,} outer steps"
        said = (summary(self.config), done, outcome(self))
        return f"<Run {self.path}: {'; '.join(filter(None, said))}>"


def train(
    what: str | Config = "digits_mlp",
    *,
    out: str | Path | None = None,
    name: str | None = None,
    problem: UnrolledProblem | None = None,
    task: Task | None = None,
    optimizer: LearnedOptimizer | None = None,
    estimator: Options | GradientEstimator | None = None,
    tx: optax.GradientTransformation | None = None,
    outer_steps: int | None = None,
    devices: int | None = None,
    quiet: bool = False,
) -> Run:
    """Meta-trains a recipe, a configuration or objects of your own, or resumes its run.

    Public as `metaopt.train`. Stopped at any moment and called again, it ends with the same bits as
    if it had never stopped. Ctrl-C, SIGTERM and a notebook's interrupt save before they end it. It
    may be called in a thread; signals are then left to the main one.

    Args:
      what: a recipe's name, as `metaopt list` shows them, or a `metaopt.Config`. It says everything
        that no other argument says.
      out: the run's directory; ``runs/NAME`` for a recipe's name.
      name: what to call what you hand over, in the run's files. The run is resumed only under the
        same name, with a theta, an outer optimizer and options of the same shapes.
      problem: what to unroll.
      task, optimizer: train this task with this optimizer, instead of ``what``'s.
      estimator: the options of an estimator, such as ``metaopt.estimators.NRES(particles=8)``; or
        an estimator that is made already, which runs on one device.
      tx: the outer optimizer, any optax transformation.
      outer_steps: updates of theta.
      devices: over how many of JAX's devices the particles are spread; if not given, over all that
        divide their number.
      quiet: print nothing.

    Returns:
      The run, finished.

    Raises:
      UserError: as `metaopt.training.loop.train`; for a `Config` or objects without ``out``, or
        objects without a ``name``; where another process writes the run.
      KeyboardInterrupt: where a signal asked for a stop; everything so far is saved then.

    Examples:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     run = train("tiny", out=f"{folder}/run", quiet=True)
      ...     run.outer_steps, run.finished, sorted(run.theta)
      (50, True, ['log_lr'])
    """
    config = recipe(what) if isinstance(what, str) else what
    if isinstance(estimator, Options):
        config = dataclasses.replace(config, estimator=estimator)
    if outer_steps is not None:
        config = dataclasses.replace(config, outer_steps=outer_steps)
    own = Own(problem, task, optimizer, estimator, tx)
    if out is None and (own.given or not isinstance(what, str)):
        raise UserError("say where the run goes: metaopt.train(..., out='runs/mine').")
    if own.given:
        config = named(config, own, name)
    path = Path("runs") / str(what) if out is None else Path(out)
    console = Console(quiet=quiet or not is_primary())
    with only_writer(path), own_numbers(own.double):
        if meta_train(config, path, own=own, devices=devices, console=console) is not None:
            raise KeyboardInterrupt
    return Run(path, own)


def named(config: Config, own: Own, name: str | None) -> Config:
    """The configuration of objects: their name, and a digest that tells others of that name.

    Raises:
      UserError: for no name.
    """
    if name is None:
        raise UserError(
            "give what is yours a name, as in metaopt.train(..., name='mine', out=...)."
        )
    if not name.strip():
        raise UserError(f"a name has at least one letter, got {name!r}.")
    if name == "training":
        raise UserError("'training' is what inner training is called: give yours another name.")
    is_problem = any(piece is not None for piece in (own.problem, own.task, own.optimizer))
    called = dataclasses.replace(config, problem=Component(name)) if is_problem else config
    made = build(called, own)
    theta = jax.eval_shape(made.problem.init_theta, jax.random.key(0))
    shapes = jax.tree.flatten_with_path((theta, jax.eval_shape(made.tx.init, theta)))[0]
    text = ", ".join(f"{jax.tree_util.keystr(k)} {v.dtype}{v.shape}" for k, v in shapes)
    digest = sha256((text + " in float64" * are_double()).encode())[:12]
    return dataclasses.replace(config, problem=Component(name, (f"digest={digest}",)))


def meta_train(
    config: Config, out: Path, *, devices: int | None, console: Console, own: Own = NOTHING
) -> int | None:
    """Runs a configuration to its end, or until a signal, and says on ``console`` how it goes.

    Args:
      config, out, devices: as for `train`.
      console: where progress goes.
      own: pieces that are in no catalogue.

    Returns:
      The signal's number where one asked for a stop; ``None`` where the run is finished.
    """
    say = lambda text: console.print(text, highlight=False, soft_wrap=True, markup=False)
    experiment = loop.experiment_of(config, RunDirectory(out), own)  # finds every fault
    made = isinstance(own.estimator, GradientEstimator)
    is_search = config.outer.search is not None
    if is_search and devices not in (None, 1):
        raise UserError(f"a search runs on one device, got devices={devices}.")
    count = devices or (1 if made or is_search else devices_for(config, experiment))
    on_primary(lambda: RunDirectory(out).check(config))
    newest = on_primary(RunDirectory(out).newest_checkpoint)
    if newest is not None and newest >= config.outer_steps:
        asked = "its" if newest == config.outer_steps else f"{newest:,} outer steps, more than the"
        say(f"{out} has done {asked} {config.outer_steps:,} outer steps.")
    else:
        say(
            f"{'Starting' if newest is None else 'Resuming'} {out}: {summary(config)}, on {count} "
            f"{jax.devices()[0].platform} device{'s' * (count > 1)}; compiling takes a moment."
        )
    with stop_on_signals() as stop, show_progress(console) as on_progress:
        stop_when_unread(console, stop)
        stop.on_signal = lambda: say("Stopping: the outer step is finished and saved first.")
        told: dict[str, Any] = {"on_progress": on_progress, "should_stop": stop, "on_notice": say}
        resumes = True
        if is_search:
            step, finished, resumes = search(config, out, experiment=experiment, **told)
        else:
            mesh = particle_mesh(count)
            result = loop.train(config, out, experiment=experiment, mesh=mesh, **told)
            step, finished = int(result.state.step), result.finished
            if result.validation is not None:
                say(_best_of(result.validation))
        (signal,) = max_over_processes(stop.signal or 0)
    if finished:
        return None
    then = (
        "The same command resumes there."
        if resumes
        else f"This search cannot be resumed: --start-from {out} begins another run at its theta."
    )
    say(f"Stopped after outer step {step} of {config.outer_steps}; saved in {out}. {then}")
    return signal


def _best_of(losses: np.ndarray) -> str:
    """A sentence on the thetas of a population."""
    least, most = np.nanmin(losses), np.nanmax(losses)
    return (
        f"Kept is the best of {len(losses)} thetas by validation, with a mean loss of {least:.4g}; "
        f"the worst has {most:.4g}."
    )


def load_theta(what: Any) -> Theta:
    """The theta of a run or of a trained optimizer, as a tree; public as `metaopt.load_theta`.

    Args:
      what: a run's directory, whatever its problem is; or what `metaopt.load` takes.

    Returns:
      The tree that training started from. Of a run of a problem that is in no catalogue: nested
      dicts by the names of its leaves, or an array where it was one.

    Raises:
      UserError: if there is none, or it is damaged.

    Examples:
      >>> sorted(load_theta("mlp-digits"))
      ['layer_0', 'layer_1', 'layer_2']
    """
    directory = RunDirectory(Path(what))
    problem = directory.read_config().problem if directory.read_problem() else None
    if problem is None or problem.name == "training":
        return pretrained.read(what)[1]
    flat = flat_theta(what)
    is_own = any(arg.startswith("digest=") for arg in problem.args)
    if is_own or problem.name not in catalogue("problem"):
        return nested_theta(flat)
    fresh = jax.eval_shape(make("problem", problem).init_theta, jax.random.key(0))
    return unflatten_theta(flat, fresh)
