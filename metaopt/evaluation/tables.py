"""The numbers of an evaluation as rows of text, and the tables that a terminal shows."""

from collections.abc import Callable

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from metaopt.core.interval import Interval
from metaopt.evaluation.measures import Row
from metaopt.evaluation.result import Aggregate, Result
from metaopt.evaluation.words import percent

Cells = dict[str, str]


def table(found: Result) -> Table:
    """Every optimizer on every task; as narrow as a terminal."""
    shown = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    shown.add_column("", no_wrap=True)
    for i, task in enumerate(found.tasks):
        rows = [cells(found, row) for row in found.rows if row.task == task]
        for head in list(rows[0])[1:] if i == 0 else ():
            shown.add_column(Text(head), justify="right", no_wrap=True)
        shown.add_section()
        shown.add_row(Text(task, "bold"))
        for row in rows:
            shown.add_row(*map(Text, row.values()))
    return shown


def summary(found: Result) -> Table:
    """Every optimizer over all tasks, with 95% intervals."""
    shown = Table(
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        caption=Text(caption(found)),
        caption_justify="left",
    )
    for i, head in enumerate(aggregate_heads(found)):
        shown.add_column(Text(head), justify="right" if i else "left", no_wrap=not i)
    for row in aggregate_rows(found):
        shown.add_row(*map(Text, row))
    return shown


def cells(found: Result, row: Row) -> Cells:
    """A row of a terminal's table, by column: of accuracy and speed-up there is room for one."""
    narrow = lambda interval: interval.text(between="±")
    last = {"speed-up": _speed_up(found, row)}
    if any(row.accuracy is not None for row in found.rows):
        last = {"accuracy": _accuracy(row, "±")}
    return {
        "": _at(row),
        f"mean {found.split}": narrow(row.mean[found.split]),
        "final": narrow(row.final[found.split]),
        f"mean − {found.reference}": _difference(found, row, lambda one: one.text(2, "±", "+")),
        **last,
        "µs/step": _number(1e6 * row.seconds_per_step),
    }


def page_cells(found: Result, row: Row) -> Cells:
    """A row of a page's table of losses."""
    itself = row.optimizer == found.reference
    change = found.change(row.optimizer, row.task)
    return {
        "": _at(row),
        f"mean {found.split}": str(row.mean[found.split]),
        "final": str(row.final[found.split]),
        **({"accuracy": _accuracy(row)} if row.accuracy is not None else {}),
        f"mean − {found.reference}": _difference(found, row, lambda one: one.text(sign="+")),
        "progress": "–" if itself else percent(change.progress, "+"),
        "speed-up": _speed_up(found, row),
    }


def further_cells(found: Result, row: Row) -> Cells:
    """A row of the table below it."""
    known = lambda value: "–" if value is None or not np.isfinite(value) else f"{value:.3g}"
    return {
        "": row.optimizer,
        "final rate": ", ".join(filter(None, (known(row.final_rate), row.final_tuned))),
        "rates at 90%": _rates(found, row),
        "rate per seed": known(row.per_seed),
        "train": known(row.final["train"].mean),
        "diverged": f"{row.diverged}/{found.seeds}",
        "µs/step": _number(1e6 * row.seconds_per_step),
        "state": _bytes(row.state_bytes),
    }


def aggregate_heads(found: Result) -> tuple[str, ...]:
    return (
        "all tasks",
        "score",
        "final score",
        "speed-up",
        f"P(beats {found.reference})",
        "diverged",
    )


def aggregate_rows(found: Result) -> list[tuple[str, ...]]:
    """Every optimizer over all tasks, under `aggregate_heads`."""
    text = lambda one: str(one) if np.isfinite(one.value) else "–"

    def of(one: Aggregate) -> tuple[str, ...]:
        itself = one.optimizer == found.reference
        return (
            one.optimizer,
            text(one.score),
            text(one.final_score),
            "–" if itself else text(one.speedup),
            "–" if itself else text(one.improvement),
            f"{one.diverged}/{one.runs}",
        )

    return [of(one) for one in found.aggregates()]


def caption(found: Result) -> str:
    """What the numbers over all tasks are, in short."""
    return (
        f"Score: progress from the initial to the mean (or final) loss over that of "
        f"{found.reference}, tuned. Speed-up: its steps over those here, to the same loss. "
        "Interquartile means [95%]."
    )


def _difference(found: Result, row: Row, text: Callable[[Interval], str]) -> str:
    if row.optimizer == found.reference:
        return "–"
    return text(found.change(row.optimizer, row.task).difference)


def _speed_up(found: Result, row: Row) -> str:
    if row.optimizer == found.reference or np.isnan(row.speedups).any():
        return "–"
    return f"{row.speedups.mean():.2f}"


def _accuracy(row: Row, between: str = " ± ") -> str:
    """In percent."""
    if row.accuracy is None:
        return "–"
    percent = Interval(100 * row.accuracy.mean, 100 * row.accuracy.half_width)
    return f"{percent.text(between=between)}%"


def _rates(found: Result, row: Row) -> str:
    """Between which rates around the best one a baseline makes 90% of its best progress."""
    if row.rate is None:
        return "–"
    made = row.start.mean - found.sweep(row.task, row.optimizer)
    best = int(np.argmax(np.where(np.isnan(made), -np.inf, made)))
    if not made[best] > 0:
        return "–"
    low = high = best
    while low > 0 and made[low - 1] >= 0.9 * made[best]:
        low -= 1
    while high < len(made) - 1 and made[high + 1] >= 0.9 * made[best]:
        high += 1
    ends = dict.fromkeys(f"{found.rates[i]:g}" for i in (low, high))
    return " to ".join(ends)


def _at(row: Row) -> str:
    """An optimizer, a baseline with what was chosen for it."""
    if row.rate is None:
        return row.optimizer
    return ", ".join(filter(None, (f"{row.optimizer} at {row.rate:g}", row.tuned)))


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def _bytes(count: int) -> str:
    if count < 1000:
        return f"{count}B"
    return f"{count / 1000:.1f}kB" if count < 1e6 else f"{count / 1e6:.1f}MB"
