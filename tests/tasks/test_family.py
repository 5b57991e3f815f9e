"""The family of small classifiers: its members, their masks and their data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import datasets as sklearn_datasets

from metaopt import inner
from metaopt.learned_optimizers import LEARNED_OPTIMIZERS
from metaopt.tasks import TASKS, datasets
from metaopt.tasks.family import ACTIVATIONS, SETS, Member

WIDTH = 8
MEMBERS = [
    # data set, width, depth, activation
    (0, 5, 1, 0),
    (1, 8, 3, 1),
    (2, 4, 2, 2),
    (3, 7, 3, 0),
]


@pytest.fixture(scope="module")
def task():
    return TASKS["small_mlps"](max_width=WIDTH)


@pytest.fixture(scope="module")
def data(task):
    return jax.device_put(task.data())


@pytest.fixture(scope="module")
def jitted(task):
    """The task's functions, each compiled once."""
    return task._replace(
        init=jax.jit(task.init),
        batch=jax.jit(task.batch, static_argnums=2),
        loss=jax.jit(jax.value_and_grad(task.loss, argnums=1)),
    )


def member(dataset, width, depth, activation):
    integers = (jnp.int32(n) for n in (dataset, width, depth, activation))
    return Member(*integers, scale=jnp.float32(1.5), batch_size=jnp.int32(20))


def used(chosen, params):
    """Which parameters the member's network has, on its own account of the sizes."""
    features, classes = list(SETS.values())[int(chosen.dataset)]
    width, depth = int(chosen.width), int(chosen.depth)
    masks = jax.tree.map(lambda leaf: np.zeros(leaf.shape, bool), params)
    layers = [(f"layer_{i}", width, width) for i in range(depth)]
    layers = [("layer_0", features, width), *layers[1:], ("layer_3", width, classes)]
    for name, rows, columns in layers:
        masks[name]["kernel"][:rows, :columns] = True
        masks[name]["bias"][:columns] = True
    return masks, layers


def plain_loss(chosen, params, layers, x, label):
    """The network without padding, in float64."""
    h = np.asarray(x, np.float64)[:, : layers[0][1]]
    for i, (name, rows, columns) in enumerate(layers):
        if i > 0:
            h = np.asarray(ACTIVATIONS[int(chosen.activation)](jnp.float32(h)), np.float64)
        weights = params[name]
        h = h @ np.asarray(weights["kernel"])[:rows, :columns] + weights["bias"][:columns]
    log_p = h - np.log(np.exp(h).sum(axis=1, keepdims=True))
    return -log_p[np.arange(len(label)), label].mean() / np.log(layers[-1][2])


def test_a_member_is_the_network_without_padding(jitted, data):
    """Its loss is that of the small network; what it lacks starts at 0 and has gradient 0."""
    key = jax.random.key(0)
    for numbers in MEMBERS:
        chosen = member(*numbers)
        params = jitted.init(chosen, key)
        masks, layers = used(chosen, params)
        batch = jitted.batch(data, chosen, "train", key)
        counted = np.asarray(batch.weight) > 0
        assert counted.sum() == 20
        expected = plain_loss(
            chosen, params, layers, batch.x[counted], np.asarray(batch.label)[counted]
        )
        loss, _ = jitted.loss(chosen, params, batch, key)
        np.testing.assert_allclose(loss, expected, rtol=2e-5)

        disturbed = jax.tree.map(lambda p, mask: jnp.where(mask, p, 3.0), params, masks)
        after, grads = jitted.loss(chosen, disturbed, batch, key)
        assert after == loss
        for p, g, mask in zip(*map(jax.tree.leaves, (params, grads, masks)), strict=True):
            assert not np.asarray(p)[~mask].any() and not np.asarray(g)[~mask].any()
        trained = sum(np.asarray(g).any() for g in jax.tree.leaves(grads))
        assert trained == 2 * len(layers)


def test_a_blind_guess_has_loss_one(jitted, data):
    for numbers in MEMBERS:
        chosen, key = member(*numbers), jax.random.key(0)
        params = jax.tree.map(jnp.zeros_like, jitted.init(chosen, key))
        loss, _ = jitted.loss(chosen, params, jitted.batch(data, chosen, "train", key), key)
        np.testing.assert_allclose(loss, 1.0, rtol=1e-5)


