"""The pictures of runs: how a meta-loss went, and several recipes side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.ticker
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metaopt.config.registry import choose
from metaopt.core.metric import Metric
from metaopt.plotting.style import LEARNED, STYLE, literal, log_losses, log_ticks
from metaopt.training.metrics import read_metrics
from metaopt.training.outcome import Measurements
from metaopt.training.run_curves import AXES, RunCurves
from metaopt.training.run_directory import RunDirectory


def meta_training(
    steps: np.ndarray, losses: np.ndarray, measured: Measurements | None = None
) -> Figure:
    """Meta-loss against outer step: every value, and a centred running mean over 2% of them.

    With more than one measurement of the test metric these have a panel of their own.
    """
    tests = measured is not None and len(measured.values) > 1
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 3.2), layout="constrained")
        panels = figure.subplots(1, 1 + tests, squeeze=False)[0]
        _curve(panels[0], steps, losses)
        panels[0].set(xlabel="outer step")
        panels[0].set_title("meta-loss", fontsize=10)
        if measured is not None and tests:
            _points(panels[1], measured.steps, measured.values, measured.metric)
            panels[1].set(xlabel="outer step")
            panels[1].set_title(literal(measured.metric.title), fontsize=10)
    return figure


def parts(steps: np.ndarray, losses: dict[str, np.ndarray]) -> Figure:
    """The meta-loss of each task of a mixture, a panel each, as `meta_training` draws one."""
    columns = 4
    with matplotlib.rc_context(STYLE):
        rows = -(-len(losses) // columns)
        figure = Figure(figsize=(9.6, 2.2 * rows), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in panels[len(losses) :]:
            axes.set_axis_off()
        for axes, (name, values) in zip(panels, losses.items(), strict=False):
            _curve(axes, steps, values)
            axes.set_title(literal(name), fontsize=9)
    return figure


def plot_metrics(run: Any, names: Sequence[str] | None = None) -> Figure:
    """Draws metrics of a run against outer step; public as `metaopt.plot_metrics`.

    Every value is a pale line, a centred running mean over 2% of them a strong one; what was not
    measured at every outer step is drawn as points. Where particles start together or are
    staggered unevenly, the meta-loss is a saw-tooth with the period of an episode, T/W outer steps:
    the beginnings of episodes have larger losses than their ends.

    Args:
      run: a run's directory, or a `metaopt.Run`.
      names: columns of `metaopt.read_metrics`, a panel each; if not given, those that the run has
        of ``"loss"``, the test metric, ``"snr"`` and ``"half_cosine"``.

    Returns:
      A matplotlib figure.

    Raises:
      UserError: if the run has no metrics, or for a name that is not among them.
    """
    columns, metric = read_metrics(run), RunDirectory(Path(run)).read_test_metric()
    if names is None:
        usual = ("loss", metric.key, "snr", "half_cosine")
        names = [name for name in usual if name in columns]
    values = [choose("metric", name, columns) for name in names]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.6 * len(names), 3.0), layout="constrained")
        panels = figure.subplots(1, len(names), squeeze=False)[0]
        for axes, name, column in zip(panels, names, values, strict=True):
            if name == metric.key:
                _points(axes, columns["step"], column.astype(np.float64), metric)
            else:
                _curve(axes, columns["step"], column.astype(np.float64))
            axes.set(xlabel="outer step")
            axes.set_title(literal(metric.title if name == metric.key else name), fontsize=10)
    return figure


def smoothed_over(count: int) -> int:
    """Over how many of ``count`` values a running mean is: 2% of them, an odd number.

    Examples:
      >>> smoothed_over(800), smoothed_over(50)
      (17, 1)
    """
    return 2 * (count // 100) + 1


def _curve(axes: Axes, steps: np.ndarray, values: np.ndarray) -> None:
    steps, values = _finite(axes, steps, values)
    if not len(values):
        return
    width = smoothed_over(len(values))
    smooth = np.convolve(values, np.ones(width) / width, mode="valid")
    axes.plot(steps, values, color=LEARNED, alpha=0.25, lw=0.8)
    axes.plot(steps[width // 2 : len(steps) - width // 2], smooth, color=LEARNED, lw=1.8)
    if values.min() > 0 and values.max() > 3 * values.min():
        log_losses(axes)


def _points(axes: Axes, steps: np.ndarray, values: np.ndarray, metric: Metric) -> None:
    steps, values = _finite(axes, steps, values)
    axes.plot(steps, values, "o-", color=LEARNED, lw=1.8, ms=3)
    is_loss = not metric.higher_is_better
    if is_loss and len(values) and values.min() > 0 and values.max() > 10 * values.min():
        log_losses(axes)


def _finite(axes: Axes, steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Those that can be drawn; says so if there are none."""
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5, integer=True))
    here = np.isfinite(values)
    if not here.any():
        axes.text(0.5, 0.5, "no finite value", ha="center", transform=axes.transAxes)
    return steps[here], values[here]


def run_curves(compared: Sequence[RunCurves]) -> Figure:
    """A metric against each of the axes of a sweep: mean over seeds, and their range as a band."""
    metric = compared[0].metric
    values = np.concatenate([one.values.ravel() for one in compared])
    values = values[np.isfinite(values)]
    is_loss = metric is None or not metric.higher_is_better
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 3.4), layout="constrained")
        panels = figure.subplots(1, len(AXES), sharey=True)
        for axes, (name, label) in zip(panels, AXES.items(), strict=True):
            for number, one in enumerate(compared):
                x, color = one.axes[name], f"C{number}"
                low, high = one.values.min(axis=0), one.values.max(axis=0)
                marker = "o" if len(x) < 10 else ""
                axes.fill_between(x, low, high, color=color, alpha=0.15, lw=0)
                mean = one.values.mean(axis=0)
                axes.plot(
                    x, mean, marker=marker, ms=3, color=color, lw=1.4, label=literal(one.name)
                )
            axes.set(xlabel=label, xscale="log")
            log_ticks(axes.xaxis)
            if is_loss and values.size and values.min() > 0:
                log_losses(axes)
        panels[0].set_ylabel(literal(compared[0].title))
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=6)
    return figure
