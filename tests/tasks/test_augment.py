"""What an augmentation must leave as it is, and what it changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaopt import Task, UserError, inner
from metaopt.config.components import make_task
from metaopt.core.check import check_task
from metaopt.learned_optimizers import LEARNED_OPTIMIZERS
from metaopt.tasks import augment, digits_mlp, small_mlps


def line_fit():
    x = np.linspace(-1, 1, 32, dtype=np.float32)[:, None]
    parts = {"train": {"x": x, "y": 2 * x}, "valid": {"x": x, "y": 2 * x}}

    def batch(data, config, split, key):
        rows = data[split]
        if key is None:
            return rows
        index = jax.random.randint(key, (4,), 0, 32)
        return jax.tree.map(lambda leaf: leaf[index], rows)

    return Task(
        init=lambda config, key: {"w": jax.random.normal(key, (1,), jnp.float32)},
        loss=lambda config, params, batch, key: jnp.square(
            batch["x"] @ params["w"][:, None] - batch["y"]
        ).mean(),
        batch=batch,
        data=lambda: parts,
    )


KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def plain():
    return digits_mlp(hidden=(4,), batch_size=32)


@pytest.fixture(scope="module")
def data(plain):
    return jax.device_put(plain.data())


@pytest.mark.parametrize("rescale", ["tensor", "global", "parameter"])
def test_rescaled_it_is_the_same_function_of_the_true_parameters(rescale, plain, data):
    task = augment(task=plain, rescale=rescale)
    config = task.sample(KEY)
    ours, theirs = task.init(config, KEY), plain.init((), KEY)
    scale = config.scale
    scales = jax.tree.map(lambda leaf: scale, theirs) if rescale == "global" else scale
    times = lambda tree: jax.tree.map(lambda leaf, s: leaf * s, tree, scales)
    close = lambda a, b: jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-3, atol=1e-6), a, b
    )
    close(times(ours), theirs)
    batch = task.batch(data, config, "train", KEY)
    said, grads = jax.value_and_grad(task.loss, argnums=1)(config, ours, batch, KEY)
    expected, true_grads = jax.value_and_grad(plain.loss, argnums=1)((), theirs, batch, KEY)
    np.testing.assert_allclose(said, expected, rtol=1e-5)
    close(grads, times(true_grads))
    drawn = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(scale)])
    assert {"global": 1, "tensor": 4, "parameter": 310}[rescale] == len(np.unique(drawn))
    assert (drawn > 1e-3 * 0.999).all() and (drawn < 1e3 * 1.001).all()
    if rescale == "parameter":
        assert np.log10(drawn).std() == pytest.approx(2 * 3 / 12**0.5, rel=0.1)


def test_with_nothing_asked_for_it_is_the_task_itself(plain, data):
    task = augment(task=plain)
    config = task.sample(KEY)
    params = task.init(config, KEY)
    jax.tree.map(np.testing.assert_array_equal, params, plain.init((), KEY))
    for split in ("train", "test"):
        for key in (KEY, None):
            batch = task.batch(data, config, split, key)
            theirs = plain.batch(data, (), split, key)
            jax.tree.map(np.testing.assert_array_equal, batch, theirs)
            assert task.loss(config, params, batch, KEY) == plain.loss((), params, theirs, KEY)


def test_less_data_is_as_many_batches_and_the_episodes_own(plain, data):
    """A tenth of 1079 rows are three batches of 32."""
    task = augment(task=plain, data_fraction=0.1)
    draw = jax.jit(lambda config, key: task.batch(data, config, "train", key)["image"])
    one, other = (task.sample(jax.random.key(i)) for i in range(2))
    seen = [
        {np.asarray(draw(config, jax.random.key(i))).tobytes() for i in range(40)}
        for config in (one, other)
    ]
    assert [len(batches) for batches in seen] == [3, 3] and not seen[0] & seen[1]
    whole = task.batch(data, one, "train", None)["image"]
    np.testing.assert_array_equal(whole, data["train"]["image"])


def test_smaller_batches_repeat_their_rows(plain, data):
    task = augment(task=plain, batch_fraction=0.125)
    counts = []
    for i in range(200):
        config = task.sample(jax.random.key(i))
        if i < 10:
            rows = task.batch(data, config, "train", KEY)
            theirs = plain.batch(data, (), "train", KEY)
            count = max(1, round(float(config.kept) * 32))
            for name, leaf in rows.items():
                np.testing.assert_array_equal(leaf, theirs[name][np.arange(32) % count])
        counts.append(float(config.kept))
    assert 0.125 <= min(counts) < 0.15 and 0.85 < max(counts) <= 1
    assert np.log(counts).mean() == pytest.approx(np.log(0.125) / 2, rel=0.1)


def test_wrong_labels_are_of_the_batch_and_of_training_alone(plain, data):
    many = digits_mlp(hidden=(4,), batch_size=2000)
    task = augment(task=many, label_noise=0.5)
    drawn = {}
    for split in ("train", "valid", "test"):
        ours = task.batch(data, task.sample(KEY), split, KEY)
        theirs = many.batch(data, (), split, KEY)
        np.testing.assert_array_equal(ours["image"], theirs["image"])
        drawn[split] = float((ours["label"] != theirs["label"]).mean())
    # A tenth of the others are right by chance.
    assert drawn == {"train": pytest.approx(0.5 * 0.9, abs=0.05), "valid": 0, "test": 0}


@pytest.mark.parametrize("dtype, digits", [("bfloat16", 8), ("float16", 11)])
def test_coarse_numbers_round_parameters_and_gradients(dtype, digits, plain, data):
    task = augment(task=plain, dtype=dtype)
    config, params = task.sample(KEY), plain.init((), KEY)
    batch = plain.batch(data, (), "train", KEY)
    said, grads = jax.value_and_grad(task.loss, argnums=1)(config, params, batch, KEY)
    narrow = jax.tree.map(lambda leaf: leaf.astype(dtype).astype(jnp.float32), params)
    assert said == plain.loss((), narrow, batch, KEY) and said.dtype == jnp.float32
    for leaf in jax.tree.leaves(grads):
        assert leaf.dtype == jnp.float32
        np.testing.assert_array_equal(leaf, leaf.astype(dtype).astype(jnp.float32))
        mantissa, _ = np.frexp(np.asarray(leaf, np.float64))
        assert (mantissa * 2.0**digits % 1 == 0).all() or dtype == "float16"  # it has subnormals


def test_all_at_once_it_trains_with_members_and_without_data():
    """Of a family, whose members have batch sizes of their own, and of a task without data."""
    everything = {
        "rescale": "tensor", "scale_range": 10.0, "data_fraction": 0.5, "batch_fraction": 0.5,
        "label_noise": 0.1, "dtype": "bfloat16",
    }  # fmt: skip
    without_data = {key: everything[key] for key in ("rescale", "scale_range", "dtype")}
    for task, options in (
        (small_mlps(max_width=4, max_depth=1), everything),
        ("quadratic dim=3", without_data),
    ):
        problem = inner.training(augment(task=task, **options), LEARNED_OPTIMIZERS["sgd"]())
        data, theta = problem.data(), problem.init_theta(KEY)
        state = problem.init(theta, data, 4, KEY)
        step = jax.jit(problem.step)
        for _ in range(3):
            state, loss = step(theta, state, data)
        assert np.isfinite(loss)


@pytest.mark.parametrize(
    ("text", "lacks"),
    [
        ("task=quadratic data_fraction=0.5", "data_fraction .* has no data"),
        ("task=quadratic batch_fraction=0.5", "batch_fraction .* has no data"),
        ("task=quadratic label_noise=0.1", "label_noise .* has no leaf called 'label'"),
        ("task=grammar_transformer_20 label_noise=0.1", "label_noise .* has no leaf called"),
    ],
)
def test_an_option_that_changes_nothing_is_refused(text, lacks):
    task = make_task(f"augment {text}")
    with pytest.raises(UserError, match=lacks):
        task.batch(task.data(), task.sample(KEY), "train", KEY)


def test_labels_that_a_loss_does_not_read_are_refused():
    """An autoencoder's batches have labels; its loss computes nothing with them."""
    for name, reads in (("digits_mlp:hidden=[4]", True), ("digits_autoencoder_32x32x32", False)):
        task = augment(task=name, label_noise=0.1)
        member = task.sample(KEY)
        params, batch = task.init(member, KEY), task.batch(task.data(), member, "train", KEY)
        if reads:
            assert np.isfinite(task.loss(member, params, batch, KEY))
            continue
        with pytest.raises(UserError, match="no loss that depends on its labels"):
            task.loss(member, params, batch, KEY)


