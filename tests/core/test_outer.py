"""The pure outer step, alone and several in one dispatch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metaopt import Estimate, GradientEstimator, outer, unroll
from metaopt.estimators import nres
from metaopt.tasks import linear_recursion


def start(tx):
    problem = linear_recursion(loss="quadratic")
    estimator = nres(problem, particles=4, horizon=6, window=2, sigma=0.1)
    theta = problem.init_theta(jax.random.key(0))
    return estimator, outer.init(estimator, tx, theta, (), jax.random.key(1))


def test_the_second_step_does_not_retrace():
    tx = optax.adam(1e-2)
    estimator, state = start(tx)
    traces = 0

    def counted(state, data):
        nonlocal traces
        traces += 1
        return outer.make_step(estimator, tx)(state, data)

    step = jax.jit(counted, donate_argnums=0)
    for _ in range(3):
        state, _ = step(state, ())
    assert traces == 1


def test_how_many_steps_go_into_a_dispatch_changes_no_bit():
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-2))
    estimator, state = start(tx)
    steps = jax.jit(outer.make_steps(estimator, tx, at_most=8))

    def run(counts):
        ours, losses = state, []
        for count in counts:
            ours, metrics = steps(ours, (), jnp.int32(count))
            losses += metrics["loss"][:count].tolist()
        return ours, losses

    (once, losses), (often, same) = run([8]), run([1, 1, 4, 2])
    assert losses == same
    assert int(once.step) == 8
    data = lambda tree: [
        jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        for leaf in jax.tree.leaves(tree)
    ]
    for a, b in zip(data(once), data(often), strict=True):
        np.testing.assert_array_equal(a, b)


def test_meta_training_finds_the_optimum():
    """The objective is quadratic in theta, so one Newton step gives its minimum."""
    tx = optax.adam(optax.cosine_decay_schedule(0.1, 400))
    estimator, state = start(tx)
    problem = linear_recursion(loss="quadratic")

    def objective(theta):
        return unroll(problem, theta, problem.init(theta, (), 6, None), (), 6)[1].mean()

    begin = state.theta
    gradient, hessian = jax.grad(objective)(begin), jax.hessian(objective)(begin)
    least = objective(begin - jnp.linalg.pinv(hessian) @ gradient)
    state, _ = jax.jit(outer.make_steps(estimator, tx, at_most=400))(state, (), 400)
    assert objective(state.theta) - least < 0.02 * (objective(begin) - least)


def test_a_nonfinite_estimate_is_skipped_and_said_so():
    def estimate(theta, state, data, key):
        bad = Estimate(jnp.full_like(theta, jnp.nan), jnp.float32(jnp.nan), {})
        good = Estimate(jnp.ones_like(theta), jnp.float32(1.0), {})
        pick = lambda a, b: jnp.where(state[0] % 2 == 0, a, b)
        return jax.tree.map(pick, bad, good), state + 1

    estimator = GradientEstimator(lambda theta, data, key: jnp.zeros(1, jnp.int32), estimate)
    tx = optax.adam(0.1)
    before = outer.init(estimator, tx, jnp.zeros(3), (), jax.random.key(0))
    step = jax.jit(outer.make_step(estimator, tx))
    skipped, metrics = step(before, ())
    assert int(metrics["skipped"]) == 1
    np.testing.assert_array_equal(skipped.theta, before.theta)
    jax.tree.map(np.testing.assert_array_equal, skipped.opt_state, before.opt_state)
    after, metrics = step(skipped, ())
    assert int(metrics["skipped"]) == 0
    assert np.isfinite(after.theta).all() and (after.theta != 0).all()
