"""Every learned optimizer can be meta-trained: by derivatives, and by evolution strategies."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small import made, specs, weekly_but

from metaopt import Task, estimators, inner, outer, unroll
from metaopt.learned_optimizers import LEARNED_OPTIMIZERS


def tiny_task():
    """Brings a small matrix to another: so small that even a small step shows in the loss."""
    target = 2e-3 * jax.random.normal(jax.random.key(9), (3, 2))
    return Task(
        data=lambda: (),
        init=lambda config, key: 1e-3 * jax.random.normal(key, (3, 2)),
        batch=lambda data, config, split, key: (),
        loss=lambda config, params, batch, key: 30 * jnp.square(params - target).sum(),
    )


@pytest.mark.parametrize("name", weekly_but(["velo", "celo2", "gated_muon"], LEARNED_OPTIMIZERS))
def test_derivatives_agree_with_differences(name):
    """Backpropagation through an episode of three steps against central differences."""
    optimizer, theta = made(name)
    problem = inner.training(tiny_task(), optimizer)
    # Away from the start, where some layers are zero, so that nothing hides.
    theta = jax.tree.map(
        lambda x: x + 0.1 * jnp.cos(jnp.arange(1.0, 1 + x.size)).reshape(x.shape), theta
    )
    if name == "celo":  # whose steps are tiny there
        theta["scheduler"]["network"]["step_size"]["bias"] += 8

    @jax.jit
    @jax.value_and_grad
    def mean_loss(theta):
        state = problem.init(theta, (), 3, jax.random.key(1))
        return unroll(problem, theta, state, (), 3)[1].mean()

    grad = mean_loss(theta)[1]
    norm = float(optax.tree.norm(grad))
    at = lambda h: float(mean_loss(optax.tree.add_scale(theta, h / norm, grad))[0])
    step = 1e-4 if name == "gated_muon" else 1e-3  # whose Newton-Schulz steps bend sharply
    assert (at(step) - at(-step)) / (2 * step) == pytest.approx(norm, rel=0.01)


MECHANISMS = {
    "pes": {"sigma": 0.01},
    "truncated_es": {"sigma": 0.01},
    "tbptt": {},
    "forward": {},
    "uoro": {},
}
"""One estimator of each kind: the others of the ES family are `gpes` too, and bptt is tbptt."""


@pytest.mark.weekly
@pytest.mark.parametrize("name", LEARNED_OPTIMIZERS)
@pytest.mark.parametrize("estimator", MECHANISMS)
def test_every_estimator_takes_it(name, estimator):
    """An outer step keeps shapes, dtypes and weak types, or jit compiles it twice. Only traced."""
    optimizer, theta = made(name)
    problem = inner.training(tiny_task(), optimizer)
    factory = estimators.ESTIMATORS[estimator]
    made_for = factory(problem, particles=2, horizon=4, window=2, **MECHANISMS[estimator])
    init = lambda theta: outer.init(made_for, optax.sgd(1.0), theta, (), jax.random.key(1))
    state = jax.eval_shape(init, theta)
    after, _ = jax.eval_shape(outer.make_step(made_for, optax.sgd(1.0)), state, ())
    sizes = lambda tree: [(x.shape, x.dtype, x.weak_type) for x in jax.tree.leaves(tree)]
    assert sizes(after) == sizes(state)


@pytest.mark.parametrize("name", weekly_but(["velo"], ["sgd", "gated_adam", "velo"]))
@pytest.mark.parametrize("estimator", MECHANISMS)
def test_every_estimator_takes_it_in_double_precision(name, estimator):
    """A program with ``jax_enable_x64``: theta and the outer optimizer stay float32."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        test_every_estimator_takes_it(name, estimator)


@pytest.mark.parametrize("name, factory", [("celo2", estimators.nres), ("nn_adam", estimators.pes)])
def test_an_outer_step_moves_theta(name, factory):
    optimizer, theta = made(name)
    estimator = factory(
        inner.training(tiny_task(), optimizer), particles=2, horizon=4, window=2, sigma=0.01
    )
    tx = optax.sgd(1.0)
    state = jax.jit(lambda key: outer.init(estimator, tx, theta, (), key))(jax.random.key(1))
    state, metrics = jax.jit(outer.make_step(estimator, tx))(state, ())
    assert int(metrics["skipped"]) == 0 and np.isfinite(metrics["loss"])
    assert specs(state.theta) == specs(theta)
    assert not all(map(np.array_equal, *map(jax.tree.leaves, (state.theta, theta))))
