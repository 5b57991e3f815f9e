"""The paper's neighbours against fixed points, closed forms and conserved quantities."""

import importlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small import made_or_skipped

from metaopt import RunningStatistics, UserError, outer, unroll
from metaopt.estimators import BPTT, ESTIMATORS, NRES, es_single, forward, nres, pes
from metaopt.learned_optimizers import inverse_time_sgdm
from metaopt.parallel.sharding import particle_mesh
from metaopt.tasks import copy_task as copying
from metaopt.tasks import (
    datasets,
    influence_balancing,
    morris_lecar_integration,
    morris_lecar_memory,
    neural_ode_robertson,
    toy_regression,
    tune_hyperparameters,
)

pytestmark = pytest.mark.slow


def run(problem, theta, steps, data=(), seed=0):
    state = problem.init(theta, data, steps, jax.random.key(seed))
    return unroll(problem, theta, state, data, steps)


def test_the_toy_is_descent_on_its_height_with_a_linear_schedule():
    """In float64, the gradient by central differences."""
    height = lambda x: (
        np.sqrt(x[0] ** 2 + 5) - np.sqrt(5)
        + np.sin(x[1]) ** 2 * np.exp(-5 * x[0] ** 2) + abs(x[1] - 100) / 4
    )  # fmt: skip
    theta, x, expected = np.log([0.5, 0.1]), np.ones(2), []
    for t in range(8):
        slope = [(height(x + h) - height(x - h)) / 2e-6 for h in 1e-6 * np.eye(2)]
        x = x - ((1 - t / 8) * 0.5 + t / 8 * 0.1) * np.array(slope)
        expected.append(height(x))
    _, losses = run(toy_regression(), jnp.asarray(theta, jnp.float32), 8)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)


def test_the_rate_falls_by_the_power_of_time():
    optimizer = inverse_time_sgdm(learning_rate=0.5, exponent=2.0, time_scale=10.0, momentum=0.5)
    tx = optimizer.optimizer(optimizer.init(jax.random.key(0)))
    params, velocity = jnp.array([1.0]), 0.0
    state = tx.init(params)
    for t in range(5):
        updates, state = tx.update(jnp.array([float(t)]), state, params)
        velocity = 0.5 * velocity + t
        np.testing.assert_allclose(updates, [-0.5 * velocity / (1 + t / 10) ** 2], rtol=1e-5)


@pytest.mark.parametrize("pairs, converges", [(es_single, True), (pes, False)])
def test_two_pairs_are_enough_for_influence_balancing_where_the_noise_is_kept(pairs, converges):
    """ES-Single's claim (arXiv 2304.11153): PES sums its noises up and needs hundreds of pairs."""
    problem, tx = influence_balancing(), optax.sgd(1e-3)
    in_step = {} if converges else {"stagger": "none"}
    estimator = pairs(problem, particles=2, horizon=10_000, window=1, sigma=0.1, **in_step)
    theta = problem.init_theta(jax.random.key(0))
    state = outer.init(estimator, tx, theta, (), jax.random.key(1))
    theta = outer.make_steps(estimator, tx, at_most=5000)(state, (), 5000)[0].theta
    assert (abs(theta + 1 / 6) < 0.01) == converges


def test_a_direction_that_is_kept_is_es_single_without_smoothing():
    problem = toy_regression()
    theta = problem.init_theta(jax.random.key(0))
    shape = {"particles": 4, "horizon": 20, "window": 5}
    grads = []
    for estimator in (
        forward(problem, stagger="none", **shape), es_single(problem, sigma=1e-2, **shape)
    ):  # fmt: skip
        state = estimator.init(theta, (), jax.random.key(1))
        for i in range(3):
            estimate, state = estimator.estimate(theta, state, (), jax.random.key(i))
        grads.append(estimate.grad)
    np.testing.assert_allclose(grads[0], grads[1], rtol=0.05)


def test_hyperparameters_train_the_network_that_widths_cut_out():
    """Equal rates: optax's momentum on the small network, units of the others left as they were."""
    problem = tune_hyperparameters(width=10, batch_size=8)
    data = jax.device_put(problem.data())
    theta = {
        "log_rates": jnp.full((6, 2), jnp.log(0.1)),
        "momenta": jnp.full((6, 2), 0.0),
        "widths": jax.scipy.special.logit(jnp.array([0.2, 0.5, 0.8, 0.4, 0.6])),
    }
    start = problem.init(theta, data, 3, jax.random.key(0))
    end, losses = unroll(problem, theta, start, data, 3)
    assert np.isfinite(losses).all()
    used, inputs = (2, 5, 8, 4, 6, 10), (64, 2, 5, 8, 4, 6)
    cut = lambda params: [
        {"kernel": layer["kernel"][:m, :n], "bias": layer["bias"][:n]}
        for layer, m, n in zip(params, inputs, used, strict=True)
    ]
    for i, (m, n) in enumerate(zip(inputs, used, strict=True)):
        changed = np.asarray(end.params[i]["kernel"] != start.params[i]["kernel"])
        assert not changed[m:].any() and not changed[:, n:].any()

    def loss(params, batch):
        x = batch["image"].reshape(8, 64).astype(jnp.float32) / 16
        for layer in params[:-1]:
            x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
        x = x @ params[-1]["kernel"] + params[-1]["bias"]
        return optax.softmax_cross_entropy_with_integer_labels(x, batch["label"]).mean()

    small, tx = cut(start.params), optax.sgd(0.1, momentum=0.5)
    state = tx.init(small)
    for t in range(3):
        key = jax.random.split(jax.random.fold_in(start.key, t))[0]
        grads = jax.grad(loss)(small, datasets.random_rows(data["train"], 8, key))
        updates, state = tx.update(grads, state)
        small = optax.apply_updates(small, updates)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), cut(end.params), small)
    assert any(
        (a != b).any()
        for a, b in zip(*map(jax.tree.leaves, (small, cut(start.params))), strict=True)
    )


