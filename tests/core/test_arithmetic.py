"""Counting arithmetic: against the terms that a product, a convolution or a network has."""

import jax
import jax.numpy as jnp
import pytest

from metaopt.core.arithmetic import flops_in, flops_of
from metaopt.tasks import digits_mlp, rnn_lm

SQUARE = jax.ShapeDtypeStruct((4, 4), jnp.float32)


def test_products_with_batches_and_convolutions():
    a, b = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((5, 2, 3), (5, 3, 7)))
    assert flops_in(jnp.matmul, a, b) == 5 * 2 * 7 * 3 * 2
    image = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
    kernel = jax.ShapeDtypeStruct((3, 3, 3, 6), jnp.float32)
    convolve = lambda x, k: jax.lax.conv_general_dilated(
        x, k, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    assert flops_in(convolve, image, kernel) == 2 * 4 * 4 * 6 * (3 * 3 * 3) * 2


def test_loops_branches_and_what_only_moves():
    product = lambda x: x @ x
    once = flops_in(product, SQUARE)
    assert once == 4 * 4 * 4 * 2
    assert (
        flops_in(lambda x: jax.lax.fori_loop(0, 6, lambda i, y: product(y), x), SQUARE) == 6 * once
    )
    dearest = lambda x: jax.lax.cond(x[0, 0] > 0, lambda y: product(product(y)), jnp.cos, x)
    assert flops_in(dearest, SQUARE) == 2 * once
    assert flops_in(lambda x: x.T.reshape(-1)[2:], SQUARE) == 0
    assert flops_in(jax.jit(lambda x: jax.vmap(jnp.exp)(x).sum()), SQUARE) == 16 + 16


def test_a_network_is_three_times_its_weights():
    """Forward, and backward for weights and inputs, which the first layer's does not need."""
    counted = flops_of(digits_mlp(hidden=(128, 128), batch_size=64))
    products = 64 * 2 * (2 * 64 * 128 + 3 * (128 * 128 + 128 * 10))
    assert counted == pytest.approx(products, rel=0.05)
    assert counted > products


def test_a_recurrent_net_counts_every_step():
    short, long = (flops_of(rnn_lm(length=length)) for length in (16, 64))
    assert long / short == pytest.approx(4, rel=0.05)
