"""Stein variational descent: a population of thetas, each with particles of its own.

    phi_i = 1/n sum_j [ -k(theta_j, theta_i) g_j + alpha grad_{theta_j} k(theta_j, theta_i) ]
    k(x, y) = exp(-|x - y|^2 / (2 h^2))

The first term follows the meta-gradients g_j of all thetas that are near, the second drives thetas
apart, so that they spread over the low regions of the meta-loss and do not meet in one (Liu and
Wang 2016, arXiv 1608.04471; with gradients of evolution strategies arXiv 2410.10390). A population
is a theta like any other, stacked, and this an estimator, whose gradient -phi any outer optimizer
takes.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from metaopt.core.running import is_statistics
from metaopt.core.types import Estimate, GradientEstimator, Key, PyTree, Theta, UnrolledProblem

APART = 1e-3
"""The kernel sees thetas so many h off, at random: two on one point could not part otherwise."""


class SteinState(NamedTuple):
    """Axis 0 of every leaf is the particle.

    Attributes:
      estimators: the estimator's state, the thetas as axis 1.
      updates: int32 ``[N]``, estimates so far; the same for all.
    """

    estimators: PyTree
    updates: jax.Array


def stein(
    estimator: GradientEstimator,
    thetas: int,
    *,
    bandwidth: float | None = None,
    repulsion: float = 1.0,
    own_gradients: bool = False,
    anneal_steps: int | None = None,
) -> GradientEstimator:
    """The estimator for ``thetas`` thetas at once: leaves ``[n, ...]``, see `population_of`.

    With one theta its gradient is the estimator's own, to the bit.

    Args:
      estimator: of one theta; each theta has all of its particles, and all advance in one program.
      thetas: n.
      bandwidth: h; by default that of the median rule, h^2 = med^2 / (2 log(n + 1)), where med is
        the median of the distances between two thetas.
      repulsion: alpha.
      own_gradients: let every theta follow its own gradient alone, phi_i = -g_i + 1/n sum_j ...
      anneal_steps: T: multiply the repulsion by max(log(T / t), 1) in update t, counted from 1.

    Returns:
      A `GradientEstimator`. The loss is the mean over thetas, and so are the metrics, of which
      counts are sums; ``best_loss`` and ``median_distance`` are added. A gradient that is not
      finite counts as 0 while another is finite.

    Raises:
      ValueError: for fewer than one theta, or a number that is not above 0; at the start for a
        theta of another number of them.

    Examples:
      >>> from metaopt.estimators import nres
      >>> from metaopt.tasks import PROBLEMS
      >>> problem = PROBLEMS["linear_recursion"]()
      >>> one = nres(problem, particles=2, horizon=4, window=2, sigma=0.1)
      >>> three, thetas = stein(one, 3), population_of(problem, 3).init_theta(jax.random.key(0))
      >>> state = three.init(thetas, (), jax.random.key(1))
      >>> estimate, state = three.estimate(thetas, state, (), jax.random.key(2))
      >>> estimate.grad.shape, int(estimate.metrics["unroll_steps"])
      ((3, 5), 24)
    """
    if not isinstance(thetas, int) or thetas < 1:
        raise ValueError(f"thetas must be an integer of at least 1, got {thetas!r}.")
    for name, value in (
        ("bandwidth", bandwidth), ("repulsion", repulsion), ("anneal_steps", anneal_steps)
    ):  # fmt: skip
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name} must be a finite number above 0, got {value!r}.")
    each = lambda f: _for_each(f, thetas)

    def init(theta: Theta, data: PyTree, key: Key) -> SteinState:
        if any(is_statistics(node) for node in jax.tree.leaves(theta, is_leaf=is_statistics)):
            raise ValueError("a population of thetas cannot share RunningStatistics.")
        if any(leaf.shape[:1] != (thetas,) for leaf in jax.tree.leaves(theta)):
            raise ValueError(
                f"every array of theta must have {thetas} thetas as axis 0, got "
                f"{jax.tree.map(jnp.shape, theta)}: population_of(problem, {thetas}) starts them."
            )
        state = each(lambda theta, _, key: (None, estimator.init(theta, data, key)))(
            theta, None, key
        )[1]
        return SteinState(state, jnp.zeros(len(jax.tree.leaves(state)[0]), jnp.int32))

    def estimate(theta: Theta, state: SteinState, data: PyTree, key: Key):
        one = lambda theta, state, key: estimator.estimate(theta, state, data, key)
        said, inner = each(one)(theta, state.estimators, key)
        updates = state.updates + 1
        after = SteinState(inner, updates)
        summary = {
            name: values.sum() if values.dtype == jnp.int32 else values.mean()
            for name, values in said.metrics.items()
        }
        summary["best_loss"] = said.loss.min()
        if thetas == 1:
            return Estimate(said.grad, said.loss[0], summary), after
        weight = jnp.float32(repulsion)
        if anneal_steps is not None:
            weight *= jnp.maximum(jnp.log(anneal_steps / updates[0].astype(jnp.float32)), 1.0)
        row = jax.vmap(lambda tree: ravel_pytree(tree)[0])
        unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], theta))[1]
        x, g = row(theta), row(said.grad)
        noise = jax.random.normal(jax.random.fold_in(key, thetas), x.shape, x.dtype)
        phi, distance = direction(x, g, noise, bandwidth, weight, own_gradients)
        summary["median_distance"] = distance
        return Estimate(jax.vmap(unravel)(-phi), said.loss.mean(), summary), after

    resized = estimator.resize

    def resize(theta: Theta, state: SteinState, data: PyTree, key: Key) -> SteinState:
        assert resized is not None
        change = lambda theta, state, key: (None, resized(theta, state, data, key))
        inner = each(change)(theta, state.estimators, key)[1]
        particles = len(jax.tree.leaves(inner)[0])
        return SteinState(inner, jnp.broadcast_to(state.updates[0], particles))

    return GradientEstimator(init, estimate, resize if resized else None)


def direction(
    x: jax.Array,
    g: jax.Array,
    noise: jax.Array,
    bandwidth: float | None,
    repulsion: jax.Array | float,
    own_gradients: bool,
) -> tuple[jax.Array, jax.Array]:
    """phi ``[n, d]``, downhill, and the median distance.

    Args:
      x, g: thetas and their gradients ``[n, d]``.
      noise: standard normal, ``[n, d]``, that parts thetas on one point.
      bandwidth, repulsion, own_gradients: as of `stein`.
    """
    n, d = x.shape
    finite = jnp.isfinite(g).all(axis=1, keepdims=True)
    g = jnp.where(finite | ~finite.any(), g, 0.0)
    apart = x[None] - x[:, None]  # [j, i]: theta_i - theta_j
    between = jnp.sqrt(jnp.square(apart).sum(axis=-1))
    median = jnp.median(between[jnp.triu_indices(n, 1)])
    h = jnp.float32(bandwidth or 0.0)
    if bandwidth is None:
        h = jnp.where(median > 0, median / math.sqrt(2 * math.log(n + 1)), 1.0)
    seen = x + APART * h * noise / math.sqrt(d)
    apart = seen[None] - seen[:, None]
    k = jnp.exp(-jnp.square(apart).sum(axis=-1) / (2 * h**2))
    followed = g if own_gradients else k.T @ g / n
    away = (k[..., None] * apart).sum(axis=0) / (n * h**2)
    return repulsion * away - followed, median


def population_of(problem: UnrolledProblem, thetas: int) -> UnrolledProblem:
    """The problem of so many thetas, each from a start of its own: for `metaopt.train`.

    A state is one for each, the loss their mean, and the test loss the best one's.

    Raises:
      ValueError: for fewer than one theta.

    Examples:
      >>> from metaopt.tasks import PROBLEMS
      >>> population_of(PROBLEMS["lorenz"](), 4).init_theta(jax.random.key(0)).shape
      (4, 2)
    """
    if not isinstance(thetas, int) or thetas < 1:
        raise ValueError(f"thetas must be an integer of at least 1, got {thetas!r}.")
    done, tested = problem.done, problem.test_loss
    best = jnp.max if problem.test_metric.higher_is_better else jnp.min

    def init(theta, data, horizon, key):
        return jax.vmap(lambda one: problem.init(one, data, horizon, key))(theta)

    def step(theta, state, data):
        state, loss = jax.vmap(lambda one, inner: problem.step(one, inner, data))(theta, state)
        return state, loss.mean()

    def test_loss(theta, data, key):
        assert tested is not None
        return best(jax.lax.map(lambda one: tested(one, data, key), theta))

    return problem._replace(
        init=init,
        step=step,
        init_theta=lambda key: jax.vmap(problem.init_theta)(jax.random.split(key, thetas)),
        test_loss=tested and test_loss,
        done=done and (lambda state: jax.vmap(done)(state).all()),
        render=None,
    )


def _for_each(f, thetas: int):
    """``f(theta, state, key) -> (said, state)`` for all; states have the thetas as axis 1.

    One alone is not batched: the same numbers as without a population, to the bit.
    """

    def of_all(theta, state, key):
        if thetas > 1:
            keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(thetas))
            return jax.vmap(f, in_axes=(0, 1, 0), out_axes=(0, 1))(theta, state, keys)
        first = lambda tree, axis: jax.tree.map(lambda leaf: leaf.take(0, axis), tree)
        said, state = f(first(theta, 0), first(state, 1), key)
        expand = lambda tree, axis: jax.tree.map(lambda leaf: jnp.expand_dims(leaf, axis), tree)
        return expand(said, 0), expand(state, 1)

    return of_all
