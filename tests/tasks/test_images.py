"""The paper's image tasks, on random images of their shapes: no data set is needed."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaopt import inner, unroll
from metaopt.config.recipes import recipe
from metaopt.evaluation.trials import run_trial
from metaopt.learned_optimizers import sgd
from metaopt.tasks import cifar_cnn, fashion_mlp
from metaopt.training.experiment import build

THETA = {"log_lr": jnp.float32(-2.0)}


def random_images(side, channels, rows=12, classes=10):
    """Splits of as many rows each."""
    rng = np.random.default_rng(0)
    split = lambda: {
        "image": rng.integers(0, 256, (rows, side, side, channels), np.uint8),
        "label": rng.integers(0, classes, rows).astype(np.int32),
    }
    return jax.device_put({name: split() for name in ("train", "valid", "test")})


def small_mlp(**arguments):
    return fashion_mlp(side=2, hidden=(3,), batch_size=4, **arguments)


def losses_of(task, data, key, steps=5):
    problem = inner.training(task, sgd())
    state = problem.init(THETA, data, steps, jax.random.key(key))
    return unroll(problem, THETA, state, data, steps)[1]


def test_a_single_sequence_is_the_same_whatever_the_particle():
    """Init and batches, step by step; without it every episode has its own."""
    data = random_images(2, 1)
    one, other = (losses_of(small_mlp(single_sequence=True), data, key) for key in (1, 2))
    np.testing.assert_array_equal(one, other)
    assert len(set(one.tolist())) == 5  # each step has a batch of its own all the same
    assert (losses_of(small_mlp(), data, 1) != losses_of(small_mlp(), data, 2)).all()


def test_an_evaluation_has_runs_of_its_own():
    data, stacked = random_images(2, 1), {"log_lr": THETA["log_lr"][None]}
    task = small_mlp(single_sequence=True)
    trial, _ = run_trial(task, sgd(), stacked, data, horizons=(2,), every=1, seeds=2)
    first, second = trial.curves[2][0]
    assert (first != second).all()


def test_the_test_loss_is_the_mean_of_an_unperturbed_episode():
    data = random_images(2, 1)
    task = small_mlp(single_sequence=True)
    problem = inner.training(task, sgd(), test_steps=5)
    expected = losses_of(task, data, 0).mean()
    assert float(problem.test_loss(THETA, data, jax.random.key(3))) == pytest.approx(
        float(expected), rel=1e-6
    )
    assert inner.training(task, sgd()).test_loss is None


def test_the_meta_loss_is_clipped_image_by_image_and_the_inner_loss_is_not():
    """A network that is wrong by 100 nats on one image of two: (1.5 log 10 + ~0) / 2."""
    task = cifar_cnn(side=16, batch_size=2)
    params = jax.tree.map(jnp.zeros_like, task.init((), jax.random.key(0)))
    params["Dense_0"]["bias"] = params["Dense_0"]["bias"].at[3].set(100.0)
    batch = {"image": np.zeros((2, 16, 16, 3), np.uint8), "label": np.array([3, 5], np.int32)}
    assert float(task.loss((), params, batch, None)) == pytest.approx(50)
    clip = 1.5 * math.log(10)
    assert float(task.outer_loss((), params, batch, None)) == pytest.approx(clip / 2, rel=1e-5)
    params["Dense_0"]["bias"] = params["Dense_0"]["bias"].at[3].set(jnp.nan)
    assert float(task.outer_loss((), params, batch, None)) == pytest.approx(clip, rel=1e-5)
    assert cifar_cnn(clip=None).outer_loss is None and fashion_mlp().outer_loss is None


def test_the_meta_loss_is_the_outer_loss():
    """After a step of a rate that makes everything NaN."""
    data = random_images(16, 3)
    problem = inner.training(cifar_cnn(side=16, batch_size=2), sgd())
    theta = {"log_lr": jnp.float32(80.0)}
    state = problem.init(theta, data, 2, jax.random.key(0))
    _, losses = unroll(problem, theta, state, data, 2)
    assert float(losses[-1]) == pytest.approx(1.5 * math.log(10), rel=1e-5)


@pytest.mark.parametrize(
    "make, arguments, said",
    [
        (fashion_mlp, {"dataset": "clothes"}, "dataset must be one of fashion_mnist, mnist"),
        (fashion_mlp, {"hidden": (0,)}, r"hidden must hold positive integers, got \(0,\)"),
        (fashion_mlp, {"side": 0}, "side must be an integer of at least 1, got 0"),
        (cifar_cnn, {"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
        (cifar_cnn, {"side": 8}, "side must be an integer of at least 16, got 8"),
        (cifar_cnn, {"clip": 0.0}, "clip must be above 0 or None, got 0.0"),
    ],
)
def test_bad_arguments_are_refused(make, arguments, said):
    with pytest.raises(ValueError, match=said):
        make(**arguments)


# Of experiments.md: N, W, K, sigma; the outer optimizer's rate; updates.
ES = {"nres": 1000, "pes": 1, "gpes_4": 4, "gpes_16": 16, "gpes_64": 64, "gpes_256": 256}
FASHION = {name: (100, 1, k, 0.01, 3e-4, 240_000) for name, k in ES.items()} | {
    "full_es": (10, 1000, None, 0.01, 3e-2, 5_000),
    "truncated_es": (100, 1, None, 0.01, 1e-3, 180_000),
    "bptt": (1, 1000, None, None, 3e-4, 2_000),
    "tbptt": (100, 1, None, None, 1e-2, 320_000),
    "forward": (100, 1, 1000, None, 1e-5, 290_000),
    "uoro": (100, 1, None, None, 3e-5, 260_000),
}
CIFAR = {
    "nres": (10, 100, 1000, 0.01, 3e-4, 20_000),
    "pes": (10, 100, 100, 0.01, 3e-4, 20_000),
    "full_es": (1, 1000, None, 0.01, 1e-3, 20_000),
    "truncated_es": (10, 100, None, 0.01, 1e-3, 20_000),
}
PUBLISHED = {
    **{f"fashion_mlp_{name}": constants for name, constants in FASHION.items()},
    **{f"cifar_cnn_{name}": constants for name, constants in CIFAR.items()},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipes_have_the_published_constants(name):
    config = recipe(name)
    chosen = config.estimator
    sigma = getattr(chosen, "sigma", None)
    found = (chosen.particles, chosen.depth, chosen.noise_period, sigma)
    assert (*found, config.outer.learning_rate, config.outer_steps) == PUBLISHED[name]
    assert chosen.horizon == 1000 and config.task.args == ("single_sequence=true",)
    assert config.outer.optimizer == ("sgd" if name == "fashion_mlp_tbptt" else "adam")
    assert build(config).problem.test_loss is not None
