"""What a run came to: its evaluation, ``curves.png`` and a self-contained ``report.html``."""

import dataclasses
import html
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from metaopt.config.recipes import summary
from metaopt.config.schema import Config, to_json, trained_tasks
from metaopt.core.files import json_text, sha256, write_atomically
from metaopt.evaluation import plots
from metaopt.evaluation.evaluate import measure
from metaopt.evaluation.inputs import label, not_a_baseline, trained_on
from metaopt.evaluation.report import Evaluation, body, content
from metaopt.evaluation.show import show, show_progress
from metaopt.plotting.html import PAGE
from metaopt.plotting.style import to_png, to_svg
from metaopt.pretrained import load as pretrained
from metaopt.training.plots import meta_training
from metaopt.training.run_directory import RunDirectory

BASELINES = ("adam", "adam_cosine")
"""What a run's optimizer has to beat; `metaopt evaluate` takes any."""


def report_run(path: Path, console: Console) -> Evaluation | None:
    """Evaluates a run's optimizer on all its tasks, prints the tables and writes the report.

    What was run already, of the same theta and the same baselines, comes from a cache.

    Args:
      path: the run's directory.
      console: where the tables go.

    Returns:
      The evaluation; ``None`` where there is nothing to evaluate: the problem is no inner training,
      or the configuration asks for no evaluation.

    Raises:
      UserError: if the directory holds no run or no trained optimizer.
    """
    directory = RunDirectory(Path(path))
    config = directory.read_config()
    say = lambda text: console.print(text, highlight=False, soft_wrap=True, markup=False)
    found = None
    if config.problem.name == "training" and config.evaluation.seeds:
        say(f"Comparing with tuned {' and '.join(BASELINES)} on test data ...")
        found = _evaluate(directory, config, console)
        stored: dict[str, Any] = {"of": _identity(directory, config)} | content(found)
        write_atomically(directory.path / "evaluation.json", json_text(stored, indent=1))
        write_atomically(directory.path / "curves.png", to_png(plots.curves(found)))
        show(found, console)
    write_atomically(directory.path / "report.html", _page(directory, config, found))
    say(f"Report: {directory.path / 'report.html'}")
    if config.problem.name == "training":
        say(f"Trained optimizer: {directory.optimizer}; to use it in an optax loop:")
        say(f"  {_usage(directory, config)}")
    return found


def _evaluate(directory: RunDirectory, config: Config, console: Console) -> Evaluation:
    name, known = not_a_baseline(config.optimizer.name), trained_on(directory.path)
    return measure(
        {name: pretrained.read(directory.path)},
        {} if known is None else {name: known},
        tasks=trained_tasks(config),
        baselines=BASELINES,
        num_steps=config.evaluation.num_steps or config.estimator.horizon,
        seeds=config.evaluation.seeds,
        cache=directory.path / "evaluation_cache",
        on_progress=show_progress(console),
    )


def _identity(directory: RunDirectory, config: Config) -> dict[str, Any]:
    """Whose evaluation it is."""
    return {
        "theta": sha256(directory.optimizer / "theta.safetensors"),
        "tasks": [label(task) for task in trained_tasks(config)],
        "horizon": config.estimator.horizon,
        "evaluation": dataclasses.asdict(config.evaluation),
    }


def _usage(directory: RunDirectory, config: Config) -> str:
    steps = config.estimator.horizon
    return f"tx = metaopt.load({str(directory.path)!r}, num_steps={steps})"


def _page(directory: RunDirectory, config: Config, found: Evaluation | None) -> str:
    is_training = config.problem.name == "training"
    rows = directory.read_metrics()
    last = rows[-1]
    facts = (
        f"{summary(config)}; {last['step']:,} outer steps, {last['unroll_steps']:,} unroll steps, "
        f"{last['seconds']:.0f} s."
    )
    parts = [f"<p class='lead'>{html.escape(facts)}</p>"]
    if found is not None:
        parts.append(body(found))
    parts += ["<h2>Meta-training</h2>", _meta_training(rows)]
    if is_training:
        parts.append(f"<h2>Use it</h2><pre>{html.escape(_usage(directory, config))}</pre>")
    shown = html.escape(to_json(config))
    parts.append(f"<details><summary>Configuration</summary><pre>{shown}</pre></details>")
    tasks = ", ".join(label(task) for task in trained_tasks(config))
    title = f"{config.optimizer.name} on {tasks}" if is_training else config.problem.name
    return PAGE.format(title=html.escape(title), body="\n".join(parts))


def _meta_training(rows: list[dict[str, Any]]) -> str:
    """The curve of the meta-loss, and how often it was not finite."""
    finite = [row for row in rows if row["loss"] is not None]
    lost = len(rows) - len(finite)
    said = ""
    if not finite:
        said = (
            f"The meta-loss was not finite in any of the {len(rows):,} outer steps, so that theta "
            "is still where it started and there is no curve. A smaller sigma, a smaller learning "
            "rate of the optimizer's start or a shorter horizon may help."
        )
    elif lost:
        said = f"The meta-loss was not finite in {lost:,} of {len(rows):,} outer steps."
    note = f"<p class='note'>{html.escape(said)}</p>" if said else ""
    if not finite:
        return note
    steps, losses = (np.array([row[name] for row in finite]) for name in ("step", "loss"))
    return f"<figure>{to_svg(meta_training(steps, losses))}</figure>{note}"
