"""Draws where estimators go on a rugged meta-loss: ``python docs/draw_toy.py``, in a minute.

It trains the recipes ``toy_regression_...`` and writes ``docs/images/toy-regression.svg``.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from metaopt import outer, recipe, unroll
from metaopt.plotting import to_svg
from metaopt.tasks import toy_regression
from metaopt.training.experiment import build

NAMES = ("nres", "es_single", "pes", "full_es", "truncated_es", "tbptt", "bptt")
COLORS = ("#0b6e99", "#d9730d", "#6b3fa0", "#448361", "#c14c8a", "#9f6b53", "#37352f")
LOW, HIGH, POINTS, STEPS = (-6.0, -5.0), (4.0, 1.0), (300, 180), 100


def surface() -> np.ndarray:
    """The mean loss of an episode on a grid of both thetas: ``[180, 300]``."""
    problem = toy_regression()

    def loss(first, last):
        theta = jnp.stack([first, last])
        state = problem.init(theta, (), STEPS, jax.random.key(0))
        return unroll(problem, theta, state, (), STEPS)[1].mean()

    across, up = (jnp.linspace(LOW[i], HIGH[i], POINTS[i]) for i in (0, 1))
    return np.asarray(jax.jit(jax.vmap(jax.vmap(loss, (0, None)), (None, 0)))(across, up))


def path(name: str) -> np.ndarray:
    """Every theta of the recipe's run: ``[2001, 2]``."""
    config = recipe(f"toy_regression_{name}")
    experiment = build(config)
    estimator, key = experiment.estimator(None), jax.random.key(config.seed)
    step = outer.make_step(estimator, experiment.tx)
    theta = experiment.problem.init_theta(key)
    state = outer.init(estimator, experiment.tx, theta, (), key)
    on = lambda state, _: (step(state, ())[0], state.theta)
    last, thetas = jax.lax.scan(on, state, None, config.outer_steps)
    return np.concatenate([thetas, last.theta[None]])


def drawn() -> Figure:
    """The surface, darker where the loss is low, and a path for each estimator."""
    figure = Figure(figsize=(8.4, 4.6), layout="constrained")
    axes = figure.add_subplot()
    extent = (LOW[0], HIGH[0], LOW[1], HIGH[1])
    losses = np.log10(surface())
    image = axes.imshow(losses, origin="lower", extent=extent, aspect="auto", cmap="bone", vmin=0.2)
    bar = figure.colorbar(image, ax=axes, label="mean loss of the 100 steps", shrink=0.9)
    bar.ax.set_ylim(float(losses.min()), float(losses.max()))
    ticks = [6, 10, 15, 25]
    bar.set_ticks([float(np.log10(tick)) for tick in ticks], labels=[str(tick) for tick in ticks])
    for name, color in zip(NAMES, COLORS, strict=True):
        thetas = path(name)
        axes.plot(*thetas[::10].T, color=color, lw=1.6, label=name)
        axes.plot(*thetas[-1], "o", color=color, ms=7, mec="white", mew=1.0)
    axes.set(xlim=extent[:2], ylim=extent[2:], xlabel="log of the first rate")
    axes.set_ylabel("log of the last rate")
    axes.legend(loc="upper left", fontsize=8, frameon=True, framealpha=0.9)
    return figure


if __name__ == "__main__":
    folder = Path(__file__).parent / "images"
    (folder / "toy-regression.svg").write_text(to_svg(drawn()))