def test_data_may_be_numpys():
    """As a task of one's own has it; traced or not."""
    task = augment(task=line_fit(), data_fraction=0.5)
    check_task("mine", task, task.data())
    member = task.sample(KEY)
    plain = task.batch(task.data(), member, "train", KEY)
    traced = jax.jit(lambda key: task.batch(task.data(), member, "train", key))(KEY)
    np.testing.assert_array_equal(plain["x"], traced["x"])


def test_a_value_out_of_range_is_a_sentence():
    for text, said in [
        ("rescale=all", "rescale must be .*'tensor'.*, got 'all'"),
        ("scale_range=10", "scale_range is that of rescale, got 10.* without it"),
        ("rescale=tensor scale_range=0.5", "scale_range must be from 1 to 1e18, got 0.5"),
        (
            "task=5",
            "task must be a task's name or a metaopt.Task, got 5",
        ),
        ("data_fraction=0", "data_fraction must be above 0 and at most 1, got 0"),
        ("batch_fraction=2", "batch_fraction must be above 0 and at most 1, got 2"),
        ("label_noise=-1", "label_noise must be from 0 to 1, got -1"),
        ("dtype=int8", "dtype must be .*, got 'int8'"),
        ("task=lorenz", "'lorenz' is the name of a problem, not of a task"),
        ("task=digit_mlp", "unknown task 'digit_mlp': did you mean 'digits_mlp'"),
    ]:
        with pytest.raises(UserError, match=said):
            make_task(f"augment {text}")
    for value in ("0.5", True, None, float("nan")):
        with pytest.raises(ValueError, match="data_fraction must be above 0 and at most 1, got"):
            augment(data_fraction=value)
    for text in (
        "augment task=digits_mlp:hidden=[4] rescale=global",
        "augment task='digits_mlp hidden=[4]' rescale=global",
        "augment:task=digits_mlp hidden=[4]:rescale=global",
        "augment task='augment task=quadratic:dim=2 rescale=global' dtype=float16",
    ):
        assert isinstance(make_task(text), Task)
    for text, said in [
        (None, "a task is asked for by its name, got None"),
        ("digits_mlp hidden=[8, 8]", r"got '8\]'; a list has no spaces: \[8,8\]"),
        ("digits_mlp activation='relu", "a quote that is not closed"),
        ("digits_mlp hidden=8", r"hidden must be a list of int, such as \[8,8\], got 8"),
    ]:
        with pytest.raises(UserError, match=said):
            make_task(text)
