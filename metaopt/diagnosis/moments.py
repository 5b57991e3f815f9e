"""Independent estimates of one estimator at one theta: their mean and their variance."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from metaopt.core.types import GradientEstimator, Key, PyTree, Theta
from metaopt.parallel.sharding import AXIS


class Moments(NamedTuple):
    """What a budget of particles says of an estimator.

    Attributes:
      mean: ``[d]`` float64, the mean estimate.
      populations: ``[P, d]`` float64, the estimates of those with two finite particles.
      variance: tr Cov of one particle's estimate, and its standard error.
      variance_error: from the spread over calls; NaN for a single call.
      particles: n, finite ones, over all calls.
      nonfinite: particles left out.
      unroll_steps: all that was spent, burning in included.
      window: W, inner steps one after another in an update.
      cost: unroll steps of one particle's window.
    """

    mean: np.ndarray
    populations: np.ndarray
    variance: float
    variance_error: float
    particles: int
    nonfinite: int
    unroll_steps: int
    window: int
    cost: int


def sample(
    estimator: GradientEstimator,
    theta: Theta,
    data: PyTree,
    *,
    budget: int,
    key: Key,
    mesh: Mesh | None = None,
    on_progress: Callable[[float], None] = lambda done: None,
) -> Moments:
    """Fresh populations, one estimate each, until ``budget`` unroll steps are spent; two at least.

    Args:
      estimator: one on a `metaopt.estimators.population.Population`, burnt in by its ``init``,
        itself on no mesh.
      theta: where.
      data: the problem's data.
      budget: unroll steps.
      key: population i folds in i.
      mesh: its devices make a population each at a time.
      on_progress: told the fraction of the budget that is spent.

    Populations are averaged with their numbers of finite particles as weights.

    Examples:
      >>> from metaopt.estimators import full_es
      >>> from metaopt.tasks import PROBLEMS
      >>> problem = PROBLEMS["linear_recursion"]()
      >>> theta, keys = problem.init_theta(jax.random.key(0)), jax.random.key(1)
      >>> estimator = full_es(problem, particles=4, horizon=8, sigma=0.1)
      >>> moments = sample(estimator, theta, (), budget=200, key=keys)
      >>> moments.particles, moments.cost, moments.unroll_steps
      (16, 16, 256)
    """

    def estimates(theta, data, keys):
        begun = estimator.init(theta, data, jax.random.fold_in(keys[0], 0))
        estimate, ended = estimator.estimate(theta, begun, data, jax.random.fold_in(keys[0], 1))
        window = (ended.episode.elapsed - begun.episode.elapsed)[0]
        size = {"window": window, "windows": len(begun.remaining) + begun.uncounted.sum()}
        return jax.tree.map(lambda leaf: leaf[None], (estimate.grad, estimate.metrics | size))

    size = len(jax.eval_shape(estimator.init, theta, data, key).remaining)
    devices, program = 1, estimates
    if mesh is not None:
        devices, specs = mesh.size, (P(), P(), P(AXIS))
        # Nothing crosses devices, so there is nothing for the check to find.
        program = jax.shard_map(
            estimates, mesh=mesh, in_specs=specs, out_specs=P(AXIS), check_vma=False
        )
    program = jax.jit(program)
    keys_of = jax.jit(jax.vmap(jax.random.fold_in, (None, 0)))
    grads: list[np.ndarray] = []
    metrics: list[dict[str, np.ndarray]] = []
    spent = 0
    while spent < budget or len(grads) * devices < 2:
        indices = len(grads) * devices + np.arange(devices)
        # On the host before the next one: many in flight take memory and can deadlock on a CPU.
        grad, said = jax.device_get(program(theta, data, keys_of(key, indices)))
        grads.append(np.concatenate([x.reshape(devices, -1) for x in jax.tree.leaves(grad)], 1))
        metrics.append(said)
        spent += int(said["unroll_steps"].sum())
        on_progress(min(1.0, spent / budget))
    column = lambda name: np.concatenate([said[name] for said in metrics])
    finite = size - column("nonfinite_pairs")
    known = finite >= 2  # fewer say nothing of their spread
    populations = np.concatenate(grads)[known].astype(np.float64)
    mean, variance, error = _average(
        populations, column("particle_variance")[known].astype(np.float64), finite[known]
    )
    return Moments(
        mean=mean,
        populations=populations,
        variance=variance,
        variance_error=error,
        particles=int(finite.sum()),
        nonfinite=int(size * len(finite) - finite.sum()),
        unroll_steps=spent,
        window=int(metrics[0]["window"][0]),
        cost=spent // int(column("windows").sum()),
    )


def _average(grads: np.ndarray, variances: np.ndarray, finite: np.ndarray):
    """Mean gradient, mean variance, its error; from populations' ``[P, d]``, ``[P]``, ``[P]``."""
    count, size = grads.shape
    if not count:
        return np.full(size, np.nan), math.nan, math.nan
    shares = finite / finite.sum()
    variance = float(shares @ variances)
    error = math.nan
    if count > 1:
        error = math.sqrt(shares**2 @ (variances - variance) ** 2 * count / (count - 1))
    return shares @ grads, variance, error


def squared_distance(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """|E a - E b|^2 without the part that chance adds, and its standard error where it is 0.

    Products of different samples only, so that the noise has mean 0 (a U-statistic). Its standard
    error shrinks with the number of dimensions that the noise is spread over: in many dimensions a
    distance far below that of the two means by chance can be told from none.

    Args:
      a: ``[P, d]`` independent samples.
      b: ``[Q, d]`` others.

    Returns:
      NaN for the error with fewer than 4 of either; for both with fewer than 2.

    Examples:
      >>> rng = np.random.default_rng(0)
      >>> a, b = rng.normal(size=(20, 1000)), rng.normal(0.1, 1, size=(20, 1000))
      >>> square, error = squared_distance(a, b)
      >>> bool(abs(square - 1000 * 0.1**2) < 4 * error < np.square(a.mean(0) - b.mean(0)).sum())
      True
    """
    p, q = len(a), len(b)
    if min(p, q) < 2:
        return math.nan, math.nan

    def within(x):
        """Mean product of two different samples."""
        return (np.square(x.sum(axis=0)).sum() - np.square(x).sum()) / (len(x) * (len(x) - 1))

    square = within(a) + within(b) - 2 * a.mean(axis=0) @ b.mean(axis=0)
    if min(p, q) < 4:
        return float(square), math.nan
    # Differences of disjoint pairs have mean 0 and twice the covariance. Their products squared are
    # 4 tr(Cov Cov) on average.
    da, db = (x[: len(x) // 2 * 2 : 2] - x[1::2] for x in (a, b))
    off_diagonal = lambda x: np.square((x @ x.T)[~np.eye(len(x), dtype=bool)]).mean() / 4
    variance = 2 * off_diagonal(da) / (p * (p - 1)) + 2 * off_diagonal(db) / (q * (q - 1))
    variance += 4 * np.square(da @ db.T).mean() / 4 / (p * q)
    return float(square), math.sqrt(variance)
