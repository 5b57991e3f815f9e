"""Environments of gymnax beside those that are written here, where it is installed."""

from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaopt import UserError, estimators, unroll
from metaopt.tasks import acrobot, cartpole, gymnax, gymnax_problem, pendulum

installed = pytest.mark.skipif(
    find_spec("gymnax") is None, reason="gymnax is an extra of its own: metaopt[gymnax]"
)


def test_where_it_is_missing_a_sentence_says_so(monkeypatch):
    monkeypatch.setattr(gymnax_problem, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package gymnax: pip install 'metaopt\[gymnax"):
        gymnax()


@installed
@pytest.mark.parametrize(
    "name, factory, fields, steps",
    [
        ("CartPole-v1", cartpole, ("x", "x_dot", "theta", "theta_dot"), 60),
        ("Pendulum-v1", pendulum, ("theta", "theta_dot"), 60),
        ("Acrobot-v1", acrobot, ("joint_angle1", "joint_angle2", "velocity_1", "velocity_2"), 30),
    ],
)
def test_it_is_the_same_environment(name, factory, fields, steps):
    """From one start under one policy: what is seen, the rewards and the end."""
    theirs, ours = gymnax(env=name, hidden=(4,)), factory(hidden=(4,))
    theta = ours.init_theta(jax.random.key(0))
    weights = jax.random.normal(jax.random.key(1), theta["layer_1"]["kernel"].shape)
    theta["layer_1"]["kernel"] = weights
    start = theirs.init(theta, (), steps, jax.random.key(2))
    same = jnp.stack([getattr(start.inside, field) for field in fields])
    end, losses = unroll(theirs, theta, start, (), steps)
    _, expected = unroll(ours, theta, same, (), steps)
    np.testing.assert_allclose(losses, expected, rtol=1e-3, atol=1e-3)
    assert bool(end.ended) == (name == "CartPole-v1")


@installed
@pytest.mark.parametrize(
    "name, observed, outputs",
    [("Breakout-MinAtar", 400, 3), ("Catch-bsuite", 50, 3), ("FourRooms-misc", 4, 4)],
)
def test_others_can_be_trained(name, observed, outputs):
    problem = gymnax(env=name, normalise=True, test_episodes=1)
    theta = problem.init_theta(jax.random.key(0))
    assert theta["layer_0"]["kernel"].shape == (observed, outputs)
    estimator = estimators.nres(problem, particles=2, horizon=8, window=4, sigma=1.0)
    state = jax.jit(estimator.init)(theta, (), jax.random.key(1))
    before = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state)
    estimate, state = jax.jit(estimator.estimate)(theta, state, (), jax.random.key(2))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state) == before
    assert np.isfinite(estimate.loss)


@installed
def test_an_unknown_environment_has_a_nearest():
    with pytest.raises(UserError, match="gymnax 'CartPol-v1': did you mean 'CartPole-v1'"):
        gymnax(env="CartPol-v1")
