"""The pictures of an evaluation, by matplotlib."""

import matplotlib
import matplotlib.ticker
import numpy as np
from matplotlib.figure import Figure

from metaopt.evaluation.grids import Grid
from metaopt.evaluation.measures import mean_losses
from metaopt.evaluation.result import Result
from metaopt.evaluation.statistics import (
    bootstrap,
    interquartile_mean,
    performance_profile,
    with_interval,
)
from metaopt.evaluation.trials import LONGER, SPLITS, horizons_of
from metaopt.plotting.style import (
    BASELINE,
    COLORS,
    DASHES,
    INK,
    LEARNED,
    PALE,
    STYLE,
    log_losses,
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


def curves(found: Result, *, against_seconds: bool = False) -> Figure:
    """Mean loss and 95% band over seeds against inner step, or seconds, a panel a task."""
    with matplotlib.rc_context(STYLE):
        figure, panels = _panels(found.tasks)
        for axes, task in zip(panels, found.tasks, strict=True):
            for name in (*found.baselines[::-1], *found.optimizers[::-1]):
                color, line = colors(found)[name]
                losses = found.tuned(task, name)[..., SPLITS.index(found.split)]
                x = found.every * np.arange(losses.shape[1], dtype=float)
                if against_seconds:
                    x *= found.trials[task][name].seconds_per_step
                mean = losses.mean(axis=0)
                band = 1.96 * losses.std(axis=0, ddof=1) / np.sqrt(len(losses))
                axes.fill_between(x, *_positive(mean, band), color=color, alpha=0.15, lw=0)
                axes.plot(x, mean, color=color, ls=line, lw=1.8, label=name)
            axes.set_xlabel("seconds of one run alone" if against_seconds else "inner step")
            if against_seconds:  # the start, at 0 seconds, is left out
                axes.set_xscale("log")
            log_losses(axes)
            axes.set_title(task, fontsize=10)
        what = "against wall-clock" if against_seconds else f"over {found.num_steps} steps"
        _finish(figure, panels, f"{found.split} loss {what}, {found.seeds} seeds, 95% bands", found)
    return figure


def speedups(found: Result) -> Figure:
    """Bars of the mean speed-up over the reference a task, and the aggregate with its interval."""
    names = [name for name in (*found.optimizers, *found.baselines) if name != found.reference]
    groups = [*found.tasks, "all: IQM"]
    with matplotlib.rc_context(STYLE):
        height = 1.0 + 0.26 * len(names) * len(groups)
        figure = Picture(figsize=(7.2, max(2.4, height)), layout="constrained")
        axes = figure.add_subplot()
        aggregates = {one.optimizer: one for one in found.aggregates()}
        thick = 0.8 / len(names)
        for i, name in enumerate(names):
            color = colors(found)[name][0]
            for group in range(len(groups)):
                at = group + thick * (i - (len(names) - 1) / 2)
                if group < len(found.tasks):
                    values = found.stacked(name, "speedups")[group : group + 1]
                    bounded = bool(found.stacked(name, "bounded")[group].any())
                    value, low, high = with_interval(lambda x: x.mean(axis=(-2, -1)), values)
                else:
                    bounded = aggregates[name].bounded
                    value, low, high = aggregates[name].speedup
                axes.barh(at, value, thick, color=color, label=name if group == 0 else None)
                error = np.maximum([[value - low], [high - value]], 0)
                axes.errorbar(value, at, xerr=error, color=INK, lw=1, capsize=2)
                axes.annotate(
                    f"{'≥ ' if bounded else ''}{value:.2f}×", (max(value, high), at),
                    xytext=(5, 0), textcoords="offset points", va="center", fontsize=8,
                )  # fmt: skip
        axes.axvline(1, color=INK, lw=1, ls=":")
        axes.axhline(len(found.tasks) - 0.5, color=PALE, lw=1)
        axes.set_yticks(range(len(groups)), groups)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.12)
        axes.set_xlabel(
            f"steps that tuned {found.reference} needs to the same loss, over the steps taken"
        )
        axes.set_title("Speed-up, 95% intervals; ≥: a lower bound", fontsize=10)
        figure.legend(loc="outside lower center", ncols=5)
    return figure


def profile(found: Result) -> Figure:
    """The fraction of runs that score above each threshold, with 95% bands."""
    everything = np.concatenate(
        [found.stacked(name, "scores").ravel() for name in (*found.optimizers, *found.baselines)]
    )
    # Where all runs are close to 1, that part is shown.
    low_end = 0.0 if everything.min() < 0.6 else 0.9 * float(everything.min())
    thresholds = np.linspace(low_end, 1.05 * max(1.0, float(everything.max())), 200)
    with matplotlib.rc_context(STYLE):
        figure = Picture(figsize=(7.2, 3.4), layout="constrained")
        axes = figure.add_subplot()
        for name, (color, line) in colors(found).items():
            scores = found.stacked(name, "scores")
            low, high = bootstrap(
                lambda x: performance_profile(x, thresholds), scores, resamples=500
            )
            axes.fill_between(thresholds, low, high, color=color, alpha=0.12, lw=0)
            share = performance_profile(scores, thresholds)
            middle = float(interquartile_mean(scores))
            label = f"{name} (IQM {middle:.2f})"
            axes.plot(thresholds, share, color=color, ls=line, lw=1.8, label=label)
        axes.set(
            xlabel=f"score τ (0: no progress, 1: tuned {found.reference})",
            ylabel="fraction of runs above τ",
            ylim=(0, 1.03),
            xlim=(low_end, thresholds[-1]),
        )
        axes.set_title(f"Performance profile over {everything.size} runs", fontsize=10)
        axes.legend(loc="lower left")
    return figure


