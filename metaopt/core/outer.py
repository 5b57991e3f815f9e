"""The outer loop's one step: estimate the meta-gradient, update theta. Pure."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from metaopt.core import backoff
from metaopt.core.resize import particles_of
from metaopt.core.running import merge_observations, without_statistics
from metaopt.core.types import GradientEstimator, Key, MetaState, PyTree, Theta

Metrics = dict[str, jax.Array]


def init(
    estimator: GradientEstimator,
    tx: optax.GradientTransformation,
    theta: Theta,
    data: PyTree,
    key: Key,
) -> MetaState:
    """The state of a run before its first outer step.

    Args:
      estimator: the meta-gradient's estimator.
      tx: the outer optimizer, any optax transformation.
      theta: where to start.
      data: the problem's data.
      key: the run's key; everything random in the run follows from it.
    """
    init_key, run_key = jax.random.split(key)
    opt_state = tx.init(theta)
    state = MetaState(
        step=jnp.int32(0),
        theta=theta,
        opt_state=opt_state,
        estimator=estimator.init(theta, data, init_key),
        key=run_key,
        backoff=backoff.init(theta, opt_state),
    )
    return jax.tree.map(_strong, state)


def _strong(leaf: jax.Array) -> jax.Array:
    """The array with a type of its own: a Python number's weak one compiles every step twice."""
    return leaf if jnp.issubdtype(leaf.dtype, jax.dtypes.extended) else leaf.astype(leaf.dtype)


def make_step(
    estimator: GradientEstimator, tx: optax.GradientTransformation
) -> Callable[[MetaState, PyTree], tuple[MetaState, Metrics]]:
    """The pure outer step, ``(MetaState, data) -> (MetaState, metrics)``; jit it with donation.

    ``metrics`` is a flat dict of scalars: the estimator's own, ``loss`` (the meta-loss),
    ``grad_norm`` (global norm of the estimate, before the outer optimizer's clipping), and
    ``skipped``, ``backed_off`` and ``step_scale`` of `metaopt.core.backoff`: an estimate that
    cannot be used leaves theta and the outer optimizer as they were, while the particles advance or
    start anew, and after a few in a row both go back.

    Examples:
      >>> from metaopt.estimators import nres
      >>> from metaopt.tasks import PROBLEMS
      >>> problem = PROBLEMS["linear_recursion"]()
      >>> estimator = nres(problem, particles=4, horizon=6, window=2, sigma=0.1)
      >>> tx = optax.sgd(1e-2)
      >>> theta = problem.init_theta(jax.random.key(0))
      >>> state = init(estimator, tx, theta, (), jax.random.key(1))
      >>> state, metrics = jax.jit(make_step(estimator, tx))(state, ())
      >>> int(state.step), {"grad_norm", "loss", "skipped"} <= set(metrics)
      (1, True)
    """
    tx = optax.with_extra_args_support(tx)

    def step(state: MetaState, data: PyTree) -> tuple[MetaState, Metrics]:
        key = jax.random.fold_in(state.key, state.step)
        estimate, estimator_state = estimator.estimate(state.theta, state.estimator, data, key)
        # In theta's dtypes, also where a problem computes in float64.
        grad = jax.tree.map(lambda g, leaf: g.astype(leaf.dtype), estimate.grad, state.theta)
        grad = without_statistics(grad)
        grad_norm = optax.tree.norm(grad)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes counters and floats
            updates, opt_state = tx.update(grad, state.opt_state, state.theta, value=estimate.loss)
        scale = state.backoff.scale
        updates = jax.tree.map(lambda u: scale.astype(u.dtype) * u, without_statistics(updates))
        updated = optax.apply_updates(state.theta, updates)
        updated, estimator_state = merge_observations(updated, estimator_state)
        (theta, opt_state), remembered, outcome = backoff.step(
            state.backoff,
            (state.theta, state.opt_state),
            (updated, opt_state),
            usable=backoff.is_usable(estimate, grad_norm),
            healthy=backoff.is_healthy(estimate, particles_of(state)),
        )
        metrics = estimate.metrics | {"loss": estimate.loss, "grad_norm": grad_norm} | outcome
        state = MetaState(state.step + 1, theta, opt_state, estimator_state, state.key, remembered)
        return state, metrics

    return step


def make_steps(
    estimator: GradientEstimator, tx: optax.GradientTransformation, *, at_most: int
) -> Callable[[MetaState, PyTree, jax.Array], tuple[MetaState, Metrics]]:
    """Several outer steps in one dispatch: ``(MetaState, data, count) -> (MetaState, metrics)``.

    ``count`` is a traced int32 scalar up to ``at_most``, so that one compiled program serves every
    count and the outcome does not depend on how many steps go into a dispatch. Each of ``metrics``
    is ``[at_most]``, of which the first ``count`` are meant.

    Examples:
      >>> from metaopt.estimators import nres
      >>> from metaopt.tasks import PROBLEMS
      >>> problem = PROBLEMS["linear_recursion"]()
      >>> estimator = nres(problem, particles=4, horizon=6, window=2, sigma=0.1)
      >>> tx = optax.sgd(1e-2)
      >>> theta = problem.init_theta(jax.random.key(0))
      >>> state = init(estimator, tx, theta, (), jax.random.key(1))
      >>> state, metrics = jax.jit(make_steps(estimator, tx, at_most=8))(state, (), 3)
      >>> int(state.step), metrics["loss"].shape
      (3, (8,))
    """
    step = jax.jit(make_step(estimator, tx), inline=True)  # traced once for shapes and loop

    def steps(state: MetaState, data: PyTree, count: jax.Array) -> tuple[MetaState, Metrics]:
        shapes = jax.eval_shape(step, state, data)[1]
        rows = {dtype: jnp.zeros((at_most, len(names)), dtype) for dtype, names in _of(shapes)}

        def body(i, carry):
            state, rows = carry
            state, row = step(state, data)
            for dtype, names in _of(shapes):  # one write for all of a dtype
                new = jnp.stack([row[name] for name in names])
                rows[dtype] = jax.lax.dynamic_update_index_in_dim(rows[dtype], new, i, 0)
            return state, rows

        state, rows = jax.lax.fori_loop(0, count, body, (state, rows))
        columns = {
            n: rows[dtype][:, i] for dtype, names in _of(shapes) for i, n in enumerate(names)
        }
        return state, {name: columns[name] for name in shapes}

    return steps


def _of(metrics: Metrics) -> list[tuple[str, list[str]]]:
    """The metrics' names by dtype."""
    dtypes = sorted({str(value.dtype) for value in metrics.values()})
    return [(dtype, [n for n, v in metrics.items() if v.dtype == dtype]) for dtype in dtypes]
