"""The pictures of runs: how a meta-loss went, and several recipes side by side."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import matplotlib.ticker
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metaopt.config.registry import choose
from metaopt.plotting.style import LEARNED, STYLE, log_losses, single_figure
from metaopt.training.metrics import read_metrics
from metaopt.training.run_curves import AXES, RunCurves


def meta_training(steps: np.ndarray, losses: np.ndarray) -> Figure:
    """Meta-loss against outer step: every value, and a centred running mean over 2% of them."""
    with matplotlib.rc_context(STYLE):
        figure, axes = single_figure(7.2, 3.2)
        _curve(axes, steps, losses)
        axes.set(xlabel="outer step", ylabel="meta-loss")
        axes.set_title("Meta-training", fontsize=10)
    return figure


def plot_metrics(run: Any, names: Sequence[str] = ("loss", "snr", "half_cosine")) -> Figure:
    """Draws metrics of a run against outer step; public as `metaopt.plot_metrics`.

    Every value is a pale line, a centred running mean over 2% of them a strong one. Where particles
    start together or are staggered unevenly, the meta-loss is a saw-tooth with the period of an
    episode, T/W outer steps: the beginnings of episodes have larger losses than their ends.

    Args:
      run: a run's directory, or a `metaopt.Run`.
      names: columns of `metaopt.read_metrics`; a panel each.

    Returns:
      A matplotlib figure.

    Raises:
      UserError: if the run has no metrics, or for a name that is not among them.
    """
    columns = read_metrics(run)
    values = [choose("metric", name, columns) for name in names]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.6 * len(names), 3.0), layout="constrained")
        panels = figure.subplots(1, len(names), squeeze=False)[0]
        for axes, name, column in zip(panels, names, values, strict=True):
            _curve(axes, columns["step"], np.asarray(column, float))
            axes.set(xlabel="outer step")
            axes.set_title(name, fontsize=10)
    return figure


def _curve(axes: Axes, steps: np.ndarray, values: np.ndarray) -> None:
    here = np.isfinite(values)
    steps, values = steps[here], values[here]
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5, integer=True))
    if not len(values):
        axes.text(0.5, 0.5, "no finite value", ha="center", transform=axes.transAxes)
        return
    half = len(steps) // 100
    kernel = np.ones(2 * half + 1) / (2 * half + 1)
    smooth = np.convolve(values, kernel, mode="valid")
    axes.plot(steps, values, color=LEARNED, alpha=0.25, lw=0.8)
    axes.plot(steps[half : len(steps) - half], smooth, color=LEARNED, lw=1.8)
    if values.min() > 0 and values.max() > 3 * values.min():
        log_losses(axes)


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
