"""An evaluation for people and programs: table, JSON and a self-contained page."""

import html
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.table import Table

from metaopt.core.files import json_text, write_atomically
from metaopt.evaluation import plots as pictures
from metaopt.evaluation.measures import Row
from metaopt.evaluation.result import Aggregate, Result
from metaopt.evaluation.trials import LONGER
from metaopt.plotting.html import PAGE, html_table
from metaopt.plotting.style import to_svg


def table(found: Result) -> Table:
    """Every optimizer on every task; as narrow as a terminal."""
    heads, sections = _rows(found, _cells)
    shown = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    shown.add_column("", no_wrap=True)
    for head in heads[1:]:
        shown.add_column(head, justify="right")
    for title, rows in sections:
        shown.add_section()
        shown.add_row(title, style="bold")
        for row in rows:
            shown.add_row(*row)
    return shown


def summary(found: Result) -> Table:
    """Every optimizer over all tasks, with 95% intervals."""
    shown = Table(
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        caption=_caption(found),
        caption_justify="left",
    )
    for i, head in enumerate(_aggregate_heads(found)):
        shown.add_column(head, justify="right" if i else "left", no_wrap=not i)
    for row in _aggregate_rows(found):
        shown.add_row(*row)
    return shown


def page(found: Result) -> str:
    """The whole page."""
    title = f"{', '.join(found.optimizers)} against tuned baselines"
    return PAGE.format(title=html.escape(title), body=body(found))


def body(found: Result) -> str:
    """What is on it, below its title."""
    facts = (
        f"{len(found.tasks)} task{'s' * (len(found.tasks) > 1)}, {found.seeds} seeds of "
        f"{found.num_steps} inner steps, {found.split} split, baselines over {len(found.rates)} "
        f"learning rates from {min(found.rates):g} to {max(found.rates):g}."
    )
    draw = lambda figure: f"<figure>{to_svg(figure)}</figure>"
    parts = [f"<p class='lead'>{html.escape(facts)}</p>", *map(_verdict, _learned(found))]
    parts += [
        html_table(_aggregate_heads(found), _aggregate_rows(found), last_in_bold=False),
        f"<p class='note'>{html.escape(_caption(found))}</p>",
        "<h2>Curves</h2>",
        draw(pictures.curves(found)),
        "<h2>Speed-up</h2>",
        draw(pictures.speedups(found)),
        "<h2>Performance profile</h2>",
        draw(pictures.profile(found)),
        "<h2>Sensitivity</h2>",
        draw(pictures.horizons(found)),
        draw(pictures.rates(found)),
        "<h2>Wall-clock</h2>",
        draw(pictures.curves(found, against_seconds=True)),
    ]
    if found.grids:
        parts.append("<h2>Width, depth and horizon</h2>")
        parts += [draw(pictures.grid(one, found.reference)) for one in found.grids]
    parts.append("<h2>Every task</h2>")
    columns, sections = _rows(found, _page_cells)
    for title, rows in sections:
        parts.append(html_table((title, *columns[1:]), rows, last_in_bold=False))
    parts.append(f"<p class='note'>{html.escape(RULES.format(**_names(found)))}</p>")
    return "\n".join(parts)


RULES = (
    "All optimizers train from the same fresh initialisations on the same batches; the {split} "
    "split and these initialisations occur nowhere in meta-training. The losses are means over "
    "seeds ± 95% (Student's t); a baseline's learning rate is the best by each number itself, in "
    "its favour; rate per seed: the mean loss where each seed (of a family: each member) has a "
    "rate of its own, which nobody knows beforehand. A loss that is not finite, or above the cap "
    "of its task (above the initial loss where it has none), counts as that, and no run is left "
    "out; a run has diverged where a loss is not finite or the training loss ends above its "
    "start. Score: the fraction by which the mean loss of a run is below its initial loss, over "
    "that of tuned {reference}. Speed-up: the steps after which {reference}, run for {longer} "
    "steps at the rate that gets there first, has had the loss with which a run ends, over its "
    "{steps} steps; ≥ where it never got there in some runs. All tasks: interquartile means of "
    "all runs, with 95% intervals of the bootstrap stratified by task. Time is of one run alone "
    "on the device of the evaluation, memory the optimizer's state."
)


def to_json(found: Result) -> str:
    """Facts, rows and aggregates; JSON has neither NaN nor infinity, so those are null."""
    content: dict[str, Any] = {
        "optimizers": found.optimizers,
        "baselines": found.baselines,
        "reference": found.reference,
        "tasks": found.tasks,
        "num_steps": found.num_steps,
        "measured_every": found.every,
        "seeds": found.seeds,
        "split": found.split,
        "rates": found.rates,
        "rows": found.rows,
        "aggregates": found.aggregates(),
        "grids": found.grids,
    }
    return json_text(content, indent=1)


