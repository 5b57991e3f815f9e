"""What a run came to: its evaluation, ``curves.png`` and a self-contained ``report.html``."""

import dataclasses
from pathlib import Path
from typing import Any

from rich.console import Console

from metaopt.config.schema import trained_tasks
from metaopt.core.files import json_text, sha256, write_atomically
from metaopt.core.own_numbers import own_numbers
from metaopt.evaluation import plots
from metaopt.evaluation.evaluate import measure
from metaopt.evaluation.inputs import label, not_a_baseline, trained_on
from metaopt.evaluation.report import Evaluation, content
from metaopt.evaluation.run_page import run_page, usage
from metaopt.evaluation.show import show, show_progress
from metaopt.plotting.style import to_png
from metaopt.pretrained.artefact import THETA
from metaopt.training.experiment import NOTHING
from metaopt.training.outcome import outcome
from metaopt.training.run import Run
from metaopt.training.run_directory import RunDirectory, disk_faults

BASELINES = ("adam", "adam_cosine")
"""What a run's optimizer has to beat; `metaopt evaluate` takes any."""


def report_run(run: Path | Run, console: Console) -> Evaluation | None:
    """Evaluates a run's optimizer on all its tasks, prints the tables and writes the report.

    What was run already, of the same theta and the same baselines, comes from a cache.

    Args:
      run: its directory; or a `Run`, which knows objects that are in no catalogue.
      console: where the tables go.

    Returns:
      The evaluation; ``None`` where there is nothing to evaluate: the problem is no inner training,
      or the configuration asks for no evaluation.

    Raises:
      UserError: if the directory holds no run or no trained optimizer.
    """
    run = run if isinstance(run, Run) else Run(run)
    directory, config = RunDirectory(run.path), run.config
    is_training = config.problem.name == "training" or run.own.task or run.own.optimizer
    say = lambda text: console.print(text, highlight=False, soft_wrap=True, markup=False)
    found = None
    if is_training and config.evaluation.seeds:
        say(f"Comparing with tuned {' and '.join(BASELINES)} on test data ...")
        found = _evaluate(run, console)
        stored: dict[str, Any] = {"of": _identity(run)} | content(found)
        write_atomically(directory.path / "evaluation.json", json_text(stored, indent=1))
        write_atomically(directory.path / "curves.png", to_png(plots.curves(found)))
        show(found, console)
    write_atomically(directory.path / "report.html", run_page(directory, config, found))
    if config.problem.name != "training" and (said := outcome(directory.path)):
        say(f"{said[0].upper()}{said[1:]}.")
    say(f"Report: {directory.path / 'report.html'}")
    if config.problem.name == "training":
        say(f"Trained optimizer: {directory.optimizer}; to use it in an optax loop:")
        say(f"  {usage(directory.path, config)}")
    return found


def report(run: Any, *, quiet: bool = False) -> Path:
    """Writes the ``report.html`` of a run; public as `metaopt.report`.

    An optimizer is evaluated for it, as after ``metaopt train``, on a task of your own too where
    the run is what `metaopt.train` returned; of a problem the report shows the test metric, the
    curves and, where it is small, theta.

    Args:
      run: a run's directory, or a `metaopt.Run`.
      quiet: print nothing.

    Returns:
      The page.

    Raises:
      UserError: if the directory holds no run, or one that has done no outer step.

    Examples:
      >>> report("nowhere")
      Traceback (most recent call last):
      ...
      metaopt.core.errors.UserError: nowhere holds no run: there is no config.json.
    """
    own = run.own if isinstance(run, Run) else NOTHING
    with disk_faults(RunDirectory(Path(run))), own_numbers(own.double):
        report_run(run if isinstance(run, Run) else Path(run), Console(quiet=quiet))
    return Path(run) / "report.html"


def _evaluate(run: Run, console: Console) -> Evaluation:
    config, own = run.config, run.own
    known = None if own.optimizer else trained_on(run.path)
    name = not_a_baseline(config.problem.name if own.optimizer else config.optimizer.name)
    return measure(
        {name: (run.optimizer, run.theta)},
        {} if known is None else {name: known},
        tasks={config.problem.name: own.task} if own.task else trained_tasks(config),
        baselines=BASELINES,
        num_steps=config.evaluation.num_steps or config.estimator.horizon,
        seeds=config.evaluation.seeds,
        cache=run.path / "evaluation_cache",
        on_progress=show_progress(console),
    )


def _identity(run: Run) -> dict[str, Any]:
    """Whose evaluation it is."""
    config, theta = run.config, RunDirectory(run.path).optimizer / THETA
    tasks = [config.problem.name] if run.own.task else map(label, trained_tasks(config))
    return {
        "theta": sha256(theta if theta.is_file() else run.path / THETA),
        "tasks": [*tasks],
        "horizon": config.estimator.horizon,
        "evaluation": dataclasses.asdict(config.evaluation),
    }
