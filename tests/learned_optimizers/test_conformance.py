"""An optimizer's state is a citizen's, and no leaf, number or setting of a program is a surprise.

Of every optimizer of the catalogue and every shipped one. The reference for what cannot be wrong is
optax.adam: where it works, these work.
"""

import warnings
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from small import made, weekly_but

import metaopt
from metaopt.learned_optimizers import (
    LEARNED_OPTIMIZERS,
    celo2,
    equal_shapes,
    lstm,
    scheduled_adam,
    sgd,
    slices,
)
from metaopt.learned_optimizers.scheduler import init_losses, update_losses
from metaopt.learned_optimizers.transformation import transformation

EVERY = [*LEARNED_OPTIMIZERS, *metaopt.shipped()]
READS_LOSS = ("velo", "celo")
KERNEL = np.linspace(-1, 1, 12).reshape(4, 3)
TENSORS = {"kernel": KERNEL, "like it": np.sin(9 * KERNEL), "bias": np.linspace(0.1, 1, 4)}


@cache
def theta_buffers(name):
    return {buffer_of(leaf) for leaf in jax.tree.leaves(made(name)[1])} if name in NAMES else set()


NAMES = set(LEARNED_OPTIMIZERS)


def optimizer(name, num_steps=100):
    if name not in NAMES:
        with warnings.catch_warnings():  # what one was trained for is not what is tested here
            warnings.simplefilter("ignore", metaopt.OutsideTrainedRange)
            return metaopt.load(name, num_steps=num_steps)
    learned, theta = made(name)
    return learned.optimizer(theta, num_steps)


def buffer_of(leaf):
    return leaf.addressable_shards[0].data.unsafe_buffer_pointer()


def types_of(tree):
    describe = lambda x: (x.shape, x.dtype, x.weak_type, jax.typeof(x).sharding)
    return jax.tree.structure(tree), [describe(leaf) for leaf in jax.tree.leaves(tree)]


def tensors(dtype=jnp.float32):
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), TENSORS)


def counted_step(tx, **jit_options):
    """A step as people write it, and how often it was traced."""
    traces = []

    @partial(jax.jit, **jit_options)
    def step(params, state, grads, value):
        traces.append(1)
        updates, state = tx.update(grads, state, params, value=value)
        return optax.apply_updates(params, updates), state

    return step, traces


@pytest.mark.slow
@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("name", EVERY)
@pytest.mark.filterwarnings("ignore::metaopt.OutsideTrainedRange")
def test_state_is_its_own(name, x64):
    """Donated, compiled once, of explicit dtypes, whatever the program has set and mixes."""
    with jax.enable_x64(x64), jax.numpy_rank_promotion("raise"):
        theta = theta_buffers(name)
        dtypes = (jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64 if x64 else jnp.float32)
        params = {str(i): tensors(dtype) for i, dtype in enumerate(dtypes)}
        tx = optimizer(name)
        state = tx.init(params)
        kept = theta | {buffer_of(leaf) for leaf in jax.tree.leaves(params)}
        own = [buffer_of(leaf) for leaf in jax.tree.leaves(state)]
        assert len({*own}) == len(own) and kept.isdisjoint(own)
        assert {leaf.dtype.name for leaf in jax.tree.leaves(state)} <= {"float32", "int32"}
        before, first = types_of(state), jax.tree.map(np.asarray, params)
        step, traces = counted_step(tx, donate_argnums=(0, 1))
        grads = jax.tree.map(lambda x: jnp.array(x), params)
        for _ in range(3):
            params, state = step(params, state, grads, jnp.float32(1.5))
        assert types_of(state) == before and len(traces) == step._cache_size() == 1
        assert [x.dtype for x in jax.tree.leaves(params)] == [
            x.dtype for x in jax.tree.leaves(first)
        ]
        assert all(np.isfinite(np.float32(leaf)).all() for leaf in jax.tree.leaves(params))
        tx.init(grads)  # theta is still there


