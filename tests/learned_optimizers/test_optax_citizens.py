"""Every learned optimizer of the catalogue is a citizen of optax, and can be meta-trained.

Compile time is most of this, so an optimizer's checks share programs.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState
from jax.sharding import NamedSharding, PartitionSpec
from small import made, specs

import metaopt
from metaopt.learned_optimizers import LEARNED_OPTIMIZERS, celo2, scale_by_celo2

READS_LOSS = {"velo", "celo"}
READS_HORIZON = READS_LOSS | {"gated_adam", "gated_muon", "scheduled_adam"}
VALUE = jnp.float32(1.5)


@jax.tree_util.register_dataclass
@dataclass
class Block:
    kernel: jax.Array
    bias: jax.Array


def normal(seed, *shape, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(seed), shape, dtype)


# Zero to five axes (two: below, four: the traces), one tensor empty; three containers, two dtypes.
PARAMS = {
    "block": Block(normal(0, 2, 3, 4, dtype=jnp.bfloat16), normal(1, 4, dtype=jnp.bfloat16)),
    "more": [normal(2), normal(3, 0, 3)],
    "five": (normal(6, 2, 1, 1, 3, 2),),
}
GRADS = jax.tree.map(lambda p: jnp.cos(3 * p), PARAMS)
FEW = {"kernel": normal(7, 4, 3), "bias": normal(8, 4)}


def transformation(name, theta=None):
    optimizer, start = made(name)
    return optimizer.optimizer(start if theta is None else theta, 10)


def near(a, b, rtol=1e-4, atol=1e-7):
    def check(x, y):
        coarse = x.dtype == jnp.bfloat16
        x, y = np.float32(x), np.float32(y)
        np.testing.assert_allclose(x, y, rtol=2e-2 if coarse else rtol, atol=atol)

    jax.tree.map(check, a, b)


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNED_OPTIMIZERS)
def test_every_tensor_everywhere(name):
    """All ranks, dtypes and containers; state that stays what it is."""
    theta = made(name)[1]
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(theta))

    @jax.jit
    def run(grads, params):
        tx = transformation(name)
        state = tx.init(params)
        updates, after = tx.update(grads, state, params, value=VALUE)
        return updates, state, after

    updates, state, after = run(GRADS, PARAMS)
    assert specs(updates) == specs(PARAMS)
    assert specs(state) == specs(after)
    assert all(leaf.size for leaf in jax.tree.leaves(state))  # Orbax saves no empty arrays
    floats = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert all(leaf.dtype == jnp.float32 for leaf in floats)
    assert all(np.isfinite(np.float32(leaf)).all() for leaf in jax.tree.leaves(updates))


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNED_OPTIMIZERS)
def test_scanned_mapped_and_sharded(name):
    """Three scanned steps under two thetas at once are those of one, sharded over four devices."""
    theta = made(name)[1]
    thetas = jax.tree.map(lambda leaf: jnp.stack([leaf, 1.1 * leaf]), theta)

    def update(theta, state, params):
        return transformation(name, theta).update(params, state, params, value=VALUE)

    @jax.jit
    @jax.vmap
    def together(theta):
        def step(carry, _):
            params, state = carry
            updates, state = update(theta, state, params)
            return (optax.apply_updates(params, updates), state), updates

        start = FEW, transformation(name, theta).init(FEW)
        return jax.lax.scan(step, start, None, length=3)

    (params, state), _ = together(thetas)
    alone = jax.tree.map(lambda leaf: leaf[1], thetas)
    mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("x"))
    one = jax.device_put(FEW, rows)
    own_state = transformation(name, alone).init(one)
    step = jax.jit(update)
    for _ in range(3):
        updates, own_state = step(alone, own_state, one)
        one = optax.apply_updates(one, updates)
    near(jax.tree.map(lambda leaf: leaf[1], (params, state)), (one, own_state), rtol=2e-3)
    assert not all(map(np.array_equal, *map(jax.tree.leaves, (one, FEW))))


@pytest.mark.parametrize("name", LEARNED_OPTIMIZERS)
def test_inside_optax(name):
    """chain, multi_transform (masked), MultiSteps, apply_if_finite and inject_hyperparams."""
    own = transformation(name)
    rest = optax.inject_hyperparams(optax.sgd)(learning_rate=0.5)
    tx = optax.chain(
        optax.clip(1.0),
        optax.multi_transform(
            {"learned": own, "rest": rest}, {"kernel": "learned", "bias": "rest"}
        ),
    )
    every_second = optax.MultiSteps(tx, 2)  # its own gradient_transformation() drops the loss
    tx = optax.GradientTransformationExtraArgs(every_second.init, every_second.update)
    tx = optax.apply_if_finite(tx, 3)
    grads = {"kernel": 0.1 * FEW["kernel"], "bias": jnp.ones(4)}
    kernel = {"kernel": FEW["kernel"]}

    @jax.jit
    def update(grads, state):
        with jax.numpy_dtype_promotion("standard"):  # optax mixes counters and floats
            updates, state = tx.update(grads, state, FEW, value=VALUE)
        expected, _ = own.update({"kernel": grads["kernel"]}, own.init(kernel), kernel, value=VALUE)
        return updates, state, expected["kernel"]

    nothing = lambda updates: not any(np.any(leaf) for leaf in jax.tree.leaves(updates))
    first, state, expected = update(grads, tx.init(FEW))
    assert nothing(first)
    broken, state, _ = update(grads | {"bias": jnp.full(4, jnp.nan)}, state)
    assert nothing(broken) and int(state.total_notfinite) == 1
    second, state, _ = update(grads, state)
    near(second, {"kernel": expected, "bias": -0.5 * jnp.ones(4)})


@pytest.mark.parametrize("name", LEARNED_OPTIMIZERS)
def test_other_containers(name):
    """NNX states and Linen's frozen dicts; no tensor at all. Traced, not run."""
    tx = transformation(name)
    model = nnx.eval_shape(lambda: nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
    frozen = nn.FrozenDict({"dense": FEW})
    for params in (nnx.state(model, nnx.Param), frozen, {}, FEW["kernel"]):
        step = lambda p: (tx.init(p), *tx.update(p, tx.init(p), p, value=VALUE))
        state, updates, after = jax.eval_shape(step, params)
        assert jax.tree.structure(updates) == jax.tree.structure(params)
        assert jax.tree.structure(state) == jax.tree.structure(after)


@pytest.mark.parametrize("name", LEARNED_OPTIMIZERS)
def test_missing_arguments_show_the_right_call(name):
    optimizer, theta = made(name)
    tx = transformation(name)
    state = jax.eval_shape(tx.init, FEW)
    update = lambda *args, **kwargs: jax.eval_shape(
        lambda state: tx.update(FEW, state, *args, **kwargs), state
    )
    reads_params = name not in ("sgd", "sgdm", "inverse_time_sgdm", "adam", "lstm")
    if reads_params:
        with pytest.raises(ValueError, match=r"needs params.*: call update\(grads, state, params"):
            update(value=VALUE)
    if name in READS_LOSS:
        with pytest.raises(ValueError, match=r"needs value: call .*params, value=loss\)"):
            update(FEW)
    if name in READS_HORIZON:
        with pytest.raises(ValueError, match=r"optimizer\(theta, num_steps\)"):
            optimizer.optimizer(theta)
        with pytest.raises(ValueError, match="at least 1, got 0"):
            optimizer.optimizer(theta, 0)
    else:
        optimizer.optimizer(theta)
    if name not in READS_LOSS:
        update(*[FEW] if reads_params else [])


@pytest.mark.parametrize("name", ["mlp", "velo"])
def test_in_an_nnx_loop(name):
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, transformation(name), wrt=nnx.Param)
    loss_of = lambda model: jnp.square(model(jnp.ones((1, 3)))).sum()
    before = jax.tree.map(np.asarray, nnx.state(model, nnx.Param))

    @nnx.jit
    def step(model, optimizer):
        value, grads = nnx.value_and_grad(loss_of)(model)
        optimizer.update(model, grads, value=value)
        return value

    assert np.isfinite(step(model, optimizer))
    assert not np.array_equal(model.kernel[...], before["kernel"][...])


