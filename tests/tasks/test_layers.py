"""The tasks' own layers against Flax's and against their definitions."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaopt.tasks.layers import BatchNorm, Conv


@pytest.mark.parametrize(
    "shape, taps, strides",
    [
        ((7,), (5,), 2),
        ((8,), (3,), 1),
        ((5, 6), (3, 3), 2),
        ((4, 4), (3, 3), 1),
        ((1, 3), (3, 2), 3),
    ],
)
def test_a_convolution_is_flaxs(shape, taps, strides):
    ours, theirs = Conv(4, taps, strides=strides), nn.Conv(4, taps, strides=strides)
    x = jax.random.normal(jax.random.key(0), (2, *shape, 3))
    params = theirs.init(jax.random.key(1), x)
    like = jax.eval_shape(ours.init, jax.random.key(1), x)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, like)
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    loss = lambda layer: lambda params, x: jnp.sin(layer.apply(params, x)).sum()
    for a, b in zip(
        jax.tree.leaves(jax.grad(loss(ours), argnums=(0, 1))(params, x)),
        jax.tree.leaves(jax.grad(loss(theirs), argnums=(0, 1))(params, x)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours.apply(params, x), theirs.apply(params, x), rtol=1e-5, atol=1e-5)


def test_batch_norm_is_of_the_batch_at_hand():
    x = 3 + 2 * jax.random.normal(jax.random.key(0), (50, 4, 3))
    layer = BatchNorm()
    params = layer.init(jax.random.key(1), x)
    y = np.asarray(layer.apply(params, x))
    np.testing.assert_allclose(y.mean(axis=(0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(axis=(0, 1)), 1, rtol=1e-4)
    params["params"] |= {"scale": jnp.full(3, 2.0), "bias": jnp.full(3, 5.0)}
    np.testing.assert_allclose(layer.apply(params, x), 2 * y + 5, rtol=1e-5, atol=1e-5)
