"""How every picture here looks, and how it becomes a file. By matplotlib."""

import io
import re
from typing import Any

import matplotlib
import matplotlib.ticker
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure

LEARNED, BASELINE, INK, PALE = "#0b6e99", "#d9730d", "#37352f", "#e5e4e0"
COLORS = (LEARNED, "#6b3fa0", "#448361", "#9f6b53")
DASHES = ("--", ":", "-.")

STYLE: dict[Any, Any] = {
    "axes.edgecolor": PALE,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "font.size": 10,
    "grid.color": PALE,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text, to be read and searched, not the outlines of its letters
    "svg.hashsalt": "metaopt",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def literal(name: str) -> str:
    """A name in the form in which matplotlib draws it as it is.

    Otherwise it reads ``$`` as formulas, and leaves what begins with ``_`` out of legends.

    Examples:
      >>> literal("cost_in_$"), literal("_mine")
      ('cost_in_\\\\$', ' _mine')
    """
    shown = " ".join(name.splitlines()).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def single_figure(width: float, height: float):
    """A figure of one panel, in inches, and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def to_png(figure: Figure) -> bytes:
    """A PNG at 160 dots an inch."""
    return _render(figure, "png", dpi=160, metadata={"Software": None})


def to_svg(figure: Figure) -> str:
    """An ``<svg>`` element to be put into a page."""
    text = _render(figure, "svg", metadata={"Date": None}).decode()
    # A hundredth of a point is enough for a path; matplotlib writes millionths, and a line a point.
    shorter = lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]).replace("\n", "")
    return re.sub(r' d="[^"]*"', shorter, text[text.index("<svg") :])


class _LossLocator(matplotlib.ticker.LogLocator):
    """Ticks at 1, 2 and 5 of each decade where there are few decades, else at powers of 10."""

    def tick_values(self, vmin, vmax):
        few = vmin > 0 and vmax < 200 * vmin
        self.set_params(subs=(1.0, 2.0, 5.0) if few else (1.0,), numticks=7)
        return super().tick_values(vmin, vmax)


def log_losses(axes: Axes) -> None:
    """A logarithmic axis of losses with enough labels on it, however short."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(_LossLocator())
    axes.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    axes.yaxis.set_minor_locator(matplotlib.ticker.NullLocator())


def log_ticks(axis: Axis) -> None:
    """Labels of a logarithmic axis of what is drawn: few, but some if it is short."""
    low, high = axis.get_view_interval()
    subs = (
        (1.0,) if high > 30 * low else (1.0, 3.0) if high > 5 * low else (1.0, 1.5, 2.0, 3.0, 5.0)
    )
    axis.set_major_locator(matplotlib.ticker.LogLocator(subs=subs, numticks=6))
    if high <= 30 * low:
        axis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    axis.set_minor_formatter(matplotlib.ticker.NullFormatter())


def _render(figure: Figure, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format=kind, **options)
    return buffer.getvalue()
