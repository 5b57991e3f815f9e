"""The pictures of an evaluation, by matplotlib."""

import matplotlib
import matplotlib.ticker
import numpy as np
from matplotlib.figure import Figure

from metaopt.evaluation.grids import Grid
from metaopt.evaluation.measures import mean_losses
from metaopt.evaluation.panels import (
    Picture,
    band,
    colors,
    finish,
    log_seconds,
    loss_axis,
    panels_of,
)
from metaopt.evaluation.result import Result
from metaopt.evaluation.statistics import (
    FEWEST_SEEDS,
    bootstrap,
    interquartile_mean,
    performance_profile,
    with_interval,
)
from metaopt.evaluation.trials import LONGER
from metaopt.plotting.style import INK, PALE, STYLE, literal


def curves(found: Result, *, against_seconds: bool = False) -> Figure:
    """Mean loss and 95% band over seeds against inner step, or seconds, a panel a task."""
    with matplotlib.rc_context(STYLE):
        figure, panels = panels_of(found.tasks)
        for axes, task in zip(panels, found.tasks, strict=True):
            names = (*found.baselines[::-1], *found.optimizers[::-1])
            losses = {name: found.losses(task, name) for name in names}
            axes.set_title(literal(task), fontsize=10)
            log = loss_axis(axes, [one.mean(axis=0) for one in losses.values()])
            if log is None:
                continue
            for name in names:
                color, line = colors(found)[name]
                x, mean, low, high = found.steps().astype(float), *band(losses[name], log)
                if against_seconds:  # a logarithmic axis has no place for the start
                    seconds = found.trials[task][name].seconds_per_step
                    x, mean, low, high = (one[1:] for one in (seconds * x, mean, low, high))
                axes.fill_between(x, low, high, color=color, alpha=0.15, lw=0)
                axes.plot(x, mean, color=color, ls=line, lw=1.8, label=literal(name))
            axes.set_xlabel("seconds of one run alone" if against_seconds else "inner step")
            if against_seconds:
                log_seconds(axes)
        what = "against wall-clock" if against_seconds else f"over {found.num_steps} steps"
        finish(figure, panels, f"{found.split} loss {what}, {found.seeds} seeds, 95% bands", found)
    return figure


def speedups(found: Result) -> Figure:
    """Bars of the mean speed-up over the reference a task, and the aggregate with its interval.

    Of the tasks on which the reference makes progress, at least one.
    """
    names = [name for name in (*found.optimizers, *found.baselines) if name != found.reference]
    groups = [*found.meaningful, *["all: IQM"][: len(found.tasks) - 1]]
    aggregates = {one.optimizer: one for one in found.aggregates()}
    average = lambda scores: scores.mean(axis=(-2, -1))
    with matplotlib.rc_context(STYLE):
        height = 1.0 + 0.26 * len(names) * len(groups)
        figure = Picture(figsize=(7.2, max(2.4, height)), layout="constrained")
        axes = figure.add_subplot()
        thick = 0.8 / len(names)
        for i, name in enumerate(names):
            color = colors(found)[name][0]
            ranges = [with_interval(average, one[None]) for one in found.stacked(name, "speedups")]
            ranges += [aggregates[name].speedup] * (len(groups) - len(ranges))
            for group, (value, low, high) in enumerate(ranges):
                at = group + thick * (i - (len(names) - 1) / 2)
                axes.barh(at, value, thick, color=color, label=None if group else literal(name))
                if found.seeds >= FEWEST_SEEDS:
                    error = np.maximum([[value - low], [high - value]], 0)
                    axes.errorbar(value, at, xerr=error, color=INK, lw=1, capsize=2)
                axes.annotate(
                    f"{value:.2f}×", (np.fmax(value, high), at),
                    xytext=(5, 0), textcoords="offset points", va="center", fontsize=8,
                )  # fmt: skip
        axes.axvline(1, color=INK, lw=1, ls=":")
        if len(found.tasks) > 1:
            axes.axhline(len(found.meaningful) - 0.5, color=PALE, lw=1)
        axes.set_yticks(range(len(groups)), [literal(group) for group in groups])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.12)
        axes.set_xlabel(
            f"steps of tuned {literal(found.reference)} over the steps here, to the same loss"
        )
        known = ", 95% intervals" if found.seeds >= FEWEST_SEEDS else f", {found.seeds} seeds"
        axes.set_title(f"Speed-up{known}", fontsize=10)
        figure.legend(loc="outside lower center", ncols=4)
    return figure


