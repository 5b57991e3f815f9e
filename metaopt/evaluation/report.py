"""An evaluation for people and programs: tables, JSON and a self-contained page."""

import html
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from metaopt.core.files import json_text, write_atomically
from metaopt.evaluation import plots, tables, words
from metaopt.evaluation.result import Result
from metaopt.plotting.html import PAGE, html_table
from metaopt.plotting.style import to_svg


def page(found: Result) -> str:
    """The whole page."""
    title = f"{', '.join(found.optimizers)} against tuned baselines"
    return PAGE.format(title=html.escape(title), body=body(found))


def body(found: Result) -> str:
    """What is on it, below its title."""
    finite = any(words.is_finite(found, task) for task in found.tasks)
    parts = [f"<p class='lead'>{html.escape(words.facts(found))}</p>", *_verdicts(found)]
    parts += [_note(words.costs(found)), _note(found.shipped)]
    heads, rows = tables.aggregate_heads(found), tables.aggregate_rows(found)
    parts += [html_table(heads, rows, last_in_bold=False), _note(tables.caption(found))]
    if finite:
        parts += ["<h2>Curves</h2>", _draw(plots.curves(found))]
    parts += ["<h2>Every task</h2>", *(_task(found, task) for task in found.tasks)]
    if found.meaningful:
        parts += ["<h2>Speed-up</h2>", _draw(plots.speedups(found))]
        parts += ["<h2>Performance profile</h2>", _draw(plots.profile(found))]
    if finite:
        parts.append("<h2>Sensitivity</h2>")
        parts += [_draw(plots.horizons(found))] if len(found.horizons) > 1 else []
        parts.append(_draw(plots.rates(found)))
        parts += ["<h2>Wall-clock</h2>", _draw(plots.curves(found, against_seconds=True))]
    if found.grids:
        parts.append("<h2>Width, depth and horizon</h2>")
        parts += [_draw(plots.grid(one, found.reference)) for one in found.grids]
    terms = words.definitions(found).items()
    shown = (f"<dt><b>{html.escape(a)}</b></dt><dd>{html.escape(b)}</dd>" for a, b in terms)
    parts += ["<details><summary>What the columns mean</summary><dl class='note'>", *shown]
    parts.append("</dl></details>")
    return "\n".join(parts)


def _draw(figure: Figure) -> str:
    return f"<figure>{to_svg(figure)}</figure>"


def _note(text: str) -> str:
    return f"<p class='note'>{html.escape(text)}</p>" if text else ""


def _task(found: Result, task: str) -> str:
    """The two tables of a task, and what has to be known beside them."""
    rows = [row for row in found.rows if row.task == task]
    parts = []
    for title, cells in ((task, tables.page_cells), ("", tables.further_cells)):
        of = [cells(found, row) for row in rows]
        heads = (title, *list(of[0])[1:])
        parts.append(html_table(heads, [[*row.values()] for row in of], last_in_bold=False))
    said = (f"Initial loss: {rows[0].start}.", *words.notes(found, task))
    return "\n".join((*parts, _note(" ".join(said))))


def _verdicts(found: Result) -> list[str]:
    named = len(found.optimizers) > 1
    parts = []
    for name, lines in zip(found.optimizers, words.verdicts(found), strict=True):
        first, rest, details = map(html.escape, lines)
        who = f"{html.escape(name)}: " if named else ""
        parts.append(f"<p class='verdict'>{who}<b>{first}</b> {rest}</p>")
        parts.append(f"<p>{details}</p>")
    return parts


def content(found: Result) -> dict[str, Any]:
    """What `Evaluation.to_json` writes: facts, rows, aggregates, changes and mean curves."""
    return {
        "schema": 2,
        "optimizers": found.optimizers,
        "baselines": found.baselines,
        "reference": found.reference,
        "suite": found.suite,
        "tasks": found.tasks,
        "num_steps": found.num_steps,
        "measured_every": found.every,
        "seeds": found.seeds,
        "split": found.split,
        "rates": found.rates,
        "settings": found.settings,
        "machine": found.machine,
        "trained_ranges": found.ranges,
        "costs": found.costs,
        "shipped_curves": found.shipped,
        "rows": found.rows,
        "aggregates": found.aggregates(),
        "changes": found.changes(),
        "grids": found.grids,
        "mean_curves": {
            task: {name: found.losses(task, name).mean(axis=0) for name in of}
            for task, of in found.trials.items()
        },
    }


@dataclass(frozen=True, repr=False)
class Evaluation(Result):
    """What `metaopt.evaluate` found; shows itself in a notebook."""

    def table(self) -> Table:
        """Every optimizer on every task, for a terminal."""
        return tables.table(self)

    def summary(self) -> Table:
        """The aggregates over all tasks, for a terminal."""
        return tables.summary(self)

    def verdicts(self) -> list[str]:
        """A line for each learned optimizer: what it gains over the reference, or does not."""
        return words.verdict_lines(self)

    def plot_curves(self) -> Figure:
        """A matplotlib figure: loss against inner step with 95% bands, a panel a task."""
        return plots.curves(self)

    def to_html(self) -> str:
        """A self-contained page with all pictures."""
        return page(self)

    def to_json(self) -> str:
        """All numbers, of the curves the means; a number that is not finite is null."""
        return json_text(content(self), indent=1)

    def _repr_html_(self) -> str:
        return body(self)

    def __str__(self) -> str:
        """The tables and the verdicts, as a terminal of 120 columns shows them."""
        console = Console(file=io.StringIO(), width=120)
        for part in (self.table(), self.summary(), *self.verdicts()):
            console.print(part, highlight=False, markup=False)
        return cast(io.StringIO, console.file).getvalue()

    def __repr__(self) -> str:
        return (
            f"<Evaluation of {', '.join(self.optimizers)} against {', '.join(self.baselines)} on "
            f"{', '.join(self.tasks)}: {self.seeds} seeds of {self.num_steps} steps>"
        )


def write(found: Evaluation, out: Path) -> None:
    """``report.html``, ``evaluation.json`` and ``curves.npz``."""
    curves: dict[str, Any] = {
        f"{task}/{name}/{horizon}": losses
        for task, of in found.trials.items()
        for name, trial in of.items()
        for horizon, losses in trial.curves.items()
    }
    curves |= {
        f"{task}/{name}/{horizon}/accuracy": values
        for task, of in found.trials.items()
        for name, trial in of.items()
        for horizon, values in trial.accuracies.items()
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **curves)
    write_atomically(out / "curves.npz", buffer.getvalue())
    write_atomically(out / "evaluation.json", found.to_json())
    write_atomically(out / "report.html", found.to_html())
