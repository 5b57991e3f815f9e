"""A diagnosis for people and programs: table, ``diagnose.json`` and ``variance.png``."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from metaopt.core.errors import UserError
from metaopt.core.files import json_text, make_folder, write_atomically
from metaopt.diagnosis import plots
from metaopt.diagnosis.candidates import Subject, candidates, subject_of, window_of
from metaopt.diagnosis.diagnose import REFERENCE, EstimatorRow, affordable_budget, diagnose
from metaopt.diagnosis.moments import Moments, squared_distance
from metaopt.parallel.sharding import particle_mesh, replicate
from metaopt.plotting.style import to_png
from metaopt.plotting.terminal import print_table

KEY_OF_DIAGNOSIS = 0x64696167
"""A diagnosis draws from a stream of its own: no particle of the run's is among the measured."""


def report_diagnosis(
    target: str,
    console: Console,
    *,
    estimators: Sequence[str],
    reuses: Sequence[int] = (),
    budget: int | None = None,
    out: Path | None = None,
) -> list[EstimatorRow]:
    """Diagnoses a recipe or a run on all devices, prints the table and writes the files.

    Args:
      target: as in `metaopt.diagnosis.candidates.subject_of`.
      console: where progress and table go.
      estimators, reuses: as in `metaopt.diagnosis.candidates.candidates`.
      budget: unroll steps for each estimator, what takes a few seconds here if not given; the
        reference has 4 times as many.
      out: the folder for the files; ``runs/diagnose-NAME`` if not given.

    Raises:
      UserError: naming the value at fault; nothing has run then.
    """
    if budget is not None and budget < 1:
        raise UserError(f"budget must be at least 1 unroll step, got {budget}.")
    if not estimators:
        raise UserError("name at least one estimator.")
    subject, mesh = subject_of(target), particle_mesh(jax.device_count())
    chosen = candidates(subject.config, subject.problem, estimators, reuses)
    (full,) = candidates(subject.config, subject.problem, ["full_es"])
    out = out or Path("runs") / f"diagnose-{subject.name}"
    make_folder(out)
    key = jax.random.fold_in(jax.random.key(subject.config.seed), KEY_OF_DIAGNOSIS)
    theta, data, key = replicate((subject.theta, subject.problem.data(), key), mesh)
    labels = ["reference", *(candidate.label for candidate in chosen)]
    say = lambda text: console.print(text, highlight=False, soft_wrap=True, markup=False)
    say(f"Diagnosing {subject.description}: {len(chosen)} estimators and a reference.")
    how = ""
    if budget is None:
        budget = affordable_budget(full, theta, data, key=jax.random.fold_in(key, 0), mesh=mesh)
        how = f" (--budget {budget} repeats it)"
    say(f"{budget:,} unroll steps each{how}, {REFERENCE * budget:,} for the reference.")
    with progress(console, labels) as on_progress:
        rows, reference = diagnose(
            theta,
            data,
            chosen,
            full,
            budget=budget,
            key=key,
            mesh=mesh,
            on_progress=on_progress,
        )
    size = subject.config.estimator
    title = f"{subject.description}: T = {size.horizon}, W = {window_of(size)}"
    write_atomically(out / "diagnose.json", to_json(subject, budget, rows, reference))
    write_atomically(out / "variance.png", to_png(plots.variance(rows, title)))
    print_table(console, _table(rows, reference, budget))
    for name in ("diagnose.json", "variance.png"):
        say(f"Written: {out / name}")
    return rows


def to_json(subject: Subject, budget: int, rows: Sequence[EstimatorRow], reference: Moments) -> str:
    """The diagnosis as JSON: ``of``, ``reference`` and ``rows``; null for what is not finite."""
    chosen = subject.config.estimator
    said: dict[str, Any] = reference._asdict()
    del said["mean"], said["populations"]
    content = {
        "of": {
            "subject": subject.description,
            "parameters": len(reference.mean),
            "horizon": chosen.horizon,
            "window": window_of(chosen),
            "sigma": getattr(chosen, "sigma", None),
            "seed": subject.config.seed,
            "budget": budget,
        },
        "reference": {"estimator": "full_es", "norm": _norm(reference)} | said,
        "rows": rows,
    }
    return json_text(content, indent=2)


def _norm(reference: Moments) -> float:
    """The gradient's norm, what chance adds taken off."""
    nothing = np.zeros_like(reference.populations)
    square, _ = squared_distance(reference.populations, nothing)
    return math.sqrt(np.maximum(square, 0.0))


def _table(rows: Sequence[EstimatorRow], reference: Moments, budget: int) -> Table:
    norm = _norm(reference)
    caption = (
        f"tr Cov of one particle in its stationary phases, ± standard error; times its window's "
        f"unroll steps (equal work), and times W (equal sequential depth). Bias: distance of the "
        f"mean from the reference, full_es by {reference.particles:,} pairs of its own (norm "
        f"{norm:.2g}); pes and gpes can differ from it unbiased, as they smooth by several noises "
        f"an episode. “< x”: not resolved, a bias below x would not show."
    )
    coarsest = max(row.resolution for row in rows)
    if norm < coarsest < math.inf:
        needed = f" --budget {budget * (coarsest / norm) ** 2:.0e}" if norm else " far more"
        caption += f" One of the gradient's size would in every row with{needed}."
    if lost := sum(row.nonfinite for row in rows):
        caption += f" {lost:,} particles were not finite and left out."
    # Narrow enough for 80 columns, where rich would cut the numbers short.
    table = Table("estimator", caption=caption, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("K", "W", "particles", "tr Cov", "× steps", "× W", "bias"):
        table.add_column(column, justify="right")
    for row in rows:
        unresolved = f"< {row.resolution:.2g}" if math.isfinite(row.resolution) else "?"
        bias = f"[bold]{row.bias:.2g}[/bold]" if row.biased else unresolved
        table.add_row(
            Text(row.estimator),
            "" if row.reuse is None else str(row.reuse),
            str(row.window),
            f"{row.particles:,}",
            f"{row.variance:.2g} ± {row.variance_error:.0e}",
            f"{row.work:.2g}",
            f"{row.depth:.2g}",
            bias,
        )
    return table


@contextmanager
def progress(console: Console, labels: Sequence[str]) -> Iterator[Callable[[str, float], None]]:
    """A bar over all estimators on a terminal, a line for each estimator elsewhere."""
    began = time.monotonic()
    if not console.is_terminal:

        def plain(label: str, done: float) -> None:
            if done >= 1:
                console.print(
                    f"{label}  {time.monotonic() - began:.0f} s", highlight=False, markup=False
                )

        yield plain
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
        line = bar.add_task(labels[0], total=len(labels))
        yield lambda label, done: bar.update(
            line, description=label, completed=labels.index(label) + done
        )