def test_members_cover_the_family(task):
    drawn = jax.jit(jax.vmap(task.sample))(jax.random.split(jax.random.key(0), 1000))
    for values, choices in (
        (drawn.dataset, range(len(SETS))),
        (drawn.depth, (1, 2, 3)),
        (drawn.activation, range(len(ACTIVATIONS))),
        (drawn.width, range(4, WIDTH + 1)),
        (drawn.batch_size, range(16, 65)),
    ):
        assert set(np.asarray(values).tolist()) == set(choices)
    for values in (drawn.dataset, drawn.depth, drawn.activation):
        counts = np.unique(values, return_counts=True)[1]
        assert (np.abs(counts - 1000 / len(counts)) < 5 * np.sqrt(1000 / len(counts))).all()
    logs = np.log2(drawn.scale)  # uniform from -1 to 1
    assert logs.min() >= -1 and logs.max() <= 1 and abs(logs.mean()) < 0.1


def test_a_batch_holds_rows_of_one_set(task, data):
    """Of every set's rows all are drawn in the end, and none of another set's."""
    rows = data["valid"]
    place = jnp.arange(len(rows["x"]), dtype=jnp.float32)
    marked = {"valid": rows | {"x": jnp.repeat(place[:, None], 64, axis=1)}}
    draw = lambda chosen, key: task.batch(marked, chosen, "valid", key)
    draws = jax.jit(jax.vmap(draw, (None, 0)))
    for i in range(len(SETS)):
        chosen = member(i, 4, 1, 0)
        start, count = int(rows["start"][i]), int(rows["count"][i])
        own = list(range(start, start + count))
        places = draws(chosen, jax.random.split(jax.random.key(i), 64)).x[..., 0]
        assert np.unique(np.asarray(places)).astype(int).tolist() == own
        whole = draw(chosen, None)
        counted = np.asarray(whole.weight) > 0
        np.testing.assert_allclose(np.asarray(whole.weight)[counted], 1 / count, rtol=1e-6)
        assert np.asarray(whole.x)[counted, 0].astype(int).tolist() == own


@pytest.mark.parametrize("name", datasets.TABLES)
def test_tables_are_split_and_standardised(name):
    """Row i by i mod 5, and nothing of valid or test in what standardises."""
    options = {"scaled": False} if name == "diabetes" else {}
    x, y = getattr(sklearn_datasets, f"load_{name}")(return_X_y=True, **options)
    residue = np.arange(len(x)) % 5
    table = np.column_stack([x, y]).astype(np.float32)
    fitted = table[residue < 3]
    real = table.shape[1] if name == "diabetes" else -1  # a class is not standardised
    mean, spread = fitted[:, :real].mean(axis=0), fitted[:, :real].std(axis=0)
    table[:, :real] = (table[:, :real] - mean) / spread
    order = lambda rows: rows[np.lexsort(rows.T.round(3))]
    for split, residues in (("train", (0, 1, 2)), ("valid", (3,)), ("test", (4,))):
        rows = datasets.tabular(name)[split]
        assert rows["features"].dtype == np.float32
        assert rows["label"].dtype == (np.float32 if name == "diabetes" else np.int32)
        read = np.column_stack([rows["features"], rows["label"]]).astype(np.float32)
        np.testing.assert_allclose(order(read), order(table[np.isin(residue, residues)]), atol=1e-4)


def test_unknown_tables_and_sizes_are_refused():
    with pytest.raises(ValueError, match="'wine'\\], got 'beer'"):
        datasets.tabular("beer")
    with pytest.raises(ValueError, match="max_width must be an integer of at least 4, got 2"):
        TASKS["small_mlps"](max_width=2)
    with pytest.raises(ValueError, match="channels must be an integer of at least 1, got 0"):
        TASKS["digits_cnn"](channels=0)


def test_the_optimizers_of_a_comparison_get_the_same_members(task, data):
    """Run i has one member, whatever trains it: the key alone decides."""
    states = []
    for name in ("sgd", "adam"):
        problem = inner.training(task, LEARNED_OPTIMIZERS[name]())
        theta = problem.init_theta(jax.random.key(5))
        states.append(jax.jit(problem.init)(theta, data, 10, jax.random.key(7)))
    for mine, theirs in zip(*(jax.tree.leaves((s.config, s.params)) for s in states), strict=True):
        assert (mine == theirs).all()
