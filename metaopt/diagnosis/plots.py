"""The picture of a diagnosis: variance against the number of steps for which a noise is kept."""

from collections.abc import Sequence

import matplotlib
import matplotlib.ticker
import numpy as np
from matplotlib.figure import Figure

from metaopt.diagnosis.diagnose import EstimatorRow
from metaopt.plotting.style import BASELINE, COLORS, DASHES, INK, STYLE, literal, log_losses


def variance(rows: Sequence[EstimatorRow], title: str) -> Figure:
    """tr Cov of one particle against K, as it is, at equal work and at equal sequential depth.

    What has no K is a horizontal line. Bars are standard errors. What has no variance, or none that
    is finite, is left out.
    """
    rows = [row for row in rows if 0 < row.variance < np.inf]
    family = sorted((r for r in rows if r.reuse is not None), key=lambda row: row.reuse or 0)
    kinds: dict[str, list[EstimatorRow]] = {}
    for row in family:
        es = row.estimator in ("pes", "gpes", "nres")  # one mechanism, three names
        kinds.setdefault("pes (K = W), gpes, nres (K = T)" if es else row.estimator, []).append(row)
    others = [row for row in rows if row.reuse is None]
    styles = iter(DASHES * len(others))
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
                    fmt="o-", ms=4, lw=1.8, capsize=2, color=color, label=literal(label),
                )  # fmt: skip
            for row, color, style in lines:
                height = row.variance * of(row)
                axes.axhline(height, color=color, ls=style, lw=1.6, label=literal(row.estimator))
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
        figure.suptitle(literal(title), fontsize=10, fontweight="bold", x=0.01, ha="left")
    return figure


def _apart(ticks: list[int]) -> list[int]:
    """Those of rising values whose labels have room on a logarithmic axis; the last is kept."""
    kept: list[int] = []
    for tick in reversed(ticks):
        if not kept or kept[-1] >= 1.5 * tick:
            kept.append(tick)
    return kept
