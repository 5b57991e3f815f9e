"""What a run came to: evaluation, table, ``curves.png`` and a self-contained ``report.html``."""

import dataclasses
import html
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from metaopt.config.components import make
from metaopt.config.recipes import summary
from metaopt.config.schema import Config, to_json
from metaopt.core.files import json_text, sha256, write_atomically
from metaopt.evaluation import run_plots
from metaopt.evaluation.comparison import Comparison, compare, interval
from metaopt.evaluation.trials import KEY_OF_EVALUATION
from metaopt.plotting.html import PAGE, html_table
from metaopt.plotting.style import to_png, to_svg
from metaopt.pretrained import load as pretrained
from metaopt.training.plots import meta_training
from metaopt.training.run_directory import RunDirectory


def report_run(path: Path, console: Console) -> Comparison | None:
    """Evaluates a run's optimizer, prints the table and writes the report.

    Args:
      path: the run's directory.
      console: where the table goes.

    Returns:
      The comparison; ``None`` where there is nothing to compare: the problem is no inner training,
      or the configuration asks for no evaluation.

    Raises:
      UserError: where the directory holds no run or no trained optimizer.
    """
    directory = RunDirectory(Path(path))
    config = directory.read_config()
    comparison = None
    if config.problem.name == "training" and config.evaluation.seeds:
        comparison = _stored(directory, config)
        if comparison is None:
            console.print("Comparing with tuned Adam on test data ...")
            comparison = _evaluate(directory, config)
            _store(directory, config, comparison)
        console.print(_table(config, comparison))
        curves = to_png(run_plots.curves(comparison, config.optimizer.name))
        write_atomically(directory.path / "curves.png", curves)
    write_atomically(directory.path / "report.html", _page(directory, config, comparison))
    say = lambda text: console.print(text, highlight=False, soft_wrap=True)
    say(f"Report: {directory.path / 'report.html'}")
    if config.problem.name == "training":
        say(f"Trained optimizer: {directory.optimizer}; to use it in an optax loop:")
        say(f"  {_usage(directory, config)}")
    return comparison


def _evaluate(directory: RunDirectory, config: Config) -> Comparison:
    task = make("task", config.task)
    optimizer, theta = pretrained.read(directory.path)
    return compare(
        task,
        optimizer,
        theta,
        task.data(),
        num_steps=config.evaluation.num_steps or config.estimator.horizon,
        seeds=config.evaluation.seeds,
        key=jax.random.key(KEY_OF_EVALUATION),
    )


def _identity(directory: RunDirectory, config: Config) -> dict:
    """What an evaluation depends on."""
    return {
        "theta": sha256(directory.optimizer / "theta.safetensors"),
        "task": dataclasses.asdict(config.task),
        "horizon": config.estimator.horizon,
        "evaluation": dataclasses.asdict(config.evaluation),
    }


def _store(directory: RunDirectory, config: Config, comparison: Comparison) -> None:
    final = {"learned": comparison.learned[:, -1], "adam": comparison.final}
    summary: dict[str, Any] = {
        name: {
            "mean_loss": interval(losses.mean(axis=1))._asdict(),
            "final_loss": interval(final[name])._asdict(),
        }
        for name, losses in (("learned", comparison.learned), ("adam", comparison.baseline))
    }
    changes = zip(("mean_loss", "final_loss"), comparison.changes, strict=True)
    summary["change"] = {loss: change._asdict() for loss, change in changes}
    summary["improvement_of_mean_loss"] = comparison.improvement
    # A run that diverged has null where its loss was lost.
    content = {"of": _identity(directory, config), "summary": summary, "numbers": comparison}
    write_atomically(directory.path / "evaluation.json", json_text(content))


