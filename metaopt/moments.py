"""Independent estimates of one estimator at one theta: their mean and their variance."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from metaopt.sharding import AXIS
from metaopt.types import GradientEstimator, Key, PyTree, Theta


class Moments(NamedTuple):
    """What a budget of particles says of an estimator.

    Attributes:
      mean: ``[d]`` float64, the mean estimate.
      variance: tr Cov of one particle's estimate, and its standard error.
      variance_error: from the spread over calls; NaN for a single call.
      particles: n, finite ones, over all calls.
      nonfinite: particles left out.
      unroll_steps: all that was spent, burning in included.
      window: W, inner steps one after another in an update.
      cost: unroll steps of one particle's window.
    """

    mean: np.ndarray
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

    Example:
      >>> from metaopt.estimators import full_es
      >>> from tasks import PROBLEMS
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
    mean, variance, error = _average(np.concatenate(grads), column("particle_variance"), finite)
    return Moments(
        mean=mean,
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
    known = finite >= 2  # fewer say nothing of their spread
    if not known.any():
        return np.full(grads.shape[1], np.nan), math.nan, math.nan
    shares = finite[known] / finite[known].sum()
    values = variances[known].astype(np.float64)
    variance = float(shares @ values)
    count = len(values)
    error = math.nan
    if count > 1:
        error = math.sqrt(shares**2 @ (values - variance) ** 2 * count / (count - 1))
    return shares @ grads[known].astype(np.float64), variance, error
