"""Every fixed member of a family, at a tiny size, and what the families' losses have to be."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import made_or_skipped

from metaopt import UserError
from metaopt.config.components import make_task
from metaopt.tasks import TASKS, quadratics, vae
from metaopt.tasks.signals import signals
from metaopt.tasks.zoo import FAMILIES

MEMBERS = sorted(name for name, factory in TASKS.items() if isinstance(factory, partial))
LOG_2, LOG_10, LOG_97 = math.log(2), math.log(10), math.log(97)
STARTS = {  # of the loss, with kernels near 0
    "autoencoder": (0.01, 0.5),
    "es_gradient": (0.8 * LOG_10, 1.5 * LOG_10),
    "image_cnn": (0.9 * LOG_10, 1.5 * LOG_10),
    "image_mlp": (0.8 * LOG_10, 1.5 * LOG_10),
    "mlp_mixer": (0.95 * LOG_10, 1.05 * LOG_10),
    "nested": (0.6 * LOG_10, 1.5 * LOG_10),  # the mean of the first three steps
    "quadratics": (0.0, 2.0),
    "resnet": (0.9 * LOG_10, 2 * LOG_10),
    "rnn_lm": (0.98 * LOG_97, 1.02 * LOG_97),
    "signal_cnn": (0.9 * LOG_10, 1.2 * LOG_10),
    "signal_mlp": (0.9 * LOG_10, 1.2 * LOG_10),
    "table_mlp": (0.2, 2.0),
    "transformer_lm": (0.95 * LOG_97, 1.05 * LOG_97),
    "vae": (0.9 * LOG_2, 1.5 * LOG_2),
    "vit": (0.95 * LOG_10, 1.05 * LOG_10),
}


def tiny(name):
    """The arguments of the member with narrow layers and small images and batches."""
    member = TASKS[name]
    smaller = {"batch_size": 16, "side": 8, "dim": 4, "latent": 2, "num_steps": 2, "length": 6}
    smaller |= {"width": 8, "heads": 2, "layers": 2, "patch": 4, "token_hidden": 4, "size": 4}
    smaller |= {"channel_hidden": 4, "embedding": 3, "strides": (2,), "blocks": (1,)}
    smaller |= {"hidden": (6, 5, 4)[: len(member.keywords.get("hidden", "1"))], "channels": (4,)}
    taken = member.func.__kwdefaults__
    if not isinstance(taken.get("hidden"), tuple):
        smaller["hidden"] = 8
    return member.keywords | {key: value for key, value in smaller.items() if key in taken}


DIFFERENT = {f"{TASKS[name].func.__name__} {tiny(name)}": name for name in reversed(MEMBERS)}
"""One of each of the members that are the same at a tiny size."""


@pytest.mark.parametrize("name", DIFFERENT.values())
def test_three_steps_of_four_members_at_once(name):
    task = TASKS[name](**tiny(name))
    data = jax.device_put(made_or_skipped(task.data))

    @jax.jit
    @partial(jax.vmap, in_axes=(0, None))
    def run(key, data):
        config = task.sample(key)
        params, losses = task.init(config, key), []
        for i in range(3):
            at = jax.random.fold_in(key, i)
            batch = task.batch(data, config, "train", at)
            loss, grads = jax.value_and_grad(task.loss, argnums=1)(config, params, batch, at)
            params = jax.tree.map(lambda p, g: p - 0.01 * g, params, grads)
            losses.append(loss)
        return jnp.stack(losses), grads

    keys = jax.random.split(jax.random.key(0), 4)
    losses, grads = run(keys, data)
    assert losses.dtype == jnp.float32 and losses.shape == (4, 3)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((losses, grads)))
    assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads))
    again = run(keys, data)
    jax.tree.map(np.testing.assert_array_equal, again, (losses, grads))
    assert len(np.unique(np.asarray(losses[:, 0]))) == 4 or task.data() == ()
    kind, starts = TASKS[name].keywords, np.asarray(losses[:, 0])
    low, high = STARTS[TASKS[name].func.__name__]
    if kind.get("objective") == "mse":
        low, high = 0.5, 4.0  # the squared distance of outputs near 0 to a unit vector
    if kind.get("log"):
        low, high = math.log(1e-6), math.log(high)
    high /= 1 - kind.get("dropout", 0)  # what is left is larger by as much
    assert low <= starts.min() and starts.max() <= high


def test_every_family_has_members_and_every_member_a_family():
    assert sorted(name for members in FAMILIES.values() for name in members) == MEMBERS
    assert {factory.__name__ for factory in FAMILIES} == set(STARTS)


def test_a_members_arguments_may_be_given_and_are_checked():
    task = make_task("digits_mlp_128x128 hidden=[3]")
    assert task.init((), jax.random.key(0))["Dense_0"]["kernel"].shape == (64, 3)
    with pytest.raises(UserError, match=r"norm must be .*, got 3"):
        make_task("digits_mlp_128x128 norm=3")
    with pytest.raises(UserError, match="takes no argument 'widths'"):
        make_task("digits_mlp_128x128 widths=[3]")


@pytest.mark.parametrize(
    "text, said",
    [
        ("image_mlp dropout=1", "dropout must be from 0 to below 1, got 1"),
        ("image_mlp dataset=digit", "dataset must be one of digits, .*, got 'digit'"),
        ("image_mlp activation=relo", "activation must be one of 'gelu', .*, got 'relo'"),
        ("image_mlp init_scale=0", "init_scale must be above 0, got 0"),
        ("image_mlp norm=groups", "norm must be one of None, 'batch', .*, got 'groups'"),
        ("autoencoder hidden=[0]", r"hidden must hold positive integers, got \(0,\)"),
        ("vae latent=0", "latent must be an integer of at least 1, got 0"),
        ("table_mlp dataset=wines", "dataset must be one of 'breast_cancer', .*, got 'wines'"),
        ("signal_cnn channels=[-1]", r"channels must hold positive integers, got \(-1,\)"),
        ("image_cnn channels=[4] strides=[1,1]", r"as many .*, got \(4,\) and \(1, 1\)"),
        ("resnet channels=[]", r"at least one, got \(\) and \(\)"),
        ("rnn_lm cell=lstn", "cell must be one of 'vanilla', .*, got 'lstn'"),
        ("rnn_lm text=nowhere.txt", "text must be 'grammar', .* no file 'nowhere.txt'"),
        ("rnn_lm level=words", "level must be one of 'characters', 'bytes', got 'words'"),
        ("transformer_lm width=9 heads=2", "width must be a multiple of heads=2, got 9"),
        ("vit patch=3", "patch must divide side=8, got 3"),
        ("es_gradient sigma=0", "sigma must be above 0, got 0"),
        ("es_gradient task=digit_mlp", "unknown task 'digit_mlp'"),
        ("nested optimizer=mpl", "unknown learned optimizer 'mpl': did you mean 'mlp'"),
        ("nested num_steps=0", "num_steps must be an integer of at least 1, got 0"),
        ("quadratics condition=0.5", "condition must be at least 1, got 0.5"),
        ("quadratics noise=-1", "noise must be at least 0, got -1"),
    ],
)
def test_a_value_out_of_range_is_a_sentence(text, said):
    with pytest.raises(UserError, match=said):
        make_task(text)


def test_the_variational_bound_where_the_decoder_looks_at_no_code():
    """Then it is the cross-entropy of the pixels and the divergence, both on paper."""
    task = vae(hidden=(3,), latent=2, batch_size=1)
    params = jax.tree.map(lambda leaf: leaf + 0.1, task.init((), jax.random.key(0)))
    params["decoder"]["Dense_0"]["kernel"] *= 0.0
    image = task.data()["train"]["image"][:1]
    said = task.loss((), params, {"image": image}, jax.random.key(1))

    def net(layers, x):
        first, last = (jax.tree.map(np.float64, layers[f"Dense_{i}"]) for i in range(2))
        return np.maximum(x @ first["kernel"] + first["bias"], 0) @ last["kernel"] + last["bias"]

    x = image.reshape(64) / 16.0
    p = 1 / (1 + np.exp(-net(params["decoder"], np.zeros(2))))
    mean, log_deviation = np.split(net(params["encoder"], x), 2)
    pixels = -(x * np.log(p) + (1 - x) * np.log(1 - p)).sum()
    divergence = (mean**2 + np.exp(2 * log_deviation) - 1 - 2 * log_deviation).sum() / 2
    assert float(said) == pytest.approx((pixels + divergence) / 64, rel=1e-5)


def test_a_quadratics_minimum_gradient_and_noise():
    task = quadratics(dim=6, condition=100.0, noise=2.0)
    bowl = task.sample(jax.random.key(3))
    zero, noisy = (task.batch((), bowl, split, jax.random.key(4)) for split in ("valid", "train"))
    x = jnp.arange(6.0)
    grad = jax.grad(task.loss, argnums=1)
    np.testing.assert_allclose(grad(bowl, bowl.centre, zero, None), 0, atol=1e-7)
    np.testing.assert_allclose(
        grad(bowl, x, noisy, None) - grad(bowl, x, zero, None), noisy / 3, rtol=1e-4, atol=1e-6
    )
    hessian = np.asarray(jax.hessian(task.loss, argnums=1)(bowl, x, zero, None), np.float64)
    curvatures = np.linalg.eigvalsh(hessian) * 6
    np.testing.assert_allclose(curvatures, 100.0 ** -np.linspace(1, 0, 6), rtol=1e-3)


def test_signals_are_told_apart_and_the_same_everywhere():
    splits = signals()
    rows = [(len(rows["label"]), np.bincount(rows["label"]).tolist()) for rows in splits.values()]
    assert rows == [(3000, [300] * 10), (1000, [100] * 10), (1000, [100] * 10)]
    train, test = splits["train"], splits["test"]
    distance = np.square(test["signal"][:, None] - train["signal"]).sum(axis=-1)
    found = train["label"][distance.argmin(axis=1)]
    assert 0.4 < (found == test["label"]).mean() < 0.8  # nearest neighbours do not see shifts
    np.testing.assert_array_equal(signals(rows=50)["test"]["label"], test["label"][:10])
