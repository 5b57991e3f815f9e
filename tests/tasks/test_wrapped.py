"""Tasks made of tasks: gradients by an evolution strategy, and meta-training as a task."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import metaopt
from metaopt import UserError, make_task
from metaopt.tasks import digits_mlp, es_gradient, nested, quadratic


def gradient(task, params, config, keys):
    grad = jax.jit(jax.vmap(jax.grad(task.loss, argnums=1), in_axes=(None, None, None, 0)))
    return grad(config, params, (), keys)


def test_its_gradient_is_unbiased_and_its_variance_the_formulas():
    """Of a quadratic a pair's difference is exact: g_i = e_i e_i^T g, with mean g.

    Its covariance has the trace (d + 1) |g|^2, for P pairs over P.
    """
    plain = quadratic(dim=3)
    config = plain.sample(jax.random.key(0))
    params = plain.init(config, jax.random.key(1))
    exact = np.asarray(jax.grad(plain.loss, argnums=1)(config, params, (), None), np.float64)
    keys = jax.random.split(jax.random.key(2), 20_000)
    for pairs in (1, 4):
        found = gradient(es_gradient(task=plain, sigma=0.1, pairs=pairs), params, config, keys)
        found = np.asarray(found, np.float64)
        trace = 4 * (exact @ exact) / pairs
        error = np.sqrt(trace / len(keys))
        assert np.abs(found.mean(axis=0) - exact).max() < 4 * error
        assert found.var(axis=0).sum() == pytest.approx(trace, rel=0.05)


def test_its_losses_and_all_else_are_the_tasks():
    plain = digits_mlp(hidden=(4,))
    task, key = es_gradient(task=plain), jax.random.key(0)
    params, batch = plain.init((), key), plain.batch(plain.data(), (), "train", key)
    of = lambda measure: measure((), params, batch, key)
    assert of(task.loss) == of(plain.loss) == of(task.outer_loss)
    assert of(task.accuracy) == of(plain.accuracy)


def test_a_nested_task_is_training_by_hand():
    """Gradient descent on |x|^2 / (2 d): a loss shrinks by (1 - rate / d)^2 a step."""
    task = nested(task="quadratic dim=2", optimizer="sgd", num_steps=3)
    theta = {"log_lr": jnp.float32(-1.0)}
    batch = task.batch(task.data(), (), "train", jax.random.key(0))
    plain = make_task("quadratic dim=2")

    def by_hand(theta):
        config, params, _ = (jax.random.split(batch["keys"][0], 3)[i] for i in range(3))
        member = plain.sample(config)
        start = plain.loss(member, plain.init(member, params), (), None)
        return start * ((1 - jnp.exp(theta["log_lr"]) / 2) ** (2.0 * jnp.arange(1.0, 4.0))).mean()

    for of in (lambda f: f(theta), lambda f: jax.grad(f)(theta)["log_lr"]):
        ours, theirs = of(lambda at: task.loss((), at, batch, None)), of(by_hand)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_a_nested_task_trains_on_one_splits_rows():
    task = nested(task="iris_mlp_32", num_steps=2, batch_size=3)
    data = task.data()
    batch = task.batch(data, (), "test", jax.random.key(0))
    assert batch["keys"].shape == (3,) and set(batch["data"]) == {"train", "valid"}
    for rows in batch["data"].values():
        np.testing.assert_array_equal(rows["label"], data["test"]["label"])


def test_faults_are_sentences():
    with pytest.raises(UserError, match="pairs must be an integer of at least 1, got 0"):
        make_task("es_gradient pairs=0")
    with pytest.raises(ValueError, match="a task's name or a"):
        es_gradient(task=3)
    with pytest.raises(ValueError, match="a task's name or a"):
        nested(task=3)
    with pytest.raises(UserError, match="takes no argument 'hiden'"):
        make_task("nested optimizer=mlp:hiden=[3]")
    assert metaopt.flops_of(nested(task="quadratic", optimizer="sgd", num_steps=2)) > 0
