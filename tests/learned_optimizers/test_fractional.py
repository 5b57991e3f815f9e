"""Fractional gradient descent against the iteration as written, in float64."""

from math import gamma

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metaopt.learned_optimizers import fractional


def test_it_is_the_iteration_as_written():
    """The order of the start alone, and one that the network moves, on a curved loss."""
    rng = np.random.default_rng(0)
    optimizer = fractional(learning_rate=0.3, order=0.6, hidden=(3,))
    theta = optimizer.init(jax.random.key(0))
    theta["network"] = jax.tree.map(lambda x: x + 0.5 * jnp.cos(x + 1), theta["network"])
    theta["network"]["bias_1"] -= 0.5
    tx = optimizer.optimizer(theta)
    params = {"w": jnp.asarray(rng.normal(size=(3, 2)), jnp.float32)}
    state = tx.init(params)

    net = {name: np.asarray(leaf, np.float64) for name, leaf in theta["network"].items()}
    p = np.asarray(params["w"], np.float64)
    c, m, orders = p.copy(), np.zeros_like(p), []
    for _ in range(6):
        grads = jax.tree.map(jnp.sin, params)
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)

        g = np.sin(p)
        m = 0.9 * m + 0.1 * g
        of_g, of_p = (1 / np.sqrt(np.square(x).mean()) for x in (g, p))
        soft = lambda x: x / (1 + np.abs(x))
        s, t, u = soft(of_g * g), soft(of_g * m), soft(10 * of_p * (p - c))
        x = np.stack([np.abs(s), np.abs(u), s * t, s * u], -1)
        x = np.maximum(x @ net["kernel_0"] / 2 + net["bias_0"], 0)
        x = (x @ net["kernel_1"] / np.sqrt(3) + net["bias_1"])[..., 0]
        a = np.clip(0.6 + x, 0.05, 1)
        orders.append(a)
        step = 0.3 * g * (np.abs(p - c) + 1e-3) ** (1 - a) / np.vectorize(gamma)(2 - a)
        c = 0.9 * c + 0.1 * p
        p = p - step
        np.testing.assert_allclose(params["w"], p, rtol=1e-4)
    assert np.ptp(orders) > 0.05 and np.max(orders) < 1


def test_of_order_one_it_is_gradient_descent_to_the_bit():
    """Also where the network asks for more than 1."""
    optimizer = fractional(learning_rate=0.25, order=1.0)
    theta = optimizer.init(jax.random.key(0))
    theta["network"]["bias_1"] += 0.7
    tx, params = optimizer.optimizer(theta), jnp.array([1.5, -2.0])
    state = tx.init(params)
    for _ in range(3):
        updates, state = tx.update(jnp.cos(params), state, params)
        rate = jnp.exp(theta["log_lr"])
        np.testing.assert_array_equal(updates, -rate * jnp.cos(params))
        params = params + updates


def test_on_a_quadratic_the_step_is_the_caputo_derivative_up_to_a_factor():
    """D^a x^2 / 2 = x^(2 - a) / Gamma(3 - a), from 0; Gamma(3 - a) = (2 - a) Gamma(2 - a)."""
    from metaopt.learned_optimizers.fractional import fractional_step

    x = jnp.array([0.5, 2.0, 7.0])
    for a in (0.1, 0.5, 0.9):
        caputo = np.asarray(x, np.float64) ** (2 - a) / gamma(3 - a)
        np.testing.assert_allclose(fractional_step(x, x, a, 0.0), (2 - a) * caputo, rtol=1e-5)


@pytest.mark.parametrize("order", [0.0, 0.01, 1.5])
def test_an_order_out_of_range_is_refused(order):
    with pytest.raises(ValueError, match="order must be"):
        fractional(order=order)
