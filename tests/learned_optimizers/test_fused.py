"""The fused kernel, by Pallas' interpreter, against the plain path, and its lowering for a GPU."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType
from test_golden import excess, read, select

from metaopt.learned_optimizers import import_theta, mlp
from metaopt.learned_optimizers.fused import BLOCK, fused_rule
from metaopt.learned_optimizers.mlp import MLPState

# Ranks 0 to 3, one of them bfloat16; below a block, ragged, several blocks.
SHAPES = {"scalar": (), "bias": (5,), "kernel": (2, BLOCK + 3), "stack": (2, 3, 4)}
PLAIN, FUSED = mlp(fused=False), mlp(fused=True)
THETA = jax.tree.map(lambda leaf: leaf + 0.01, jax.jit(PLAIN.init)(jax.random.key(0)))


def normal(seed, shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def tensors(seed):
    tree = {name: normal([seed, i], shape) for i, (name, shape) in enumerate(SHAPES.items())}
    return tree | {"bias": tree["bias"].astype(jnp.bfloat16)}


def state_of(seed, names=tuple(SHAPES)):
    """A state in the middle of a run: no momentum is 0, or the gradient's."""
    momenta = {name: normal([seed, i], (*SHAPES[name], 6)) for i, name in enumerate(names)}
    return MLPState(jnp.int32(7), momenta)


def update(optimizer, theta, grads, state, params):
    return optimizer.optimizer(theta).update(grads, state, params)


def near(ours, expected, rtol=2e-6):
    def check(x, y):
        assert x.dtype == y.dtype
        tolerance = 1e-2 if x.dtype == jnp.bfloat16 else rtol
        x, y = np.float32(x), np.float32(y)
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance * np.abs(y).max())

    jax.tree.map(check, ours, expected)


def test_equals_the_plain_path_for_every_particle():
    """Two particles, each with its own theta, state and tensors."""
    two = lambda tree, other: jax.tree.map(lambda *pair: jnp.stack(pair), tree, other)
    particles = (
        two(THETA, jax.tree.map(lambda leaf: 1.5 * leaf, THETA)),
        two(tensors(10), tensors(20)),
        two(state_of(30), state_of(40)),
        two(tensors(50), tensors(60)),
    )
    ours = jax.jit(jax.vmap(partial(update, FUSED)))(*particles)
    near(ours, jax.jit(jax.vmap(partial(update, PLAIN)))(*particles))


def test_follows_the_golden_trace(golden):
    """Of two of its tensors; the rule treats each by itself."""
    trace = read(golden / "mlp-0.npz")
    theta = import_theta("mlp", select(trace, "theta|"), fused=True)
    of_two = lambda prefix: dict(sorted(select(trace, prefix).items())[:2])
    params = start = of_two("params0|")
    state = FUSED.optimizer(theta).init(params)
    step = jax.jit(partial(update, FUSED))
    for i in range(json.loads(trace["meta"].tobytes())["steps"]):
        updates, state = step(theta, of_two(f"grads|{i}|"), state, params)
        params = optax.apply_updates(params, updates)
        for tensor, expected in of_two(f"params|{i}|").items():
            assert excess(params[tensor], expected, start[tensor], 1e-4) <= 1, (i, tensor)


def test_derivatives_are_the_plain_paths():
    """Two steps, so that the derivative also goes through the state."""

    def loss(optimizer, theta, params):
        state = state_of(30, params)
        for _ in range(2):
            updates, state = update(optimizer, theta, jax.tree.map(jnp.cos, params), state, params)
            params = jax.tree.map(lambda p, u: p + 100 * u, params, updates)
        return sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(params))

    stack = {"stack": normal(1, SHAPES["stack"])}
    gradient = lambda optimizer: jax.jit(jax.grad(partial(loss, optimizer), argnums=(0, 1)))
    near(gradient(FUSED)(THETA, stack), gradient(PLAIN)(THETA, stack), rtol=1e-5)


def test_refuses_what_is_no_choice():
    with pytest.raises(ValueError, match=r"fused must be True .*, got 'yes'"):
        mlp(fused="yes")


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
    for shape in [(3, 7, 11), (3, 7, 1, 1), (1, 1, 11, 1), (3, 7, 11, 3), (3,), (5, 5), (5,)]
]


def test_a_rule_of_rows_and_columns():
    expected = by_rows_and_columns(*OTHER, fused=None)
    near(jax.jit(partial(by_rows_and_columns, fused=True))(*OTHER), expected)


@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated")  # from JAX 0.12 on
@pytest.mark.parametrize("particles", [False, True])
def test_lowers_for_a_gpu(monkeypatch, particles):
    """Triton's own checks of the kernels, which need no GPU: widths, masks, gathers, products."""
    monkeypatch.setattr("metaopt.learned_optimizers.backend.on_gpu", lambda: True)
    automatic = mlp(fused=None)

    def both(other, *arguments):
        return by_rows_and_columns(*other, fused=False), update(automatic, *arguments)

    arguments = OTHER, THETA, tensors(10), state_of(30), tensors(50)
    if particles:
        both = jax.vmap(both)
        arguments = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), arguments)
    kind = jax.sharding.AbstractDevice(
        device_kind="NVIDIA H100 80GB HBM3", num_cores=132, platform="gpu"
    )
    mesh = jax.sharding.AbstractMesh((1,), ("x",), (AxisType.Explicit,), abstract_device=kind)
    with jax.sharding.use_abstract_mesh(mesh):
        lowered = jax.jit(both).trace(*arguments).lower(lowering_platforms=("cuda",))
    assert lowered.as_text().count("xla.gpu.triton") == 1 + len(SHAPES)
