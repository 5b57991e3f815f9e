"""An evaluation on a terminal: how far it is, and what it found."""

from collections.abc import Callable

from rich.console import Console

from metaopt.evaluation.report import Evaluation
from metaopt.plotting.terminal import print_table


def show_progress(console: Console) -> Callable[[str, int, int], None]:
    """The ``on_progress`` of `metaopt.evaluate` that prints a line for each trial."""

    def on_progress(what: str, done: int, total: int) -> None:
        text = f"{done + 1}/{total} {what}"
        console.print(text, highlight=False, soft_wrap=True, markup=False)

    return on_progress


def show(found: Evaluation, console: Console) -> None:
    """The table of every task, that of all of them, and a verdict for each learned optimizer."""
    print_table(console, found.table())
    print_table(console, found.summary())
    said = [found.shipped] if found.shipped else []
    for line in (*found.verdicts(), *said):
        console.print(line, highlight=False, markup=False)
