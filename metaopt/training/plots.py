"""The pictures of runs: how a meta-loss went, and several recipes side by side."""

from collections.abc import Sequence

import matplotlib
import matplotlib.ticker
import numpy as np
from matplotlib.figure import Figure

from metaopt.plotting.style import LEARNED, STYLE, log_losses, single_figure
from metaopt.training.run_curves import AXES, RunCurves


def meta_training(steps: np.ndarray, losses: np.ndarray) -> Figure:
    """Meta-loss against outer step: every value, and a running mean over 2% of them."""
    with matplotlib.rc_context(STYLE):
        figure, axes = single_figure(7.2, 3.2)
        width = max(1, len(steps) // 50)
        smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
        axes.plot(steps, losses, color=LEARNED, alpha=0.25, lw=0.8)
        axes.plot(steps[width - 1 :], smooth, color=LEARNED, lw=1.8)
        axes.set(xlabel="outer step", ylabel="meta-loss")
        if np.min(losses) > 0:
            log_losses(axes)
        axes.set_title("Meta-training", fontsize=10)
    return figure


def run_curves(compared: Sequence[RunCurves]) -> Figure:
    """Loss against each of the axes of a sweep: mean over seeds, and their range as a band."""
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
