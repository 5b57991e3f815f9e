"""The pictures of a report, by matplotlib."""

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
import matplotlib.ticker
import numpy as np
from matplotlib.figure import Figure

from metaopt.compare import AXES, Course
from metaopt.diagnosis.diagnose import Row
from metaopt.evaluation.comparison import Comparison

LEARNED, BASELINE, INK, PALE = "#0b6e99", "#d9730d", "#37352f", "#e5e4e0"
COLORS = (LEARNED, "#6b3fa0", "#448361", "#9f6b53")
STYLES = ("--", ":", "-.")

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


def curves(comparison: Comparison, name: str) -> Figure:
    """Test loss against inner step, mean and 95% band over seeds, learned against tuned Adam."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(7.2, 4.2)
        for losses, color, label in (
            (comparison.baseline, BASELINE, f"Adam, best rate {comparison.rate:g}"),
            (comparison.learned, LEARNED, f"learned: {name}"),
        ):
            steps = np.arange(1, losses.shape[1] + 1)
            mean = losses.mean(axis=0)
            band = 1.96 * losses.std(axis=0, ddof=1) / np.sqrt(len(losses))
            axes.fill_between(steps, mean - band, mean + band, color=color, alpha=0.2, lw=0)
            axes.plot(steps, mean, color=color, lw=1.8)
            axes.plot([], [], color=color, lw=1.8, label=f"{label} (mean {losses.mean():.3f})")
        axes.set(xlabel="inner step", ylabel="test loss", xlim=(1, steps[-1]))
        log_losses(axes)
        axes.set_title(f"Inner training, {len(losses)} seeds, 95% bands", fontsize=10)
        axes.legend(loc="upper right")
    return figure


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


def sweep(comparison: Comparison, name: str) -> Figure:
    """Mean test loss of Adam against its learning rate, and the learned optimizer's."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(7.2, 3.2)
        finite = np.isfinite(comparison.sweep)
        axes.plot(
            comparison.rates[finite],
            comparison.sweep[finite],
            "o-",
            ms=4,
            color=BASELINE,
            label="Adam",
        )
        learned = comparison.learned.mean()
        axes.axhline(learned, color=LEARNED, lw=1.8, label=f"learned: {name}")
        axes.set(xlabel="Adam's learning rate", ylabel="mean test loss", xscale="log")
        log_losses(axes)
        axes.set_title("Adam's tuning: every rate on the number reported", fontsize=10)
        axes.legend()
    return figure


def meta_training(steps: np.ndarray, losses: np.ndarray) -> Figure:
    """Meta-loss against outer step: every value, and a running mean over 2% of them."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(7.2, 3.2)
        width = max(1, len(steps) // 50)
        smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
        axes.plot(steps, losses, color=LEARNED, alpha=0.25, lw=0.8)
        axes.plot(steps[width - 1 :], smooth, color=LEARNED, lw=1.8)
        axes.set(xlabel="outer step", ylabel="meta-loss")
        if np.min(losses) > 0:
            log_losses(axes)
        axes.set_title("Meta-training", fontsize=10)
    return figure


def courses(compared: list[Course]) -> Figure:
    """Loss against each of `metaopt.compare.AXES`: mean over seeds, and their range as a band."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 3.4), layout="constrained")
        panels = figure.subplots(1, len(AXES), sharey=True)
        for axes, (name, label) in zip(panels, AXES.items(), strict=True):
            for number, one in enumerate(compared):
                x, color = one.axes[name], f"C{number}"
                low, high = one.losses.min(axis=0), one.losses.max(axis=0)
                axes.fill_between(x, low, high, color=color, alpha=0.15, lw=0)
                axes.plot(x, one.losses.mean(axis=0), color=color, lw=1.4, label=one.recipe)
            axes.set(xlabel=label, xscale="log")
            axes.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
            if min(np.nanmin(one.losses) for one in compared) > 0:
                log_losses(axes)
        panels[0].set_ylabel(compared[0].measure.replace("_", " "))
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=6)
    return figure


def variance(rows: Sequence[Row], title: str) -> Figure:
    """tr Cov of one particle against K, as it is, at equal work and at equal sequential depth.

    What has no K is a horizontal line. Bars are standard errors. What has no variance, or none that
    is finite, is left out.
    """
    rows = [row for row in rows if 0 < row.variance < np.inf]
    family = sorted((r for r in rows if r.reuse is not None), key=lambda row: row.reuse or 0)
    kinds: dict[str, list[Row]] = {}
    for row in family:
        es = row.estimator in ("pes", "gpes", "nres")  # one mechanism, three names
        kinds.setdefault("pes (K = W), gpes, nres (K = T)" if es else row.estimator, []).append(row)
    others = [row for row in rows if row.reuse is None]
    styles = iter(STYLES * len(others))
    lines = [
        (row, BASELINE, "-") if row.estimator == "full_es" else (row, INK, next(styles))
        for row in others
    ]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11.4, 3.9), layout="constrained")
        panels = figure.subplots(1, 3)
        for axes, heading, of in (
            (panels[0], "of one particle", lambda row: 1.0),
            (panels[1], "times its unroll steps: equal work", lambda row: float(row.cost)),
            (panels[2], "times its window: equal depth", lambda row: float(row.window)),
        ):
            for (label, members), color in zip(kinds.items(), COLORS * len(kinds), strict=False):
                values = np.array([row.variance * of(row) for row in members])
                errors = np.array([row.variance_error * of(row) for row in members])
                axes.errorbar(
                    [row.reuse for row in members], values, np.nan_to_num(errors),
                    fmt="o-", ms=4, lw=1.8, capsize=2, color=color, label=label,
                )  # fmt: skip
            for row, color, style in lines:
                height = row.variance * of(row)
                axes.axhline(height, color=color, ls=style, lw=1.6, label=row.estimator)
            axes.set(xlabel="K, inner steps for which a noise is kept", xscale="log")
            axes.set_xticks(_apart(sorted({row.reuse for row in family if row.reuse is not None})))
            axes.xaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
            axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
            heights = [row.variance * of(row) for row in rows]
            if heights and max(heights) > 100 * min(heights):
                axes.set_yscale("log")  # powers of ten are labels enough
            elif heights:
                log_losses(axes)
            axes.set_title(f"tr Cov {heading}", fontsize=10)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=4)
        figure.suptitle(title, fontsize=10, fontweight="bold", x=0.01, ha="left")
    return figure


def to_png(figure: Figure) -> bytes:
    """A PNG at 160 dots an inch."""
    return _render(figure, "png", dpi=160, metadata={"Software": None})


def to_svg(figure: Figure) -> str:
    """An ``<svg>`` element to be put into a page."""
    text = _render(figure, "svg", metadata={"Date": None}).decode()
    # A hundredth of a point is enough for a path; matplotlib writes millionths, and a line a point.
    shorter = lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]).replace("\n", "")
    return re.sub(r' d="[^"]*"', shorter, text[text.index("<svg") :])


def log_losses(axes) -> None:
    """A logarithmic axis of losses with enough labels on it, however short."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    axes.yaxis.set_minor_locator(matplotlib.ticker.NullLocator())


def _apart(ticks: list[int]) -> list[int]:
    """Those of rising values whose labels have room on a logarithmic axis; the last is kept."""
    kept: list[int] = []
    for tick in reversed(ticks):
        if not kept or kept[-1] >= 1.5 * tick:
            kept.append(tick)
    return kept


def _figure(width: float, height: float):
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _render(figure: Figure, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format=kind, **options)
    return buffer.getvalue()