@pytest.mark.slow
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("name", EVERY)
def test_sharded_is_as_whole(name, axis_type):
    """A kernel sharded, a bias replicated: traced once, and as on one device."""
    mesh = jax.make_mesh((4,), ("x",), axis_types=(axis_type,))
    split = PartitionSpec("x")
    specs = {"kernel": split, "like it": split, "bias": PartitionSpec()}
    place = lambda tree: jax.tree.map(
        lambda x, spec: jax.device_put(x, NamedSharding(mesh, spec)), tree, specs
    )
    tx = optimizer(name)
    step, traces = counted_step(tx)
    params, grads = place(tensors()), place(jax.tree.map(jnp.cos, tensors()))
    state = tx.init(params)
    before = types_of(state)
    for _ in range(2):
        params, state = step(params, state, grads, jnp.float32(1.5))
    assert types_of(state) == before and len(traces) == 1
    assert params["kernel"].sharding.is_equivalent_to(NamedSharding(mesh, specs["kernel"]), 2)
    whole, alone = tensors(), tx.init(tensors())
    single, _ = counted_step(tx)
    for _ in range(2):
        whole, alone = single(whole, alone, jax.tree.map(jnp.cos, tensors()), jnp.float32(1.5))
    near = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-6)
    jax.tree.map(near, params, whole)


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_inside_shard_map_and_scan(name):
    """Started inside, where JAX follows which values vary over devices; traced, not run."""
    mesh = jax.make_mesh((4,), ("x",), axis_types=(AxisType.Auto,))
    tx = optimizer(name)

    def run(params):
        def step(carry, _):
            params, state = carry
            updates, state = tx.update(params, state, params, value=jnp.float32(1.5))
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), None, length=2)[0][0]

    spec = PartitionSpec("x")
    inside = jax.shard_map(run, mesh=mesh, in_specs=spec, out_specs=spec)
    params = {"kernel": jnp.ones((4, 4)), "like it": jnp.ones((4, 4)), "bias": jnp.ones(4)}
    assert jax.tree.map(jnp.shape, jax.eval_shape(inside, params)) == jax.tree.map(
        jnp.shape, params
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_survives_accidents(name):
    """Steps again after enormous, tiny and no gradients at all, and after losses that are none."""
    tx = optax.apply_if_finite(optimizer(name, 400), 3)
    ordinary = jnp.ones(3000).at[jnp.arange(3000) % 3 == 1].set(-0.5)
    accidents = ordinary.at[20].set(1e20).at[30].set(-1e20).at[40:60].set(1e-30)
    accidents = accidents.at[60:160].set(0.0).at[170].set(jnp.nan).at[180].set(jnp.inf)
    losses = jnp.ones(3000)
    bad = losses.at[jnp.array([0, 25, 35, 45])].set(jnp.array([jnp.inf, jnp.nan, -jnp.inf, 1e30]))

    @jax.jit
    @jax.vmap
    def run(scales, losses):
        def step(carry, given):
            params, state = carry
            scale, loss = given
            grads = jax.tree.map(lambda p: scale * jnp.sin(5 * p), tensors())
            with jax.numpy_dtype_promotion("standard"):  # optax mixes counters and floats
                updates, state = tx.update(grads, state, params, value=loss)
            params = optax.apply_updates(params, updates)
            size = jnp.stack([jnp.abs(u).max() for u in jax.tree.leaves(updates)])
            # Where parameters go after an accident is not the question here.
            return (jax.tree.map(lambda p: jnp.clip(p, -9, 9), params), state), size

        _, sizes = jax.lax.scan(step, (tensors(), tx.init(tensors())), (scales, losses))
        return sizes

    sizes = np.asarray(run(jnp.stack([ordinary, accidents]), jnp.stack([losses, bad])))
    assert np.isfinite(sizes).all()
    undisturbed, after = sizes[:, -30:].mean(1)
    assert (after >= 0.03 * undisturbed).all(), (undisturbed, after)


def test_a_loss_that_is_none_changes_no_mean():
    losses = [2.0, np.nan, 1.5, np.inf, 1.0]
    buffer = init_losses(100.0)
    for step, loss in enumerate(losses):
        before = buffer
        buffer, features = update_losses(buffer, jnp.float32(loss), jnp.int32(step))
        assert np.isfinite(features).all()
        if not np.isfinite(loss):
            mean = lambda buffer, steps: buffer.means / (1 - buffer.decays**steps)
            np.testing.assert_allclose(mean(buffer, step + 1), mean(before, step), rtol=1e-5)
            np.testing.assert_array_equal(before.minima, buffer.minima)
    late = init_losses(100.0)
    for step, loss in enumerate([np.inf, 0.0, 1.9]):
        late, _ = update_losses(late, jnp.float32(loss), jnp.int32(step))
    np.testing.assert_allclose(late.means / (1 - late.decays**3), 1.9 * np.ones(10), rtol=1e-5)


@pytest.mark.parametrize("name", READS_LOSS)
@pytest.mark.parametrize(
    "value, said",
    [
        (jnp.ones(1), r"an array float32\[1\]"),
        (np.ones((4, 10)), r"an array float64\[4, 10\]"),
        ((1.0, {}), "a tuple of 2"),
        (2 + 1j, r"\(2\+1j\)"),
        ("2", "'2'"),
        (True, "True"),
    ],
)
def test_what_is_no_loss_is_refused(name, value, said):
    params = tensors()
    tx = optimizer(name)
    with pytest.raises(ValueError, match=f"{name} reads the loss, a real scalar: .*got {said}"):
        jax.eval_shape(lambda p: tx.update(p, tx.init(p), p, value=value), params)


@pytest.mark.parametrize("name", EVERY)
def test_num_steps_of_every_kind(name):
    make = partial(optimizer, name)
    for good in (100, 100.0, np.int64(100), np.float32(100), jnp.int32(100), jnp.float32(100)):
        make(good)
    wrong = (0, -5, 0.0, -5.0, 0.5, np.nan, np.inf, np.int64(0), jnp.int32(-3), True, "200", [9])
    for bad in wrong:
        with pytest.raises(ValueError, match="num_steps must be a whole number of at least 1, got"):
            make(bad)


def test_rates_of_every_kind():
    theta = made("celo2")[1]
    params = tensors()
    steps = []
    for rate in (0.5, np.float32(0.5), np.float64(0.5), np.array(0.5), jnp.float32(0.5)):
        tx = celo2(learning_rate=rate, weight_decay=rate).optimizer(theta)
        steps.append(jax.jit(lambda p, tx=tx: tx.update(p, tx.init(p), p)[0])(params))
        sgd(learning_rate=rate), lstm(output_scale=rate), scheduled_adam(weight_decay=rate)
    make = optax.inject_hyperparams(
        lambda learning_rate, weight_decay: celo2(
            learning_rate=learning_rate, weight_decay=weight_decay
        ).optimizer(theta)
    )
    tx = make(learning_rate=0.5, weight_decay=0.5)
    steps.append(jax.jit(lambda p: tx.update(p, tx.init(p), p)[0])(params))
    for step in steps:
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), step, steps[0])
    for bad in (-1.0, np.float32(np.nan), jnp.float32(np.inf), np.ones(2), "1", True, None):
        with pytest.raises(ValueError, match="learning_rate must be a finite number of at least 0"):
            celo2(learning_rate=bad)