def profile(found: Result) -> Figure:
    """The fraction of runs that score above each threshold, with 95% bands where seeds are enough.

    Of the tasks on which the reference makes progress, at least one.
    """
    everything = np.concatenate(
        [found.stacked(name, "scores").ravel() for name in (*found.optimizers, *found.baselines)]
    )
    lowest, highest = float(everything.min()), max(1.0, float(everything.max()))
    # Where all runs are close to 1, that part is shown.
    ends = (lowest - 0.02, highest + 0.02) if lowest > 0.6 else (min(0.0, lowest), 1.05 * highest)
    thresholds = np.linspace(*ends, 200)
    with matplotlib.rc_context(STYLE):
        figure = Picture(figsize=(7.2, 3.4), layout="constrained")
        axes = figure.add_subplot()
        for name, (color, line) in colors(found).items():
            scores = found.stacked(name, "scores")
            if found.seeds >= FEWEST_SEEDS:
                shares = lambda x: performance_profile(x, thresholds)
                low, high = bootstrap(shares, scores, resamples=500)
                axes.fill_between(thresholds, low, high, color=color, alpha=0.12, lw=0)
            share = performance_profile(scores, thresholds)
            middle = float(interquartile_mean(scores))
            label = f"{literal(name)} (IQM {middle:.3g})"
            axes.plot(thresholds, share, color=color, ls=line, lw=1.8, label=label)
        axes.set(
            xlabel=f"score τ (0: no progress, 1: tuned {literal(found.reference)})",
            ylabel="fraction of runs above τ",
            ylim=(0, 1.03),
            xlim=ends,
        )
        known = ", 95% bands" if found.seeds >= FEWEST_SEEDS else ""
        axes.set_title(f"Performance profile over {everything.size} runs{known}", fontsize=10)
        axes.legend(loc="lower left")
    return figure


def horizons(found: Result) -> Figure:
    """Mean loss against the run's length, the reference tuned for each length."""
    lengths, names = found.horizons, (found.reference, *found.optimizers)
    with matplotlib.rc_context(STYLE):
        figure, panels = panels_of(found.tasks)
        for axes, task in zip(panels, found.tasks, strict=True):
            of = lambda name, h, task=task: mean_losses(found.tuned(task, name, h), found.split)
            runs = {n: np.stack([of(n, h) for h in lengths], axis=1) for n in names}
            axes.set_title(literal(task), fontsize=10)
            log = loss_axis(axes, [one.mean(axis=0) for one in runs.values()])
            if log is None:
                continue
            for name in names:
                color, line = colors(found)[name]
                mean, low, high = band(runs[name], log)
                axes.fill_between(lengths, low, high, color=color, alpha=0.15, lw=0)
                axes.plot(lengths, mean, "o", ls=line, ms=4, color=color, label=literal(name))
            axes.axvline(found.num_steps, color=INK, lw=1, ls=":")
            axes.set(xlabel="inner steps of a run", xscale="log")
            axes.set_xticks(lengths, [f"{h:,}" for h in lengths])
            axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        text = f"Mean {found.split} loss against horizon, T/{LONGER} to {LONGER}T; dotted: T"
        finish(figure, panels, text, found)
    return figure


def rates(found: Result) -> Figure:
    """Mean loss of the baselines against their learning rates, and the learned optimizers'."""
    with matplotlib.rc_context(STYLE):
        figure, panels = panels_of(found.tasks)
        for axes, task in zip(panels, found.tasks, strict=True):
            means = {name: found.sweep(task, name) for name in colors(found)}
            axes.set_title(literal(task), fontsize=10)
            if loss_axis(axes, list(means.values())) is None:
                continue
            for name, (color, line) in colors(found).items():
                if name in found.optimizers:
                    axes.axhline(means[name][0], color=color, lw=1.8, label=literal(name))
                else:
                    axes.plot(
                        found.rates,
                        means[name],
                        "o",
                        ls=line,
                        ms=3,
                        color=color,
                        label=literal(name),
                    )
            axes.set(xlabel="learning rate", xscale="log")
        text = f"Mean {found.split} loss against learning rate: the whole sweep"
        finish(figure, panels, text, found)
    return figure


def grid(one: Grid, reference: str) -> Figure:
    """A heat map of width and depth for each horizon."""
    with matplotlib.rc_context(STYLE):
        figure = Picture(figsize=(7.2, 2.9), layout="constrained")
        panels = figure.subplots(1, len(one.horizons), sharey=True, squeeze=False)[0]
        percent = 100 * one.progress
        finite = np.abs(percent[np.isfinite(percent)])
        limit = min(100.0, max(5.0, float(finite.max(initial=0.0))))
        for i, axes in enumerate(panels):
            axes.imshow(percent[..., i], cmap="PuOr", vmin=-limit, vmax=limit, aspect="auto")
            for (d, w), value in np.ndenumerate(percent[..., i]):
                ink = "white" if abs(value) > 0.6 * limit else INK
                text = f"{value:+.0f}%" if np.isfinite(value) else "–"
                axes.text(w, d, text, ha="center", va="center", color=ink)
            axes.set_xticks(range(len(one.widths)), [str(width) for width in one.widths])
            axes.set_yticks(range(len(one.depths)), [str(depth) for depth in one.depths])
            axes.set(xlabel="width")
            axes.grid(visible=False)
            axes.set_title(f"{one.horizons[i]:,} steps", fontsize=10)
        panels[0].set_ylabel("hidden layers")
        title = f"{one.optimizer}: progress beyond that of tuned {reference}, digits_mlp"
        figure.suptitle(literal(title), fontsize=10, fontweight="bold", x=0.01, ha="left")
    return figure