def _stored(directory: RunDirectory, config: Config) -> Comparison | None:
    """The evaluation on disk, if it is of this very theta in this very way."""
    try:
        content = json.loads((directory.path / "evaluation.json").read_text())
        if content["of"] != json.loads(json.dumps(_identity(directory, config))):
            return None
        arrays = {name: np.array(content["numbers"][name], float) for name in Comparison._fields}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    arrays["sweep"] = np.nan_to_num(arrays["sweep"], nan=np.inf)
    rate, final_rate = float(arrays.pop("rate")), float(arrays.pop("final_rate"))
    return Comparison(rate=rate, final_rate=final_rate, **arrays)


def _rows(config: Config, comparison: Comparison) -> list[tuple[str, str, str]]:
    learned, adam = comparison.learned, comparison.baseline
    row = lambda name, losses, final: (
        name,
        str(interval(losses.mean(axis=1))),
        str(interval(final)),
    )
    percent = lambda change: f"{100 * change.mean:+.1f}% ± {100 * change.half_width:.1f}%"
    mean, final = map(percent, comparison.changes)
    return [
        row("Adam, tuned", adam, comparison.final),
        row(f"learned: {config.optimizer.name}", learned, learned[:, -1]),
        ("learned against Adam", mean, final),
    ]


def _headings(comparison: Comparison) -> tuple[str, str, str]:
    seeds, steps = comparison.learned.shape
    return f"test loss, {seeds} seeds ± 95%", f"mean of {steps} steps", "final"


def _table(config: Config, comparison: Comparison) -> Table:
    name, *columns = _headings(comparison)
    table = Table(name, caption=_caption(comparison))
    for column in columns:
        table.add_column(column, justify="right")
    *rows, last = _rows(config, comparison)
    for row in rows:
        table.add_row(*row)
    table.add_section()
    table.add_row(*last, style="bold")
    return table


def _caption(comparison: Comparison) -> str:
    rates = comparison.rates
    return (
        f"Adam's rate is the best of {len(rates)} from {rates[0]:g} to {rates[-1]:g} by the number "
        f"reported: {comparison.rate:g} for the mean, {comparison.final_rate:g} for the final loss."
    )


def _usage(directory: RunDirectory, config: Config) -> str:
    steps = config.estimator.horizon
    return f"tx = metaopt.load({str(directory.path)!r}, num_steps={steps})"


def _page(directory: RunDirectory, config: Config, comparison: Comparison | None) -> str:
    rows = [row for row in directory.read_metrics() if row["loss"] is not None]
    name, last = config.optimizer.name, rows[-1]
    facts = (
        f"{summary(config)}; {last['step']:,} outer steps, {last['unroll_steps']:,} unroll steps, "
        f"{last['seconds']:.0f} s."
    )
    training = meta_training(
        np.array([row["step"] for row in rows]), np.array([row["loss"] for row in rows])
    )
    parts = [f"<p class='lead'>{html.escape(facts)}</p>"]
    if comparison is not None:
        less = 100 * comparison.improvement
        verdict = f"{abs(less):.1f}% {'lower' if less >= 0 else 'higher'}"
        table = html_table(_headings(comparison), _rows(config, comparison))
        parts += [
            f"<p class='verdict'><b>{verdict}</b> mean test loss than tuned Adam</p>",
            f"<figure>{to_svg(run_plots.curves(comparison, name))}</figure>",
            f"{table}<p class='note'>{html.escape(_caption(comparison))} Both optimizers train "
            "from the same fresh initialisations on the same batches; the test split and these "
            "initialisations occur nowhere in meta-training.</p>",
            f"<figure>{to_svg(run_plots.sweep(comparison, name))}</figure>",
        ]
    parts.append(f"<figure>{to_svg(training)}</figure>")
    if config.problem.name == "training":
        parts.append(f"<h2>Use it</h2><pre>{html.escape(_usage(directory, config))}</pre>")
    parts.append(
        f"<details><summary>Configuration</summary><pre>{html.escape(to_json(config))}</pre></details>"
    )
    subject = config.task.name if config.problem.name == "training" else config.problem.name
    title = f"{name} on {subject}" if config.problem.name == "training" else subject
    return PAGE.format(title=html.escape(title), body="\n".join(parts))
