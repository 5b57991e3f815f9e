"""One theta for several problems: the mean of their gradients, whatever their shapes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metaopt import Estimate, GradientEstimator, UserError, outer
from metaopt.config.recipes import RECIPES
from metaopt.estimators import nres
from metaopt.estimators.mixture import DECAY, mixture
from metaopt.parallel.sharding import particle_mesh
from metaopt.tasks import linear_recursion
from metaopt.training.experiment import build
from metaopt.training.loop import train

TINY = dataclasses.replace(
    RECIPES["tiny"],
    mixture=("digits_mlp hidden=[3] batch_size=4", "quadratic"),
    normalise_mixture=True,
    outer_steps=6,
    checkpoint_every=2,
)


def constant(*grads):
    """An estimator that gives these gradients in turn; its state counts."""

    def estimate(theta, state, data, key):
        grad = jnp.stack([jnp.float32(g) for g in grads])[state[0] % len(grads)]
        metrics = {"unroll_steps": jnp.int32(3)}
        return Estimate(grad * jnp.ones_like(theta), data, metrics), state + 1

    return GradientEstimator(lambda theta, data, key: jnp.zeros(2, jnp.int32), estimate)


def run(estimator, steps, data):
    theta, state, found = jnp.zeros(4), None, []
    state = estimator.init(theta, data, jax.random.key(0))
    for step in range(steps):
        estimate, state = estimator.estimate(theta, state, data, jax.random.key(step))
        found.append(estimate)
    return found


DATA = (jnp.float32(1.0), jnp.float32(5.0))


def test_the_mean_of_gradients_and_losses():
    (found,) = run(mixture({"a": constant(1.0), "b": constant(4.0)}), 1, DATA)
    np.testing.assert_allclose(found.grad, 2.5)
    assert found.loss == 3 and found.metrics["unroll_steps"] == 6 and found.metrics["b/loss"] == 5


def test_weights_are_of_the_mean_and_of_what_is_left_of_it():
    parts = {"a": constant(1.0), "b": constant(4.0, np.nan)}
    found = run(mixture(parts, weights=(3, 1)), 2, DATA)
    np.testing.assert_allclose(found[0].grad, 1.75)
    np.testing.assert_allclose(found[1].grad, 1.0)
    assert [float(one.loss) for one in found] == [2, 1]
    for weights in ((1,), (1, 0), (1, np.inf), (1, -2)):
        with pytest.raises(ValueError, match=r"weights must be 2 .* for each of a, b, got \["):
            mixture(parts, weights=weights)
    config = dataclasses.replace(TINY, mixture_weights=(1.0, 2.0))
    with pytest.raises(UserError, match="mixture_weights: weights must be 3 "):
        build(config)
    for lacking in ({"mixture_weights": (2.0,)}, {"normalise_mixture": True}):
        with pytest.raises(UserError, match="at least one task in --mixture"):
            build(dataclasses.replace(RECIPES["tiny"], **lacking))


def test_a_part_that_is_not_finite_is_left_out():
    found = run(mixture({"a": constant(1.0), "b": constant(np.nan)}), 1, DATA)[0]
    np.testing.assert_allclose(found.grad, 1.0)
    assert found.loss == 1
    found = run(mixture({"a": constant(np.nan)}), 1, DATA)[0]
    assert jnp.isnan(found.grad).all()


def test_normalised_by_the_running_root_mean_square_of_the_norm():
    """Of a vector of four equal entries g: the norm is 2 g."""
    found = run(mixture({"a": constant(1.0, 3.0), "b": constant(1e4)}, normalise=True), 2, DATA)
    np.testing.assert_allclose(found[0].grad, 0.5, rtol=1e-6)  # (2/2 + 2/2) / 2 over sqrt(4)
    square = ((1 - DECAY) * (DECAY * 4 + 36)) / (1 - DECAY**2)
    np.testing.assert_allclose(found[1].grad, (3 / np.sqrt(square) + 0.5) / 2, rtol=1e-6)


@pytest.mark.slow
def test_it_equals_its_parts_on_one_device_and_on_two():
    problem = linear_recursion()
    theta, key = problem.init_theta(jax.random.key(0)), jax.random.key(1)

    def found(estimator, data, key):
        one = lambda key: estimator.estimate(theta, estimator.init(theta, data, key), data, key)
        return jax.jit(one)(key)[0].grad

    def estimate(mesh):
        of = lambda horizon: nres(
            problem, particles=4, horizon=horizon, window=2, sigma=0.1, mesh=mesh
        )
        return found(mixture({"short": of(4), "long": of(8)}), ((), ()), key)

    def alone(i, horizon):
        estimator = nres(problem, particles=4, horizon=horizon, window=2, sigma=0.1)
        return found(estimator, (), jax.random.fold_in(key, i))

    expected = optax.tree.scale(0.5, optax.tree.add(alone(0, 4), alone(1, 8)))
    for mesh in (None, particle_mesh(2)):
        near = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6)
        jax.tree.map(near, estimate(mesh), expected)


@pytest.mark.slow
def test_a_run_on_a_mixture_is_gone_on_with_to_the_bit(tmp_path):
    whole = train(TINY, tmp_path / "whole")
    cut = dataclasses.replace(TINY, outer_steps=4)
    assert int(train(cut, tmp_path / "cut").state.step) == 4
    final = train(TINY, tmp_path / "cut")
    same = lambda a, b: np.testing.assert_array_equal(a, b)
    jax.tree.map(same, final.theta, whole.theta)
    jax.tree.map(same, final.state.opt_state, whole.state.opt_state)
    more = dataclasses.replace(TINY, outer_steps=8)
    more = dataclasses.replace(more, estimator=dataclasses.replace(TINY.estimator, particles=6))
    parts = train(more, tmp_path / "cut", on_notice=lambda text: None).state.estimator
    assert [len(leaf) for leaf in jax.tree.leaves(parts)] == [6] * len(jax.tree.leaves(parts))
    lines = (tmp_path / "cut" / "metrics.jsonl").read_text()
    assert "digits_mlp/loss" in lines and "quadratic_2/loss" in lines


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"mixture": ()}, "needs problem=training and at least one task"),
        ({"mixture": ("digts_mlp",)}, "did you mean 'digits_mlp'"),
        ({"mixture": ("",)}, "unknown task"),
        ({"mixture": ("quadratic size=x",)}, "quadratic"),
    ],
)
def test_a_bad_mixture_is_refused(changes, said):
    with pytest.raises(UserError, match=said):
        build(dataclasses.replace(TINY, **changes))


def test_an_outer_step_takes_it():
    problem = linear_recursion()
    both = mixture({"a": nres(problem, particles=2, horizon=4, window=2, sigma=0.1)})
    tx = optax.sgd(0.1)
    theta = problem.init_theta(jax.random.key(0))
    state = outer.init(both, tx, theta, ((),), jax.random.key(1))
    after, metrics = jax.jit(outer.make_step(both, tx))(state, ((),))
    assert int(after.step) == 1 and not metrics["skipped"]