@pytest.mark.parametrize("name", weekly_but(["adafac_mlp", "gated_muon"], sorted(NAMES)))
def test_how_tensors_are_worked_on_changes_nothing(name, monkeypatch):
    """Many of one shape, which are put together, and a large one, which is cut in slices."""
    key = jax.random.key(1)
    draw = lambda i, shape: jax.random.normal(jax.random.fold_in(key, i), shape)
    params = {f"w{i}": draw(i, (3, 4)) for i in range(9)} | {"b": draw(9, (5,))}
    params["large"] = draw(10, (260, 256))
    tx = optimizer(name)

    def two_updates(params):
        state = tx.init(params)
        for _ in range(2):
            grads = jax.tree.map(lambda p: p * jnp.cos(3 * p), params)
            updates, state = tx.update(grads, state, params, value=jnp.float32(1.5))
            params = optax.apply_updates(params, updates)
        return params

    found = jax.jit(lambda params: two_updates(params))(params)
    monkeypatch.setattr(equal_shapes, "TOGETHER", 0)
    monkeypatch.setattr(slices, "AT_ONCE", 2**30)
    plain = jax.jit(lambda params: two_updates(params))(params)
    for path, start in params.items():
        moved = float(jnp.abs(plain[path] - start).max())
        assert moved > 0
        # Orthogonal steps amplify the rounding of what is small against the largest direction.
        tolerance = 5e-3 if name == "celo2" else 1e-4
        np.testing.assert_allclose(found[path], plain[path], rtol=1e-6, atol=tolerance * moved)


