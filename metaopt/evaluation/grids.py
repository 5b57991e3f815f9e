"""Meta-generalisation: how a learned optimizer does on networks and runs of other sizes."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metaopt.config.components import make
from metaopt.config.schema import Component
from metaopt.core.types import LearnedOptimizer, Theta
from metaopt.evaluation.measures import best, counted, mean_losses
from metaopt.evaluation.trials import Trial

WIDTHS, DEPTHS, SEEDS = (16, 64, 256), (1, 2, 4), 2


class Grid(NamedTuple):
    """Meta-generalisation: a learned optimizer's mean loss over tuned reference's, less 1.

    Attributes:
      optimizer: whose.
      widths, depths, horizons: of the hidden layers of ``digits_mlp``, and of the runs.
      ratios: ``[depths, widths, horizons]``, below 0 where it is better.
    """

    optimizer: str
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    horizons: tuple[int, ...]
    ratios: np.ndarray


def measure_grids(
    trained: Mapping[str, tuple[LearnedOptimizer, Theta]],
    reference: tuple[str, LearnedOptimizer],
    rates: jax.Array,
    *,
    horizons: tuple[int, ...],
    every: int,
    split: str,
    run: Callable[..., Trial],
) -> tuple[Grid, ...]:
    """A grid for each trained optimizer.

    Args:
      trained: name -> (optimizer, theta).
      reference: a baseline whose theta is its rate, constant, so that its longest run has all.
      rates: ``[R]``, the reference's sweep; tuned for each cell.
      horizons: multiples of ``every``.
      every: inner steps between two measurements.
      split: whose loss decides.
      run: ``(task, what, data, optimizer, thetas, horizons, seeds) -> Trial``.
    """
    ratios = {name: np.zeros((len(DEPTHS), len(WIDTHS), len(horizons))) for name in trained}

    def mean(trial: Trial, horizon: int) -> float:
        values = mean_losses(counted(trial.at(horizon, every), None), split)
        return float(values[best(values)].mean())

    for d, depth in enumerate(DEPTHS):
        for w, width in enumerate(WIDTHS):
            task = make("task", Component("digits_mlp", (f"hidden={[width] * depth}",)))
            data, size = task.data(), f"{depth} layers of {width}"
            name, baseline = reference
            tuned = run(task, f"{name} on {size}", data, baseline, rates, horizons[-1:], SEEDS)
            for name, (optimizer, theta) in trained.items():
                alone = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], theta)
                trial = run(task, f"{name} on {size}", data, optimizer, alone, horizons, SEEDS)
                ratios[name][d, w] = [mean(trial, h) / mean(tuned, h) - 1 for h in horizons]
    return tuple(Grid(name, WIDTHS, DEPTHS, horizons, ratios[name]) for name in trained)
