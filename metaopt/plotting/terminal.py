"""Tables on a terminal."""

from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

WIDEST = 10_000


def print_table(console: Console, table: Table) -> None:
    """Prints a table with every number whole, in a terminal that is too narrow as well.

    Rich would cut off what does not fit. Here such a line is as long as it has to be, and the
    terminal wraps it.
    """
    for column in table.columns:
        if column.no_wrap:
            column.min_width = max(cell_len(str(cell)) for cell in (column.header, *column.cells))
    wide = console.options.update(max_width=WIDEST)
    width = console.width
    console.width = max(width, Measurement.get(console, wide, table).minimum)
    console.print(table)
    console.width = width