Cells = dict[str, str]


def _rows(
    found: Result, cells: Callable[[Result, Row], Cells]
) -> tuple[list[str], list[tuple[str, list[list[str]]]]]:
    """Heads, and the rows of every task."""
    made = {
        task: [cells(found, row) for row in found.rows if row.task == task] for task in found.tasks
    }
    heads = list(next(iter(made.values()))[0])
    return heads, [(task, [list(row.values()) for row in rows]) for task, rows in made.items()]


def _cells(found: Result, row: Row) -> Cells:
    bound = "≥ " if row.bounded.any() else ""
    return {
        "": row.optimizer if row.rate is None else f"{row.optimizer} at {row.rate:g}",
        f"mean {found.split}": _short(row.mean[found.split]),
        "final": _short(row.final[found.split]),
        "train": f"{row.final['train'].mean:.3g}",
        "speed-up": "–"
        if row.optimizer == found.reference
        else f"{bound}{row.speedups.mean():.2f}",
        "div.": f"{row.diverged}/{len(row.scores)}",
        "µs/step": _number(1e6 * row.seconds_per_step),
        "state": _bytes(row.state_bytes),
    }


def _page_cells(found: Result, row: Row) -> Cells:
    """There is room for one more."""
    first, mean, *others = _cells(found, row).items()
    per_seed = "–" if row.per_seed is None else f"{row.per_seed:.3g}"
    return dict([first, mean, ("rate per seed", per_seed), *others])


def _aggregate_heads(found: Result) -> tuple[str, ...]:
    return "all tasks", "score", "speed-up", f"P(beats {found.reference})", "diverged"


def _aggregate_rows(found: Result) -> list[tuple[str, ...]]:
    def of(one: Aggregate) -> tuple[str, ...]:
        itself = one.optimizer == found.reference
        bound = "≥ " if one.bounded else ""
        return (
            one.optimizer,
            str(one.score),
            "–" if itself else f"{bound}{one.speedup}",
            "–" if itself else str(one.improvement),
            f"{one.diverged}/{one.runs}",
        )

    return [of(one) for one in found.aggregates()]


def _learned(found: Result) -> list[Aggregate]:
    return [one for one in found.aggregates() if one.optimizer in found.optimizers]


def _verdict(one: Aggregate) -> str:
    bound = "at least " if one.bounded else ""
    return (
        f"<p class='verdict'><b>{bound}{one.speedup.value:.2f}×</b> speed-up of "
        f"{html.escape(one.optimizer)}, 95% from {one.speedup.low:.2f} to "
        f"{one.speedup.high:.2f}</p>"
    )


def _caption(found: Result) -> str:
    return (
        f"Speed-up over {found.reference} at its best of {len(found.rates)} rates; score: progress "
        f"over its; interquartile means [95%]. ≥: a lower bound, {found.reference} never got there."
    )


def _names(found: Result) -> dict[str, Any]:
    return {
        "split": found.split,
        "reference": found.reference,
        "longer": LONGER * found.num_steps,
        "steps": found.num_steps,
    }


def _short(interval) -> str:
    return f"{interval.mean:.3g}\N{NO-BREAK SPACE}±{interval.half_width:.1g}"


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def _bytes(count: int) -> str:
    if count < 1000:
        return f"{count}B"
    return f"{count / 1000:.1f}kB" if count < 1e6 else f"{count / 1e6:.1f}MB"


@dataclass(frozen=True, repr=False)
class Evaluation(Result):
    """What `metaopt.evaluate` found; shows itself in a notebook."""

    def table(self) -> Table:
        """Every optimizer on every task, for a terminal."""
        return table(self)

    def summary(self) -> Table:
        """The aggregates over all tasks, for a terminal."""
        return summary(self)

    def plot_curves(self) -> Figure:
        """A matplotlib figure: loss against inner step with 95% bands, a panel a task."""
        return pictures.curves(self)

    def to_html(self) -> str:
        """A self-contained page with all pictures."""
        return page(self)

    def to_json(self) -> str:
        """All numbers but the curves; a number that is not finite is null."""
        return to_json(self)

    def _repr_html_(self) -> str:
        return body(self)

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
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **curves)
    write_atomically(out / "curves.npz", buffer.getvalue())
    write_atomically(out / "evaluation.json", found.to_json())
    write_atomically(out / "report.html", found.to_html())
