"""Inner training: what a learned optimizer is meta-trained on."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metaopt import Task, inner, unroll
from metaopt.learned_optimizers import sgd
from metaopt.tasks import quadratic


def test_gradient_descent_on_a_quadratic_by_hand():
    """x_t = (1 - lr / dim)^t x_0 and the loss after step t is |x_t|^2 / (2 dim)."""
    problem = inner.training(quadratic(dim=4), sgd())
    theta = {"log_lr": jnp.log(jnp.float32(0.4))}
    state = problem.init(theta, (), 5, jax.random.key(0))
    factors = (1 - 0.4 / 4) ** (2 * np.arange(1, 6))
    expected = factors * float(jnp.square(state.params).mean() / 2)
    after, losses = unroll(problem, theta, state, (), 5)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert int(after.step) == 5 and int(after.horizon) == 5


def noisy_task():
    """Every draw of a batch is a fresh number, and the loss is just it."""
    return Task(
        data=lambda: (),
        init=lambda config, key: jax.random.normal(key, (2,)),
        batch=lambda data, config, split, key: jax.random.normal(key) + float(split == "valid"),
        loss=lambda config, params, batch, key: batch + 0.0 * params.sum(),
    )


def test_randomness_follows_from_the_key_alone():
    problem = inner.training(noisy_task(), sgd())
    theta, other = ({"log_lr": jnp.float32(x)} for x in (-3.0, 1.0))
    run = lambda theta, key: unroll(problem, theta, problem.init(theta, (), 4, key), (), 4)[1]
    key = jax.random.key(0)
    np.testing.assert_array_equal(run(theta, key), run(other, key))  # antithetic halves agree
    assert len(set(run(theta, key).tolist())) == 4  # each step draws anew
    assert (run(theta, key) != run(theta, jax.random.key(1))).all()


@pytest.mark.parametrize("split, mean", [("train", 0.0), ("valid", 1.0)])
def test_the_outer_loss_comes_from_the_outer_split(split, mean):
    problem = inner.training(noisy_task(), sgd(), outer_split=split)
    theta = {"log_lr": jnp.float32(0.0)}
    _, losses = unroll(problem, theta, problem.init(theta, (), 4, jax.random.key(0)), (), 2000)
    assert losses.mean() == pytest.approx(mean, abs=0.1)


def test_the_loss_is_handed_to_the_optimizer():
    def optimizer(theta, num_steps=None):
        def update(updates, state, params=None, *, value, **extra_args):
            return jax.tree.map(jnp.zeros_like, updates), value

        return optax.GradientTransformationExtraArgs(lambda params: jnp.float32(0), update)

    problem = inner.training(quadratic(), sgd()._replace(optimizer=optimizer))
    state = problem.init((), (), 3, jax.random.key(0))
    after, loss = problem.step((), state, ())
    assert float(after.opt_state) == float(loss) > 0


def test_late_losses_weigh_more_and_their_weights_have_a_mean_of_one():
    key, theta = jax.random.key(0), {"log_lr": jnp.float32(-1.0)}
    losses = lambda problem: unroll(problem, theta, problem.init(theta, (), 40, key), (), 40)[1]
    plain = losses(inner.training(quadratic(), sgd()))
    weights = losses(inner.training(quadratic(), sgd(), late=2)) / plain
    np.testing.assert_allclose(weights, 3 * (np.arange(1, 41) / 40) ** 2, rtol=1e-5)
    assert abs(weights.mean() - 1) < 0.05 and abs(weights[32:].sum() / 40 - 0.5) < 0.05


def test_telescoping_losses_sum_to_the_last_one_also_where_the_run_diverged():
    """Of one batch that is kept: what is measured falls at every step, as the quadratic does."""
    key = jax.random.key(0)
    task = noisy_task()._replace(
        loss=lambda config, params, batch, key: batch + jnp.square(params).sum(), loss_cap=50.0
    )
    for rate, last in ((-3.0, None), (6.0, 50.0)):
        theta = {"log_lr": jnp.float32(rate)}
        problem = inner.training(task, sgd(), telescoping=True, test_steps=30)
        state, losses = unroll(problem, theta, problem.init(theta, (), 30, key), (), 30)
        assert np.isfinite(losses).all()
        if last is None:
            assert (losses[1:] < 0).all()
        last = state.previous if last is None else last
        np.testing.assert_allclose(losses.sum(), last, rtol=1e-4)
        np.testing.assert_allclose(problem.test_loss(theta, (), key), last, rtol=1e-4)


def test_weights_of_the_meta_loss_are_checked():
    for given, said in (
        ({"late": -1.0}, "late must be a finite number of at least 0, got -1.0"),
        ({"late": 1.0, "telescoping": True}, "leave out late"),
    ):
        with pytest.raises(ValueError, match=said):
            inner.training(quadratic(), sgd(), **given)
