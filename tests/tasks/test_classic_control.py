"""Classic control against paths recorded from gymnasium 1.4.0, and policies that are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaopt.tasks import acrobot, cartpole, pendulum


def theta_for(problem, action, actions):
    """A linear policy that always takes one action."""
    theta = problem.init_theta(jax.random.key(0))
    bias = jax.nn.one_hot(action, actions) if actions else jnp.arctanh(jnp.array([action]))
    return {"layer_0": theta["layer_0"] | {"bias": bias}}


@pytest.mark.parametrize(
    "factory, actions, start, taken, end, reward",
    [
        (cartpole, 2, [0.01, -0.02, 0.03, 0.04], [1, 1, 0, 1, 0, 0, 0, 1],
         [0.030036, -0.021553, 0.005197, 0.074237], 8.0),
        (pendulum, 0, [2.5, -1.0], [0.9, -0.5, 0.25, 0.0, 0.9, 0.9, -0.9, 0.5],
         [3.01184, 2.652136], -56.063047),
        (acrobot, 3, [0.1, -0.05, 0.02, 0.08], [2, 2, 0, 1, 0, 0, 2, 2],
         [0.076372, -0.30953, -0.068744, -0.053319], -8.0),
    ],
)  # fmt: skip
def test_the_path_is_that_of_gymnasium(factory, actions, start, taken, end, reward):
    problem = factory()
    state, losses = jnp.array(start), []
    for action in taken:
        state, loss = problem.step(theta_for(problem, action, actions), state, ())
        losses.append(float(loss))
    np.testing.assert_allclose(state, end, rtol=1e-4, atol=1e-5)
    assert sum(losses) == pytest.approx(-reward, rel=1e-5)


def test_a_pole_that_leans_is_pushed_back_under():
    """Angle and turning alone hold it for a while; one action alone lets it fall in ten steps."""
    problem = cartpole(test_episodes=20)
    theta = problem.init_theta(jax.random.key(0))
    fallen = float(problem.test_loss(theta, (), jax.random.key(1)))
    assert 8 <= fallen <= 11
    kernel = jnp.array([[0.0, 0.1], [0.0, 0.5], [0.0, 10.0], [0.0, 1.5]])
    held = {"layer_0": theta["layer_0"] | {"kernel": kernel}}
    assert float(problem.test_loss(held, (), jax.random.key(1))) == 500.0


def test_an_acrobot_above_the_line_has_ended():
    problem = acrobot()
    assert bool(problem.done(jnp.array([jnp.pi, 0.0, 0.0, 0.0])))
    assert not bool(problem.done(jnp.zeros(4)))
    theta = theta_for(problem, 2, 3)
    _, loss = problem.step(theta, jnp.array([2.4, 0.0, 3.0, 0.0]), ())
    assert float(loss) == 0.0  # the step that gets there


@pytest.mark.parametrize("hidden, shapes", [((), [(4, 2)]), ((5, 3), [(4, 5), (5, 3), (3, 2)])])
def test_a_policy_has_the_layers_that_were_asked_for(hidden, shapes):
    theta = cartpole(hidden=hidden).init_theta(jax.random.key(0))
    assert [layer["kernel"].shape for layer in theta.values()] == shapes
    assert not theta[f"layer_{len(hidden)}"]["kernel"].any()


@pytest.mark.parametrize(
    "arguments, said",
    [({"hidden": (8, 0)}, "hidden must hold positive integers, got (8, 0)"),
     ({"test_episodes": 0}, "test_episodes must be an integer of at least 1, got 0")],
)  # fmt: skip
def test_bad_values_are_refused(arguments, said):
    with pytest.raises(ValueError) as error:
        pendulum(**arguments)
    assert said in str(error.value)
