"""Conformance of everything in the catalogues, and the directions of imports."""

import inspect
import subprocess
import sys
from functools import partial
from typing import get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small import made_or_skipped

import metaopt
from metaopt import unroll
from metaopt.config.components import make
from metaopt.config.recipes import RECIPES
from metaopt.config.registry import catalogue
from metaopt.config.schema import Component
from metaopt.core.errors import UserError
from metaopt.learned_optimizers import LEARNED_OPTIMIZERS
from metaopt.tasks import PROBLEMS, TASKS, datasets
from metaopt.training.experiment import build

PARAMS = {"kernel": jnp.ones((3, 4)), "bias": jnp.zeros(4), "scale": jnp.float32(2.0)}


def specs(tree):
    return jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.asarray(leaf).dtype), tree)


def test_the_mlp_rule_equals_the_dense_network_it_stands_for():
    """The folded first layer and the fused last one against plain dense layers on 19 inputs."""
    optimizer = LEARNED_OPTIMIZERS["mlp"]()
    theta = optimizer.init(jax.random.key(0))
    g, p = jax.random.normal(jax.random.key(1), (2, 5, 7))
    tx = optimizer.optimizer(theta)
    updates, _ = tx.update(g, tx.init(p), p)

    decays = np.array([0.1, 0.5, 0.9, 0.99, 0.999, 0.9999])
    x = np.concatenate(
        [g[..., None], p[..., None], g[..., None] * (1 - decays)], -1, dtype=np.float64
    )
    x = x / np.sqrt(1e-5 + np.square(x).mean(axis=(0, 1)))
    time = np.tanh(0 / np.array([1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4, 3e4, 1e5]) - 1)
    x = np.concatenate([x, np.broadcast_to(time, (5, 7, 11))], axis=-1)
    for i in range(3):
        layer = theta[f"layer_{i}"]
        x = (x if i == 0 else np.maximum(x, 0)) @ np.asarray(layer["kernel"]) + layer["bias"]
    expected = -x[..., 0] * np.exp(1e-3 * x[..., 1]) * 1e-3
    np.testing.assert_allclose(updates, expected, rtol=2e-4, atol=1e-8)


def test_scheduled_adam_starts_as_adamw_and_follows_its_knots():
    optimizer = LEARNED_OPTIMIZERS["scheduled_adam"](knots=3)
    theta = optimizer.init(jax.random.key(0))
    theta |= {"schedule": jnp.array([0.0, -1.0, -3.0]), "log_vector_rate": jnp.float32(0.5)}
    theta |= {"horizon_exponent": jnp.float32(0.5)}
    params = {"w": jnp.array([[1.0, -2.0]]), "b": jnp.array([3.0])}
    ours, theirs = optimizer.optimizer(theta, 400), optax.adamw(1e-2)
    state, reference = ours.init(params), theirs.init(params)
    for t in range(6):
        grads = jax.tree.map(jnp.sin, params)
        updates, state = ours.update(grads, state, params)
        with jax.numpy_dtype_promotion("standard"):
            expected, reference = theirs.update(grads, reference, params)
        rate = 2 * np.exp(-2 * t / 400)  # sqrt(400 / 100), and -1 half-way through
        np.testing.assert_allclose(updates["w"], rate * expected["w"], rtol=1e-4)
        np.testing.assert_allclose(updates["b"], rate * np.exp(0.5) * expected["b"], rtol=1e-4)
        params = optax.apply_updates(params, updates)


def test_gated_adam_starts_as_scheduled_adam_and_leaves_what_has_no_gradient():
    """Also with wild gates: no gradient, no step; gradients in other units, the same step."""
    gated, scheduled = (LEARNED_OPTIMIZERS[f"{kind}_adam"] for kind in ("gated", "scheduled"))
    theta = gated().init(jax.random.key(0))
    plain = scheduled(knots=5).init(jax.random.key(0))
    params = {"w": jnp.array([[1.0, -2.0], [0.3, 0.5]]), "b": jnp.array([3.0, -1.0])}
    ours, theirs = gated().optimizer(theta, 50), scheduled(knots=5).optimizer(plain, 50)
    state, reference = ours.init(params), theirs.init(params)
    for _ in range(3):
        grads = jax.tree.map(jnp.sin, params)
        updates, state = ours.update(grads, state, params)
        expected, reference = theirs.update(grads, reference, params)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), updates, expected)
        params = optax.apply_updates(params, updates)

    theta["gates"] = jax.tree.map(lambda leaf: leaf + 3.0, theta["gates"])
    theta["adam"]["log_weight_decay"] = jnp.float32(-100.0)
    wild = gated().optimizer(theta, 50)
    grads = {"w": jnp.array([[0.0, 1.0], [3.0, -1.0]]), "b": jnp.array([0.0, 1.0])}
    state, larger = wild.init(params), wild.init(params)
    for _ in range(3):
        updates, state = wild.update(grads, state, params)
        scaled = jax.tree.map(lambda leaf: 1000 * leaf, grads)
        others, larger = wild.update(scaled, larger, params)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4), updates, others)
    for name, grad in grads.items():
        assert (np.asarray(updates[name])[grad == 0] == 0).all()
        assert (np.asarray(updates[name])[grad != 0] != 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in TASKS if not isinstance(TASKS[n], partial)])