@pytest.mark.parametrize("solved", [100.0, 0.15])
def test_strings_grow_by_one_after_so_many_were_copied(solved, monkeypatch):
    """Where every string is taken for solved; where none is, they stay: these weights guess."""
    module = importlib.import_module("metaopt.tasks.copy_task")
    monkeypatch.setattr(module, "SOLVED", solved)
    problem = copying(units=3, strings=8)
    estimator = nres(problem, particles=4, horizon=60, window=1, sigma=0.1, stagger="none")
    tx = optax.sgd(0.0)
    theta = problem.init_theta(jax.random.key(0))
    state = outer.init(estimator, tx, theta, (), jax.random.key(1))
    step, lengths = outer.make_step(estimator, tx), []
    for _ in range(11):
        state, _ = step(state, ())
        lengths.append(int(problem.test_loss(state.theta, (), jax.random.key(0))))
    # Eight halves end a string of length 1 in the fourth step; the next has length 1 still where
    # it begins before the count is merged.
    if solved < 1:
        assert set(lengths) == {1}
        return
    assert lengths[:4] == [1, 1, 1, 2] and lengths == sorted(lengths) and lengths[-1] <= 3


def test_a_guess_of_one_of_four_outputs_costs_two_bits():
    """Zero weights say nothing of any step."""
    problem = copying(units=2)
    theta = jax.tree.map(jnp.zeros_like, problem.init_theta(jax.random.key(0)))
    theta["solved"] = RunningStatistics.fresh(())
    _, losses = run(problem, theta, 12)
    np.testing.assert_allclose(losses, 2.0, rtol=1e-6)


def voltages(current, steps=16_000):
    from metaopt.tasks.morris_lecar import DT, neuron

    def euler(state, _):
        v, w = state
        dv, dw = neuron(v, w, current)
        return (v + DT * dv, w + DT * dw), v

    return np.asarray(jax.lax.scan(euler, (jnp.float32(-60), jnp.float32(0)), None, steps)[1])


def test_a_neuron_fires_above_the_known_threshold_and_rests_below():
    """A saddle-node on an invariant circle at 39.96 uA/cm2 (Ermentrout and Terman 2010)."""
    assert voltages(39.5).max() < -25
    assert voltages(40.4).max() > 20


def test_a_neuron_at_rest_is_at_a_fixed_point():
    from metaopt.tasks.morris_lecar import neuron

    v = voltages(30.0)[-1]
    w = (1 + np.tanh((v - 12.0) / 17.4)) / 2
    dv, dw = neuron(jnp.float32(v), jnp.float32(w), 30.0)
    assert abs(dv) < 1e-3 and abs(dw) < 1e-4


@pytest.mark.parametrize("factory", [morris_lecar_integration, morris_lecar_memory])
def test_an_answer_is_asked_for_at_the_end_alone(factory):
    """Without an output the loss is log 2 from then on; signs are as often -1 as 1."""
    problem = factory(neurons=3, trials=64)
    theta = problem.init_theta(jax.random.key(0)) | {"output": jnp.zeros(3)}
    state, losses = run(problem, theta, 20)
    np.testing.assert_allclose(losses, [0.0] * 16 + [np.log(2)] * 4, rtol=1e-6)
    np.testing.assert_allclose(
        problem.test_loss(theta, (), jax.random.key(1)), np.log(2), rtol=1e-4
    )
    assert abs(state.sign.mean()) < 0.3 and set(np.unique(state.sign)) == {-1.0, 1.0}


def test_the_sum_of_the_reactants_is_kept_and_the_path_is_robertsons():
    problem = made_or_skipped(neural_ode_robertson)
    data = problem.data()
    # The value at t = 40 that codes for stiff systems are checked by (Hairer and Wanner).
    part = (np.log(40) - np.log(1e-5)) / np.log(1e10)
    at_40 = [np.interp(part, data["part"], column) for column in data["y"].T]
    np.testing.assert_allclose(at_40, [0.715827, 9.1855e-6, 0.284164], rtol=1e-3)
    theta = problem.init_theta(jax.random.key(0))
    theta = jax.tree.map(lambda leaf: leaf + 0.05 * jnp.cos(leaf), theta)
    state, losses = jax.jit(lambda: run(problem, theta, 8, data))()
    assert abs(state.y.sum() - 1) < 1e-4
    assert (losses < 1).all() and losses[0] < losses[-1]


@pytest.mark.parametrize("options", [NRES(particles=2, horizon=4, window=2), BPTT(particles=2)])
def test_a_stiff_ode_is_trained_on_one_device_and_refused_on_several(options):
    """As a run does it, with a mesh: diffrax does not work within jax.shard_map."""
    problem = made_or_skipped(neural_ode_robertson)
    data, theta = problem.data(), problem.init_theta(jax.random.key(0))

    def shapes(devices):
        arguments = options.arguments() | {"mesh": particle_mesh(devices)}
        estimator = ESTIMATORS[options.name](problem, **arguments)
        state = jax.eval_shape(estimator.init, theta, data, jax.random.key(1))
        return jax.eval_shape(estimator.estimate, theta, state, data, jax.random.key(2))[0]

    assert jax.tree.map(jnp.shape, shapes(1).grad) == jax.tree.map(jnp.shape, theta)
    with pytest.raises(UserError, match="runs on one device"):
        shapes(2)
