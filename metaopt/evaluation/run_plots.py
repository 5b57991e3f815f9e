"""The pictures of a run's comparison with tuned Adam."""

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from metaopt.evaluation.comparison import Comparison
from metaopt.plotting.style import BASELINE, LEARNED, STYLE, log_losses, single_figure


def curves(comparison: Comparison, name: str) -> Figure:
    """Test loss against inner step, mean and 95% band over seeds, learned against tuned Adam."""
    with matplotlib.rc_context(STYLE):
        figure, axes = single_figure(7.2, 4.2)
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


def sweep(comparison: Comparison, name: str) -> Figure:
    """Mean test loss of Adam against its learning rate, and the learned optimizer's."""
    with matplotlib.rc_context(STYLE):
        figure, axes = single_figure(7.2, 3.2)
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
