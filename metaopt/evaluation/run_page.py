"""The page of a run: what it found, how it went, how to use it."""

import base64
import html
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from metaopt.config.recipes import summary
from metaopt.config.schema import Config, to_json, trained_tasks
from metaopt.evaluation.inputs import label
from metaopt.evaluation.report import Evaluation, body
from metaopt.plotting.html import PAGE
from metaopt.plotting.style import to_svg
from metaopt.training.outcome import Measurements, measured_in, theta_lines
from metaopt.training.plots import meta_training, parts, smoothed_over
from metaopt.training.run_directory import RunDirectory
from metaopt.training.save import flat_theta


def usage(path: Path, config: Config) -> str:
    """The line of Python that reads what a run learned.

    Examples:
      >>> usage(Path("runs/mine"), Config())
      "tx = metaopt.load('runs/mine', num_steps=200)"
    """
    if config.problem.name != "training":
        return f"theta = metaopt.load_theta({str(path)!r})"
    return f"tx = metaopt.load({str(path)!r}, num_steps={config.estimator.horizon})"


def run_page(directory: RunDirectory, config: Config, found: Evaluation | None) -> str:
    """The page of a run, self-contained.

    Args:
      directory: the run's.
      config: its configuration.
      found: its evaluation; ``None`` if there is none.
    """
    is_training = config.problem.name == "training"
    rows = directory.read_metrics()
    last = rows[-1]
    facts = (
        f"{summary(config)}; {last['step']:,} outer steps, {last['unroll_steps']:,} unroll steps, "
        f"{last['seconds']:.0f} s."
    )
    parts = [f"<p class='lead'>{html.escape(facts)}</p>"]
    parts += [*_tested(directory)] if found is None else [body(found)]
    parts += [*_episode(directory), *_theta(directory)]
    parts += ["<h2>Meta-training</h2>", *_meta_training(rows, config, measured_in(directory.path))]
    line = html.escape(usage(directory.path, config))
    parts.append(f"<h2>Use it</h2><pre>{line}</pre>")
    shown = html.escape(to_json(config))
    parts.append(f"<details><summary>Configuration</summary><pre>{shown}</pre></details>")
    trained = trained_tasks(config)
    tasks = ", ".join(map(label, trained)) if len(trained) < 4 else f"{len(trained)} tasks"
    title = f"{config.optimizer.name} on {tasks}" if is_training else config.problem.name
    return PAGE.format(title=html.escape(title), body="\n".join(parts))


def _tested(directory: RunDirectory) -> Iterator[str]:
    """The test metric in large type."""
    measured = measured_in(directory.path)
    if measured is not None:
        value = f"{measured.values[-1]:.4g} {measured.metric.unit}".strip()
        rest = measured.text().partition(" after ")[2]
        what = html.escape(f"test {measured.metric.name} after {rest}")
        yield f"<p class='verdict'><b>{html.escape(value)}</b> {what}</p>"


def _episode(directory: RunDirectory) -> Iterator[str]:
    """The strip of pictures, where one was drawn."""
    if directory.strip.is_file():
        picture = base64.b64encode(directory.strip.read_bytes()).decode()
        alt = "An episode, from its start on the left to its end on the right"
        yield f"<figure><img alt='{alt}' src='data:image/png;base64,{picture}'></figure>"


def _theta(directory: RunDirectory) -> Iterator[str]:
    """The numbers of theta, where they are few."""
    lines = theta_lines(flat_theta(directory.path))
    if lines:
        yield f"<h2>Theta</h2><pre>{html.escape(chr(10).join(lines))}</pre>"


def _meta_training(
    rows: list[dict[str, Any]], config: Config, measured: Measurements | None
) -> Iterator[str]:
    """The curve of the meta-loss, how it is to be read, and how often it was not finite."""
    finite = [row for row in rows if row["loss"] is not None]
    lost = len(rows) - len(finite)
    if not finite:
        yield _note(
            f"The meta-loss was not finite in any of the {len(rows):,} outer steps, so that theta "
            "is still where it started and there is no curve. A smaller sigma, a smaller learning "
            "rate of the optimizer's start or a shorter horizon may help."
        )
        return
    steps, losses = (np.array([row[name] for row in finite]) for name in ("step", "loss"))
    yield f"<figure>{to_svg(meta_training(steps, losses, measured))}</figure>"
    yield _note(how_to_read(config, len(finite)))
    if names := [name for name in finite[-1] if name.endswith("/loss")]:
        column = lambda name: np.array([row.get(name) for row in finite], np.float64)
        of = {name.removesuffix("/loss"): column(name) for name in names}
        yield f"<h3>Each task of the mixture</h3><figure>{to_svg(parts(steps, of))}</figure>"
    if lost:
        yield _note(f"The meta-loss was not finite in {lost:,} of {len(rows):,} outer steps.")


def how_to_read(config: Config, count: int) -> str:
    """What the curve of a meta-loss shows, and where a saw-tooth in it comes from.

    Args:
      config: the run.
      count: how many values there are.

    Examples:
      >>> from metaopt.estimators import BPTT
      >>> how_to_read(Config(estimator=BPTT()), 200)
      'Pale: every value; strong: the mean of 5 neighbours.'
    """
    width = smoothed_over(count)
    said = f"Pale: every value; strong: the mean of {width} neighbours." if width > 1 else ""
    options = config.estimator
    windows = 1 if config.outer.search else options.horizon // options.depth
    if windows > 1 and options.shortest_horizon is None:
        said += (
            f" An episode lasts T/W = {options.horizon}/{options.depth} = {windows} outer steps. A "
            "saw-tooth of that period is no instability: it shows particles that are at the same "
            "place of their episodes, whose beginnings have larger losses than their ends."
        )
    return said.strip()


def _note(text: str) -> str:
    return f"<p class='note'>{html.escape(text)}</p>" if text else ""