def test_task(name):
    """Batches of every split, a loss that a gradient step lowers, the whole split without a key."""
    task = TASKS[name]()
    data = made_or_skipped(task.data)
    data = jax.device_put(jax.tree.map(lambda leaf: leaf[:5000], data))  # of a large set, a part
    key = jax.random.key(0)
    config = jax.jit(task.sample)(key)
    params = jax.jit(task.init)(config, key)
    batch_of = jax.jit(task.batch, static_argnums=2)
    loss_and_grad = jax.jit(jax.value_and_grad(task.loss, argnums=1))
    for split in ("train", "valid", "test"):
        loss, _ = loss_and_grad(config, params, batch_of(data, config, split, key), key)
        assert loss.shape == () and np.isfinite(loss)
        whole = batch_of(data, config, split, None)
        loss, grads = loss_and_grad(config, params, whole, key)
        stepped = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
        assert loss_and_grad(config, stepped, whole, key)[0] < loss


@pytest.mark.parametrize("name", PROBLEMS)
def test_problem(name):
    problem = made_or_skipped(PROBLEMS[name])
    theta, data = problem.init_theta(jax.random.key(0)), jax.device_put(problem.data())
    state = problem.init(theta, data, 4, jax.random.key(1))
    after, losses = unroll(problem, theta, state, data, 4)
    assert specs(after) == specs(state)
    assert losses.dtype == jnp.float32 and np.isfinite(losses).all()


def test_digits_splits_are_disjoint_and_complete():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    splits = datasets.digits()
    assert {name: len(rows["label"]) for name, rows in splits.items()} == {
        "train": 1079,
        "valid": 359,
        "test": 359,
    }
    for name, residues in (("train", (0, 1, 2)), ("valid", (3,)), ("test", (4,))):
        chosen = np.isin(np.arange(len(labels)) % 5, residues)
        expected = sorted(
            zip(images[chosen].astype(int).tolist(), labels[chosen].tolist(), strict=True)
        )
        rows = splits[name]
        assert rows["image"].dtype == np.uint8
        assert sorted(zip(rows["image"].tolist(), rows["label"].tolist(), strict=True)) == expected


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_can_be_built(name):
    """Every constant of a recipe is one that its pieces take."""
    assert made_or_skipped(build, RECIPES[name]).estimator is not None


def test_entry_points_carry_the_catalogues():
    assert catalogue("task").keys() >= TASKS.keys()
    assert catalogue("problem").keys() >= PROBLEMS.keys()
    assert catalogue("learned optimizer").keys() >= LEARNED_OPTIMIZERS.keys()


@pytest.mark.parametrize(
    "factory, arguments, said",
    [
        (TASKS["digits_mlp"], {"hidden": (0,)}, "hidden must hold positive integers, got (0,)"),
        (
            TASKS["digits_mlp"],
            {"batch_size": 0},
            "batch_size must be an integer of at least 1, got 0",
        ),
        (TASKS["digits_mlp"], {"activation": "sine"}, "'gelu', 'relu', 'silu', 'tanh', got 'sine'"),
        (TASKS["quadratic"], {"dim": 0}, "dim must be at least 1"),
        (PROBLEMS["linear_recursion"], {"loss": "cubic"}, "'linear' or 'quadratic', got 'cubic'"),
        (LEARNED_OPTIMIZERS["mlp"], {"hidden": ()}, "one or more positive integers, got ()"),
        (
            LEARNED_OPTIMIZERS["sgd"],
            {"learning_rate": 0.0},
            "learning_rate must be a finite number",
        ),
        (LEARNED_OPTIMIZERS["adam"], {"beta1": 1.0}, "1 - beta1 must be a finite number above 0"),
        (LEARNED_OPTIMIZERS["adafac_mlp"], {"hidden": (4, 0)}, "positive integers, got (4, 0)"),
        (LEARNED_OPTIMIZERS["lstm"], {"output_scale": -1.0}, "a finite number above 0, got -1.0"),
        (
            LEARNED_OPTIMIZERS["velo"],
            {"loss_features": "bugged"},
            "'corrected' or 'released', got 'bugged'",
        ),
        (
            LEARNED_OPTIMIZERS["velo"],
            {"param_inits": 0},
            "param_inits must be a positive integer, got 0",
        ),
        (LEARNED_OPTIMIZERS["scheduled_adam"], {"knots": 1}, "an integer of at least 2, got 1"),
        (LEARNED_OPTIMIZERS["celo"], {"scheduler": 1}, "scheduler must be True or False, got 1"),
        (
            LEARNED_OPTIMIZERS["celo2"],
            {"learning_rate": -1.0},
            "learning_rate must be a finite number of at least 0, got -1.0",
        ),
    ],
)
def test_factories_refuse_bad_values(factory, arguments, said):
    with pytest.raises(ValueError) as error:
        factory(**arguments)
    assert said in str(error.value)


def test_import_metaopt_is_light():
    heavy = [
        "gymnasium",
        "matplotlib",
        "mujoco",
        "rich",
        "sklearn",
        "tensorboardX",
        "tensorflow_datasets",
        "torch",
        "tyro",
    ]
    code = f"import sys, metaopt; sys.exit(', '.join(m for m in {heavy} if m in sys.modules) or 0)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_are_documented():
    for name in metaopt.__all__:
        thing = getattr(metaopt, name)
        if callable(thing) or inspect.ismodule(thing):
            assert inspect.getdoc(thing), name


@pytest.mark.parametrize("kind", ["task", "problem", "learned optimizer"])
def test_arguments_of_another_type_are_refused_by_name(kind):
    wrong = {int: "2.5", float: "three", bool: "1", str: "7"}
    tried = 0
    for name, factory in catalogue(kind).items():
        for argument, type_of in get_type_hints(getattr(factory, "func", factory)).items():
            if type_of in wrong and argument != "return":
                component = Component(name, (f"{argument}={wrong[type_of]}",))
                with pytest.raises(UserError, match=f"{argument} must be {type_of.__name__}, got"):
                    make(kind, component)
                tried += 1
    assert tried > 3
