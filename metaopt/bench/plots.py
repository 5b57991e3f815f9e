"""The picture of how an outer step scales."""

from typing import Any

import matplotlib
from matplotlib.figure import Figure

from metaopt.plotting.style import BASELINE, LEARNED, STYLE


def scaling(rows: list[dict[str, Any]], names: tuple[str, ...]) -> Figure:
    """Milliseconds and megabytes of an outer step against each of the dimensions named."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.3 * len(names), 4.4), layout="constrained")
        grid = figure.subplots(2, len(names), sharex="col", sharey="row", squeeze=False)
        for column, name in zip(grid.T, names, strict=True):
            points = [row for row in rows if row["axis"] == name]
            values = [row["value"] for row in points]
            for axes, what, color in zip(
                column, ("ms", "program_mb"), (LEARNED, BASELINE), strict=True
            ):
                axes.plot(values, [row[what] for row in points], "o-", color=color, ms=4)
                axes.set(xscale="log", yscale="log")
                axes.set_xticks(values, [f"{value:,}" for value in values])
                axes.minorticks_off()
            column[-1].set_xlabel(name)
        grid[0, 0].set_ylabel("ms an outer step")
        grid[1, 0].set_ylabel("MB of the program")
    return figure
