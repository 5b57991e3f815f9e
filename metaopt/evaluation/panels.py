"""What the pictures of an evaluation share: colours, panels, axes of losses, legends."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from metaopt.evaluation.result import Result
from metaopt.plotting.style import (
    BASELINE,
    COLORS,
    DASHES,
    LEARNED,
    literal,
    log_losses,
    log_ticks,
    to_svg,
)

OTHERS = ("#448361", "#9f6b53", "#8a8782", "#c14c8a", "#5b7f95")
COLUMNS = 2


class Picture(Figure):
    """A figure that a notebook shows without matplotlib's magic."""

    def _repr_svg_(self) -> str:
        return to_svg(self)


def colors(found: Result) -> dict[str, tuple[str, str]]:
    """Colour and line of every optimizer, the same in all pictures: learned ones are solid."""
    learned = (LEARNED, *COLORS[1:2], "#2e5e4e", "#7a4fbf")
    baselines = (BASELINE, *OTHERS)
    of = {n: (learned[i % len(learned)], "-") for i, n in enumerate(found.optimizers)}
    for i, name in enumerate(found.baselines):
        of[name] = (baselines[i % len(baselines)], "-" if i == 0 else DASHES[i % len(DASHES)])
    return of


def loss_axis(axes, losses: Sequence[np.ndarray]) -> bool | None:
    """Makes an axis of losses logarithmic if all are above 0; it stays linear if not.

    Args:
      axes: matplotlib's.
      losses: all that are to be drawn on it.

    Returns:
      Whether it is logarithmic; ``None`` if no loss is finite: it says so, and is complete.
    """
    values = np.concatenate([np.ravel(one) for one in losses])
    values = values[np.isfinite(values)]
    if not values.size:
        middle = {"ha": "center", "va": "center", "transform": axes.transAxes}
        axes.text(0.5, 0.5, "no finite loss", **middle)
        axes.set(xticks=[], yticks=[])
        return None
    positive = bool((values > 0).all())
    if positive:
        log_losses(axes)
    return positive


def log_seconds(axes) -> None:
    """Makes the axis of what is drawn logarithmic, with few labels, but some if it is short."""
    axes.set_xscale("log")
    log_ticks(axes.xaxis)


def band(losses: np.ndarray, log: bool | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean of ``[seeds, ...]`` and the ends of its 95% band, which does not fall off a log axis."""
    mean = losses.mean(axis=0)
    half = 1.96 * losses.std(axis=0, ddof=1) / np.sqrt(len(losses))
    low = np.maximum(mean - half, 0.05 * mean) if log else mean - half
    return mean, low, mean + half


def panels_of(tasks: tuple[str, ...]):
    """A figure with a panel a task."""
    columns = min(COLUMNS, len(tasks))
    rows = -(-len(tasks) // columns)
    figure = Picture(figsize=(7.2, 0.6 + (3.4 if columns == 1 else 2.8) * rows))
    figure.set_layout_engine("constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for unused in panels[len(tasks) :]:
        unused.remove()
    return figure, panels[: len(tasks)]


def finish(figure: Figure, panels, title: str, found: Result) -> None:
    """Title and legend: learned optimizers first."""
    named: dict[str, Any] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    names = map(literal, (*found.optimizers, *found.baselines))
    order = [name for name in names if name in named]
    lines, columns = [named[name] for name in order], min(4, len(order) or 1)
    figure.legend(
        lines, order, loc="outside upper left", ncols=columns, alignment="left",
        title=literal(title), title_fontproperties={"size": 10, "weight": "bold"},
    )  # fmt: skip
