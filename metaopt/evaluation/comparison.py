"""Honest evaluation: a learned optimizer against a baseline whose learning rate was tuned.

Both train from the same fresh initialisations on the same batches, and both are measured on the
whole test split after every inner step. Neither the split nor the keys occur in meta-training. The
baseline's rate is the best of the swept ones *by the very number that is reported*, one for the
mean loss and one for the final, which is in the baseline's favour.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import special

from metaopt.core import inner
from metaopt.core.types import Key, LearnedOptimizer, PyTree, Task, Theta
from metaopt.core.unroll import unroll

RATES = tuple(float(f"{10 ** (k / 4):.3g}") for k in range(-16, 1))
"""Learning rates of a sweep: four a decade, from 1e-4 to 1."""


class Interval(NamedTuple):
    """A mean over seeds, and the half-width of its 95% confidence interval (Student's t)."""

    mean: float
    half_width: float

    def __str__(self) -> str:
        return f"{self.mean:.4f} ± {self.half_width:.4f}"


class Comparison(NamedTuple):
    """A learned optimizer against the tuned baseline, both over the same seeds.

    Attributes:
      learned: ``[seeds, steps]`` test loss after each inner step.
      baseline: ``[seeds, steps]``, at the rate with the best mean loss.
      rate: that rate.
      final: ``[seeds]`` the baseline's last losses at the rate where these are best.
      final_rate: that rate.
      rates: ``[R]`` all that were tried.
      sweep: ``[R]`` the mean loss of each, over seeds and steps; inf where a run was not finite.
    """

    learned: np.ndarray
    baseline: np.ndarray
    rate: float
    final: np.ndarray
    final_rate: float
    rates: np.ndarray
    sweep: np.ndarray

    @property
    def improvement(self) -> float:
        """By what fraction the learned optimizer's mean loss is below the baseline's."""
        return 1 - float(self.learned.mean() / self.baseline.mean())

    @property
    def changes(self) -> tuple["Interval", "Interval"]:
        """What the learned optimizer does to the mean and to the final loss; see `change`."""
        mean = change(self.learned.mean(axis=1), self.baseline.mean(axis=1))
        return mean, change(self.learned[:, -1], self.final)


def interval(values: np.ndarray) -> Interval:
    """Mean and 95% interval of independent values ``[seeds]``.

    Example:
      >>> str(interval(np.array([1.0, 2.0, 3.0])))
      '2.0000 ± 2.4841'
    """
    count = len(values)
    spread = float(np.std(values, ddof=1)) / np.sqrt(count) if count > 1 else float("nan")
    return Interval(float(np.mean(values)), float(special.stdtrit(count - 1, 0.975)) * spread)


def change(ours: np.ndarray, theirs: np.ndarray) -> Interval:
    """Our mean over theirs, less 1, with a 95% interval by the differences of pairs ``[seeds]``.

    Seeds differ far more than optimizers do, and both have the same ones.

    Example:
      >>> str(change(np.array([1.0, 11.0, 20.0]), np.array([2.0, 12.0, 22.0])))
      '-0.1111 ± 0.1195'
    """
    return Interval(*(float(x) / float(np.mean(theirs)) for x in interval(ours - theirs)))


def learning_curves(
    task: Task,
    optimizer: LearnedOptimizer,
    thetas: Theta,
    data: PyTree,
    *,
    num_steps: int,
    seeds: int,
    key: Key,
    split: str = "test",
) -> jax.Array:
    """Losses on a whole split along inner runs, ``[M, seeds, num_steps]``; one compiled program.

    Args:
      task: what is trained, on its ``"train"`` split.
      optimizer: what trains it.
      thetas: M of its meta-parameters, stacked on axis 0 of every leaf.
      data: the task's data.
      num_steps: inner steps a run.
      seeds: runs for each theta; run i has the same initialisation and batches for all of them.
      key: the runs' key.
      split: where the loss is measured.
    """
    problem = inner.training(task, optimizer, outer_split=split, whole_outer_split=True)

    def run(theta, key, data):
        state = problem.init(theta, data, num_steps, key)
        return unroll(problem, theta, state, data, num_steps)[1]

    runs = jax.vmap(jax.vmap(run, (None, 0, None)), (0, None, None))
    return jax.jit(runs)(thetas, jax.random.split(key, seeds), data)


def compare(
    task: Task,
    optimizer: LearnedOptimizer,
    theta: Theta,
    data: PyTree,
    *,
    num_steps: int,
    seeds: int,
    key: Key,
    rates: tuple[float, ...] = RATES,
) -> Comparison:
    """The learned optimizer ``theta`` against Adam at the best of ``rates``; see the module."""
    adam = LearnedOptimizer(
        init=lambda key: jnp.float32(1e-3),
        optimizer=lambda rate, num_steps=None: optax.with_extra_args_support(optax.adam(rate)),
    )
    run = lambda optimizer, thetas: np.asarray(
        learning_curves(task, optimizer, thetas, data, num_steps=num_steps, seeds=seeds, key=key)
    )
    learned = run(optimizer, jax.tree.map(lambda leaf: leaf[None], theta))[0]
    curves = run(adam, jnp.array(rates, jnp.float32))
    finite = lambda losses: np.where(np.isfinite(losses), losses, np.inf)
    sweep = finite(curves.mean(axis=(1, 2)))
    best, last = int(sweep.argmin()), int(finite(curves[..., -1].mean(axis=1)).argmin())
    return Comparison(
        learned=learned,
        baseline=curves[best],
        rate=rates[best],
        final=curves[last, :, -1],
        final_rate=rates[last],
        rates=np.array(rates),
        sweep=sweep,
    )