def horizons(found: Result) -> Figure:
    """Mean loss against the run's length, the reference tuned for each length."""
    lengths = horizons_of(found.num_steps)
    with matplotlib.rc_context(STYLE):
        figure, panels = _panels(found.tasks)
        for axes, task in zip(panels, found.tasks, strict=True):
            for name in (found.reference, *found.optimizers):
                color, line = colors(found)[name]
                runs = [mean_losses(found.tuned(task, name, h), found.split) for h in lengths]
                means = np.array([one.mean() for one in runs])
                bars = np.array([1.96 * one.std(ddof=1) / np.sqrt(len(one)) for one in runs])
                axes.fill_between(lengths, *_positive(means, bars), color=color, alpha=0.15, lw=0)
                axes.plot(lengths, means, "o", ls=line, ms=4, color=color, label=name)
            axes.axvline(found.num_steps, color=INK, lw=1, ls=":")
            axes.set(xlabel="inner steps of a run", xscale="log")
            axes.set_xticks(lengths, [f"{h:,}" for h in lengths])
            axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
            log_losses(axes)
            axes.set_title(task, fontsize=10)
        text = f"Mean {found.split} loss against horizon, T/{LONGER} to {LONGER}T; dotted: T"
        _finish(figure, panels, text, found)
    return figure


def rates(found: Result) -> Figure:
    """Mean loss of the baselines against their learning rates, and the learned optimizers'."""
    with matplotlib.rc_context(STYLE):
        figure, panels = _panels(found.tasks)
        for axes, task in zip(panels, found.tasks, strict=True):
            for name, (color, line) in colors(found).items():
                means = mean_losses(found.curves(task, name), found.split).mean(axis=1)
                if name in found.optimizers:
                    axes.axhline(means[0], color=color, lw=1.8, label=name)
                else:
                    axes.plot(found.rates, means, "o", ls=line, ms=3, color=color, label=name)
            axes.set(xlabel="learning rate", xscale="log")
            log_losses(axes)
            axes.set_title(task, fontsize=10)
        text = f"Mean {found.split} loss against learning rate: the whole sweep"
        _finish(figure, panels, text, found)
    return figure


def grid(one: Grid, reference: str) -> Figure:
    """A heat map of width and depth for each horizon."""
    with matplotlib.rc_context(STYLE):
        figure = Picture(figsize=(7.2, 2.9), layout="constrained")
        panels = figure.subplots(1, len(one.horizons), sharey=True, squeeze=False)[0]
        percent = 100 * one.ratios
        limit = min(100.0, max(5.0, float(np.abs(percent).max())))
        for i, axes in enumerate(panels):
            axes.imshow(percent[..., i], cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto")
            for (d, w), value in np.ndenumerate(percent[..., i]):
                ink = "white" if abs(value) > 0.6 * limit else INK
                axes.text(w, d, f"{value:+.0f}%", ha="center", va="center", color=ink)
            axes.set_xticks(range(len(one.widths)), [str(width) for width in one.widths])
            axes.set_yticks(range(len(one.depths)), [str(depth) for depth in one.depths])
            axes.set(xlabel="width")
            axes.grid(visible=False)
            axes.set_title(f"{one.horizons[i]:,} steps", fontsize=10)
        panels[0].set_ylabel("hidden layers")
        title = f"{one.optimizer}: mean loss against tuned {reference}, digits_mlp"
        figure.suptitle(title, fontsize=10, fontweight="bold", x=0.01, ha="left")
    return figure


def _positive(mean: np.ndarray, band: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ends of a band; on a logarithmic axis the lower one must not fall off it."""
    return np.maximum(mean - band, 0.05 * mean), mean + band


def _panels(tasks: tuple[str, ...]):
    columns = min(COLUMNS, len(tasks))
    rows = -(-len(tasks) // columns)
    figure = Picture(figsize=(7.2, 0.6 + (3.4 if columns == 1 else 2.8) * rows))
    figure.set_layout_engine("constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for unused in panels[len(tasks) :]:
        unused.remove()
    return figure, panels[: len(tasks)]


def _finish(figure: Figure, panels, title: str, found: Result) -> None:
    handles, labels = panels[0].get_legend_handles_labels()
    named = dict(zip(labels, handles, strict=True))
    order = [name for name in (*found.optimizers, *found.baselines) if name in named]
    figure.legend(
        [named[name] for name in order], order, loc="outside lower center", ncols=min(5, len(order))
    )
    figure.suptitle(title, fontsize=10, fontweight="bold", x=0.01, ha="left")