@pytest.mark.parametrize("name", ["mlp", "velo"])
def test_in_a_linen_loop(name):
    model = nn.Dense(2)
    params = model.init(jax.random.key(0), jnp.ones((1, 3)))
    state = TrainState.create(apply_fn=model.apply, params=params, tx=transformation(name))

    @jax.jit
    def step(state):
        loss_of = lambda params: jnp.square(state.apply_fn(params, jnp.ones((1, 3)))).sum()
        value, grads = jax.value_and_grad(loss_of)(state.params)
        return metaopt.apply_gradients(state, grads=grads, value=value)

    after = step(state)
    assert int(after.step) == 1 and specs(after.params) == specs(params)
    assert not np.array_equal(after.params["params"]["kernel"], params["params"]["kernel"])


def test_celo2_is_optax_pieces_around_its_scaling():
    """Rate, schedule and decoupled decay; vectors by Adam with 20 times the rate."""
    theta = made("celo2")[1]
    schedule = optax.linear_schedule(1e-2, 1e-3, 10)
    tx = celo2(learning_rate=schedule, weight_decay=0.3).optimizer(theta)
    bias = optax.adamw(lambda t: 20 * schedule(t), 0.9, 0.95, weight_decay=0.3)
    kernel = optax.chain(
        scale_by_celo2(theta),
        optax.add_decayed_weights(0.3),
        optax.scale_by_learning_rate(schedule),
    )
    parts = optax.multi_transform(
        {"kernel": kernel, "bias": bias}, {"kernel": "kernel", "bias": "bias"}
    )

    @jax.jit
    def two_steps(params):
        results = []
        for tx_ in (tx, parts):
            state, p = tx_.init(params), params
            for _ in range(2):
                with jax.numpy_dtype_promotion("standard"):  # optax mixes counters and floats
                    updates, state = tx_.update(params, state, p)
                p = optax.apply_updates(p, updates)
            results.append(p)
        return results

    near(*two_steps(FEW), rtol=1e-5)


def test_celo_without_its_scheduler_is_the_rule():
    """Phase 1 of meta-training, on the same theta: a schedule of 1 changes nothing."""
    optimizer, theta = made("celo")
    network = theta["scheduler"]["network"]
    always_one = {"kernel": jnp.zeros((4, 1)), "bias": jnp.log(jnp.full(1, 10.0))}
    theta = theta | {
        "scheduler": theta["scheduler"] | {"network": network | {"step_size": always_one}}
    }
    phase_one = LEARNED_OPTIMIZERS["celo"](lstm_hidden_size=4, scheduler=False)

    @jax.jit
    def both(params):
        with_it, without = optimizer.optimizer(theta, 10), phase_one.optimizer(theta)
        first, _ = with_it.update(params, with_it.init(params), params, value=VALUE)
        return first, without.update(params, without.init(params), params)[0]

    near(*both({"kernel": FEW["kernel"]}), rtol=1e-5, atol=0.0)
