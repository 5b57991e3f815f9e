"""`gated_muon`: what it starts as, in float64, and what no theta can change."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metaopt.learned_optimizers import gated_muon
from metaopt.learned_optimizers.newton_schulz import COEFFICIENTS

SHAPES = {"w": (6, 4), "conv": (2, 3, 4, 8), "b": (5,)}
STEPS = 40


def gradients(t):
    rng = np.random.default_rng(t)
    return {name: rng.normal(size=shape) for name, shape in SHAPES.items()}


def muon(matrices):
    """Muon's steps by the book: momentum of 0.95, Nesterov, five Newton-Schulz steps."""
    momentum, steps = np.zeros_like(matrices[0]), []
    for g in matrices:
        momentum = 0.95 * momentum + 0.05 * g
        x = 0.95 * momentum + 0.05 * g
        x = x if len(x) <= x.shape[1] else x.T
        x = x / np.linalg.norm(x)
        a, b, c = COEFFICIENTS
        for _ in range(5):
            gram = x @ x.T
            x = a * x + (b * gram + c * gram @ gram) @ x
        steps.append(x if x.shape == momentum.shape else x.T)
    return steps


def updates_of(optimizer, theta, count, scale=1.0, num_steps=STEPS):
    tx = optimizer.optimizer(theta, num_steps)
    params = {name: jnp.ones(shape) for name, shape in SHAPES.items()}
    state, every = tx.init(params), []
    for t in range(count):
        grads = jax.tree.map(lambda g: jnp.asarray(scale * g, jnp.float32), gradients(t))
        updates, state = tx.update(grads, state, params)
        every.append(updates)
    return every


def test_it_starts_as_muon_and_adam_with_a_warm_up_and_a_cosine():
    optimizer = gated_muon(start_rate=0.02, weight_decay=1e-3)
    theta = optimizer.init(jax.random.key(0))
    found = updates_of(optimizer, theta, 6)
    adam = optax.scale_by_adam(0.9, 0.99)
    state = adam.init(jnp.zeros(5))
    for name, rows, columns in (("w", 6, 4), ("conv", 24, 8)):
        steps = muon([gradients(t)[name].reshape(rows, columns) for t in range(6)])
        for t, step in enumerate(steps):
            done = (t + 0.5) / STEPS
            rate = 0.02 * min(done / 0.05, (1 + np.cos(np.pi * (done - 0.05) / 0.95)) / 2)
            size = 0.2 * np.sqrt(64 / rows) / np.sqrt(np.mean(step**2))
            expected = -rate * (size * step + 1e-3)
            np.testing.assert_allclose(
                found[t][name].reshape(rows, columns), expected, rtol=2e-3, atol=1e-6
            )
    for t in range(6):
        with jax.numpy_dtype_promotion("standard"):
            step, state = adam.update(jnp.asarray(gradients(t)["b"], jnp.float32), state)
        done = (t + 0.5) / STEPS
        rate = 0.02 * min(done / 0.05, (1 + np.cos(np.pi * (done - 0.05) / 0.95)) / 2)
        np.testing.assert_allclose(found[t]["b"], -rate * (step + 1e-3), rtol=1e-4)


def wild(theta):
    """Gates, exponents and decays that meta-training could have gone to."""
    theta = jax.tree.map(lambda leaf: leaf + 0.3, theta)
    theta["rate"]["log_weight_decay"] = jnp.float32(-100.0)
    return theta


def test_whatever_theta_is_other_units_and_no_gradient_change_nothing():
    optimizer = gated_muon()
    theta = wild(optimizer.init(jax.random.key(0)))
    for one, other in zip(
        updates_of(optimizer, theta, 4), updates_of(optimizer, theta, 4, 1e-3), strict=True
    ):
        np.testing.assert_allclose(one["w"], other["w"], rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(one["conv"], other["conv"], rtol=1e-3, atol=1e-6)
    for updates in updates_of(optimizer, theta, 2, 0.0):
        assert all((leaf == 0).all() for leaf in jax.tree.leaves(updates))


def test_whatever_theta_is_a_matrix_moves_by_its_shape_and_in_the_span_of_its_gradients():
    optimizer = gated_muon(learning_rate=0.5)
    theta = wild(optimizer.init(jax.random.key(0)))
    tx, params = optimizer.optimizer(theta), {"w": jnp.zeros((6, 4))}
    state, left = tx.init(params), np.array([1.0, -1, 0, 0, 0, 0])
    for t in range(4):
        g = gradients(t)["w"]
        g[1] = g[0]  # so that no gradient has a part along ``left``
        updates, state = tx.update({"w": jnp.asarray(g, jnp.float32)}, state, params)
        own = theta["matrix"]
        size = 0.1 * (6 / 64) ** own["fan_in_exponent"] * (4 / 64) ** own["fan_out_exponent"]
        assert jnp.sqrt(jnp.mean(updates["w"] ** 2)) == pytest.approx(float(size), rel=1e-4)
        assert np.abs(left @ np.asarray(updates["w"])).max() < 1e-4 * np.abs(updates["w"]).max()


def test_a_rate_of_the_users_takes_the_place_of_thetas():
    theta = gated_muon().init(jax.random.key(0))
    half = gated_muon(learning_rate=optax.constant_schedule(0.25)).optimizer(theta)
    whole = gated_muon(learning_rate=0.5).optimizer(theta)
    params = {"w": jnp.ones((3, 2))}
    one, _ = half.update(params, half.init(params), params)
    two, _ = whole.update(params, whole.init(params), params)
    np.testing.assert_allclose(2 * one["w"], two["w"], rtol=1e-6)
    with pytest.raises(
        ValueError, match=r"learning_rate must be a finite number of at least 0, got -1"
    ):
        gated_muon(learning_rate=-1)
    with pytest.raises(ValueError, match="needs to know how many steps"):
        gated_muon().optimizer(theta)
