"""The fused kernel, by Pallas' interpreter, against the plain path, and its lowering for a GPU."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small import jit
from test_golden import excess, read, select

from learned_optimizers import import_theta, mlp
from learned_optimizers.fused import BLOCK, fused_rule

# Ranks 0 to 3; below a block, ragged, several blocks.
SHAPES = {"scalar": (), "bias": (5,), "kernel": (2, BLOCK + 3), "stack": (2, 3, 4)}
PLAIN, FUSED = mlp(fused=False), mlp(fused=True)


def normal(seed, shape):
    return jax.random.normal(jax.random.key(seed), shape)


def tensors(seed):
    return {name: normal(seed + i, shape) for i, (name, shape) in enumerate(SHAPES.items())}


def state_of(seed):
    """A state in the middle of a run: no momentum is 0, or the gradient's."""
    state = PLAIN.optimizer(THETA).init(tensors(0))
    shapes = jax.tree.map(jnp.shape, state.momenta, is_leaf=lambda x: isinstance(x, jax.Array))
    momenta = {name: normal(seed + i, shape) for i, (name, shape) in enumerate(shapes.items())}
    return state._replace(step=jnp.int32(7), momenta=momenta)


THETA = jax.tree.map(lambda leaf: leaf + 0.01, PLAIN.init(jax.random.key(0)))


def update(optimizer, theta, grads, state, params):
    return optimizer.optimizer(theta).update(grads, state, params)


def near(ours, expected, rtol=2e-6):
    def check(x, y):
        x, y = np.float32(x), np.float32(y)
        np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol * np.abs(y).max())

    jax.tree.map(check, ours, expected)


def test_equals_the_plain_path_for_every_particle():
    """Ranks 0 to 3, two particles of their own theta, state and tensors; then each by itself."""
    two = lambda tree, other: jax.tree.map(lambda *pair: jnp.stack(pair), tree, other)
    thetas = two(THETA, jax.tree.map(lambda leaf: 1.5 * leaf, THETA))
    particles = (
        thetas,
        two(tensors(10), tensors(20)),
        two(state_of(30), state_of(40)),
        two(tensors(50), tensors(60)),
    )
    ours = jit(jax.vmap(partial(update, FUSED)))(*particles)
    near(ours, jit(jax.vmap(partial(update, PLAIN)))(*particles))
    second = jax.tree.map(lambda leaf: leaf[1], particles)
    near(jax.tree.map(lambda leaf: leaf[1], ours), jit(partial(update, FUSED))(*second))


def test_follows_the_golden_trace(golden):
    trace = read(golden / "mlp-0.npz")
    theta = import_theta("mlp", select(trace, "theta|"), fused=True)
    params = start = select(trace, "params0|")
    state = FUSED.optimizer(theta).init(params)
    step = jit(partial(update, FUSED))
    steps = min(4, json.loads(trace["meta"].tobytes())["steps"])
    for i in range(steps):
        updates, state = step(theta, select(trace, f"grads|{i}|"), state, params)
        params = optax.apply_updates(params, updates)
    assert steps > 1
    for tensor, expected in select(trace, f"params|{steps - 1}|").items():
        assert excess(params[tensor], expected, start[tensor], 1e-4) <= 1, tensor


def test_derivatives_are_the_plain_paths():
    """Two steps, so that the derivative also goes through the state."""

    def loss(optimizer, theta, params):
        state = state_of(30)
        for _ in range(2):
            updates, state = update(optimizer, theta, jax.tree.map(jnp.cos, params), state, params)
            params = jax.tree.map(lambda p, u: p + 100 * u, params, updates)
        return sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(params))

    few = {name: normal(1, SHAPES[name]) for name in ("bias", "stack")}
    gradient = lambda optimizer: jit(jax.grad(partial(loss, optimizer), argnums=(0, 1)))
    near(gradient(FUSED)(THETA, few), gradient(PLAIN)(THETA, few), rtol=2e-5)


def test_parameters_keep_their_dtype():
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), {"bias": normal(2, (5,))})
    results = [
        update(optimizer, THETA, half, optimizer.optimizer(THETA).init(half), half)
        for optimizer in (FUSED, PLAIN)
    ]
    assert results[0][0]["bias"].dtype == jnp.bfloat16
    near(*results, rtol=1e-2)


def test_refuses_what_is_no_choice():
    with pytest.raises(ValueError, match=r"fused must be True .*, got 'yes'"):
        mlp(fused="yes")
    assert mlp(fused=None) is not None


def by_rows_and_columns(tensor, row, column, momentum, decays, kernel, bias, fused):
    """A rule of other features: per row, per column, 3 of an accumulator's; widths not padded."""

    def block(g, row, column, m, decays):
        m = decays * m + (1 - decays) * g
        return (g * row * column, m * row), (m,)

    inputs = [tensor[..., None], row, column, momentum, decays[None, None, None]]
    layers = [(kernel[:5], bias), (kernel[:5, :3], bias[:3])]
    write = lambda a, b, c: a * b + c
    if fused is not None:
        return fused_rule(
            block,
            write,
            shape=tensor.shape,
            inputs=inputs,
            kernels=[kernel[:1], kernel[1:4]],
            added=[row @ kernel[4:5], bias[None, None, None]],
            layers=layers,
            kept=[3],
            interpret=fused,
        )
    groups, kept = block(*inputs)
    x = jnp.concatenate([*groups, jnp.broadcast_to(row, (*tensor.shape, 1))], -1) @ kernel + bias
    for weights, b in layers:
        x = jnp.maximum(x, 0) @ weights + b
    return write(*jnp.moveaxis(x, -1, 0)), kept


OTHER = [
    normal(3, shape)
    for shape in [(3, 7, 11), (3, 7, 1, 1), (1, 1, 11, 3), (3, 7, 11, 3), (3,), (5, 5), (5,)]
]


def test_a_rule_of_rows_and_columns():
    expected = by_rows_and_columns(*OTHER, fused=None)
    near(jit(partial(by_rows_and_columns, fused=True))(*OTHER), expected)


def test_lowers_for_a_gpu():
    """Triton's own checks of the kernel, which need no GPU: widths, masks, gathers, products."""
    rows = partial(by_rows_and_columns, fused=False)
    for function in (rows, jax.vmap(rows)):
        arguments = OTHER if function is rows else [jnp.stack([x, x]) for x in OTHER]
        lowered = jax.jit(function).trace(*arguments).lower(lowering_platforms=("cuda",))
        assert "triton" in lowered.as_text()