LEAVES = {
    "bool": (jnp.array([True, False]), np.zeros(2, jax.dtypes.float0)),
    "empty": (jnp.zeros((0, 3)), jnp.zeros((0, 3))),
    "int": (jnp.arange(3), np.zeros(3, jax.dtypes.float0)),
    "int with a gradient": (jnp.arange(3), jnp.ones(3, jnp.int32)),
    "numpy": (np.ones((2, 3)), np.ones((2, 3))),
    "python": (0.5, 0.1),
    "complex": (jnp.full((2, 3), 1 + 2j), jnp.full((2, 3), 1 - 1j)),
    "none": (None, None),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_leaves_of_every_kind(name):
    """Those that optax.adam moves move as it does; counters and masks stay."""
    params = {kind: pair[0] for kind, pair in LEAVES.items()}
    grads = {kind: pair[1] for kind, pair in LEAVES.items()}
    tx = optimizer(name)
    updates, _ = tx.update(grads, tx.init(params), params, value=jnp.float32(1.0))
    after = optax.apply_updates(params, updates)
    assert after["none"] is None
    for kind in ("bool", "int", "int with a gradient"):
        np.testing.assert_array_equal(after[kind], params[kind])
    for kind in ("numpy", "python", "complex"):
        assert updates[kind].dtype == jnp.asarray(params[kind]).dtype
    assert np.all(updates["complex"].real) and np.all(updates["complex"].imag)
    parts = {"real": params["complex"].real, "imag": params["complex"].imag}
    assert np.isfinite(updates["python"])
    if name in ("adam", "sgd", "mlp"):  # those that treat a tensor by itself
        of_parts = {"real": grads["complex"].real, "imag": grads["complex"].imag}
        alone, _ = tx.update(of_parts, tx.init(parts), parts)
        np.testing.assert_allclose(updates["complex"].real, alone["real"], rtol=1e-5)
        np.testing.assert_allclose(updates["complex"].imag, alone["imag"], rtol=1e-5)


@pytest.mark.parametrize(
    "params, grads, said",
    [
        ({"k": jax.random.key(0)}, {"k": None}, r"cannot update params\['k'\] of dtype key<fry>"),
        ({"s": "text"}, {"s": "text"}, r"cannot update params\['s'\] of dtype <U4"),
        ({"w": jnp.ones(2)}, {"w": None}, r"no gradient of params\['w'\], which has shape \(2,\)"),
        ({"w": jnp.ones(2)}, {"v": jnp.ones(2)}, r"no gradient of params\['w'\]"),
        ({}, {"v": jnp.ones(2)}, r"a gradient for \['v'\], which the parameters do not have"),
        ([jnp.ones(2)], (jnp.ones(2),), "in different containers"),
        ({"w": jnp.ones((2, 3))}, {"w": jnp.ones((3, 2))}, r"params\['w'\] has shape \(3, 2\)"),
        ({"w": jnp.ones(2)}, {"w": jnp.full(2, 1j)}, r"dtype complex64, where .* float32"),
    ],
)
def test_what_cannot_work_is_refused_by_name(params, grads, said):
    tx = optimizer("adam")
    with pytest.raises(ValueError, match=f"adam.*{said}"):
        tx.update(grads, tx.init(params), params)


NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False)
DTYPES = [jnp.bfloat16, jnp.float16, jnp.float32, jnp.int8, jnp.uint32, jnp.bool_, jnp.complex64]
ARRAYS = st.tuples(st.sampled_from(DTYPES), st.sampled_from([(), (1,), (2, 1), (0, 2)]), NUMBERS)
INNER = st.recursive(
    st.none() | ARRAYS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=5,
)
TREES = st.lists(INNER, max_size=2) | st.dictionaries(st.sampled_from("abc"), INNER, max_size=2)


@settings(max_examples=60, deadline=None)
@given(TREES)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
def test_any_tree_of_finite_numbers(tree):
    """Of a rule that does nothing but descend, since leaves are seen to in one place."""
    is_leaf = lambda x: x is None or isinstance(x, tuple)
    descend = lambda grads, state, params, value: (jax.tree.map(jnp.negative, grads), state)
    tx = transformation("descent", lambda params: jax.tree.map(jnp.zeros_like, params), descend)

    def array(spec):
        if spec is None:
            return None
        dtype, shape, number = spec
        return jnp.full(shape, np.nan_to_num(np.asarray(number).astype(dtype)), dtype)

    params = jax.tree.map(array, tree, is_leaf=is_leaf)
    state = tx.init(params)
    updates, after = tx.update(params, state, params)
    assert jax.tree.structure(updates) == jax.tree.structure(params)
    assert types_of(after) == types_of(state)
    for p, u in zip(*map(jax.tree.leaves, (params, updates)), strict=True):
        assert u.dtype == p.dtype and u.shape == p.shape
        moves = jnp.issubdtype(p.dtype, jnp.inexact)
        expected = -jnp.clip(p.real, -1e15, 1e15) if moves else jnp.zeros_like(p)
        if p.dtype != jnp.float16:
            np.testing.assert_array_equal(u.real, expected)
        assert np.isfinite(np.asarray(u, np.complex64)).all()
