"""How a run shows itself: a live line on a terminal or in a notebook, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from metaopt.training.loop import Progress

PLAIN_EVERY = 5.0
"""Seconds between two plain lines."""


@contextmanager
def show_progress(console: Console) -> Iterator[Callable[[Progress], None]]:
    """Gives the ``on_progress`` of the training loop that shows a run on ``console``."""
    if console.quiet:
        yield lambda progress: None
        return
    if console.is_jupyter:
        yield _notebook()
        return
    if not console.is_terminal:
        yield _plain(console)
        return
    columns = (
        TextColumn("outer step"),
        MofNCompleteColumn(),
        BarColumn(),
        TextColumn("meta-loss {task.fields[loss]:.4f}"),
        TextColumn("{task.fields[test]}", markup=False),
        TextColumn("{task.fields[rate]:,.0f} unroll steps/s"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console) as bar:
        line = bar.add_task("train", total=None, loss=float("nan"), test="", rate=0.0)

        def on_progress(progress: Progress) -> None:
            bar.update(
                line,
                total=progress.outer_steps,
                completed=progress.row["step"],
                loss=progress.row["loss"],
                test=progress.test,
                rate=progress.rate,
            )

        yield on_progress


def _line(progress: Progress) -> str:
    row = progress.row
    test = f"{progress.test}  " if progress.test else ""
    return (
        f"outer step {row['step']}/{progress.outer_steps}  meta-loss {row['loss']:.4f}  {test}"
        f"{progress.rate:,.0f} unroll steps/s  {row['seconds']:.0f} s"
        + "  (no usable estimate: theta stays)"
        * bool(row.get("skipped"))
    )


def _notebook() -> Callable[[Progress], None]:
    """One line below the cell, written anew."""
    from IPython.display import DisplayHandle

    handle = DisplayHandle()
    shown = lambda text: {"text/plain": text}
    handle.display(shown("outer step 0"), raw=True)
    return lambda progress: handle.update(shown(_line(progress)), raw=True)


def _plain(console: Console) -> Callable[[Progress], None]:
    shown = -PLAIN_EVERY

    def on_progress(progress: Progress) -> None:
        nonlocal shown
        now, row = time.monotonic(), progress.row
        if now - shown >= PLAIN_EVERY or row["step"] == progress.outer_steps:
            shown = now
            console.print(_line(progress), highlight=False, soft_wrap=True, markup=False)

    return on_progress
