"""Three classic control problems in JAX, for a small policy to learn: cart pole, pendulum, acrobot.

Dynamics, constants, starts, rewards and ends are those of gymnasium 1.4's CartPole-v1, Pendulum-v1
and Acrobot-v1 (https://gymnasium.farama.org, MIT), after Barto, Sutton and Anderson (1983) and
Sutton (1996), in float32. The loss of a step is minus its reward. Nothing is random but the start.
"""

import jax
import jax.numpy as jnp

from metaopt import UnrolledProblem
from metaopt.tasks.policies import Environment, learned_policy


def cartpole(
    *, hidden: tuple[int, ...] = (), normalise: bool = False, test_episodes: int = 100
) -> UnrolledProblem:
    """Push a cart left or right so that the pole on it stays up: reward 1 a step, 500 at most.

    An episode ends where the pole is 12 degrees from upright or the cart 2.4 from the middle. Its
    horizon should be 500. What is tested is the mean return of the policy without noise.

    Args:
      hidden: widths of the policy's hidden layers (tanh); none for a linear policy. The larger of
        its two outputs is the action.
      normalise: whether observations are normalised by running statistics; see
        `metaopt.RunningStatistics`.
      test_episodes: from how many starts it is tested.

    Raises:
      ValueError: for widths that are not positive integers, or no test episode.

    Examples:
      >>> from metaopt import unroll
      >>> problem = cartpole(hidden=(8,))
      >>> theta = problem.init_theta(jax.random.key(0))
      >>> state = problem.init(theta, (), 500, jax.random.key(1))
      >>> state, losses = unroll(problem, theta, state, (), 12)  # always to one side: it falls
      >>> bool(problem.done(state)), float(losses[0]), float(losses[-1])
      (True, -1.0, 0.0)
    """

    def step(state, outputs):
        _, speed, angle, turn = state
        push = jnp.where(jnp.argmax(outputs) == 1, 10.0, -10.0)
        sin, cos = jnp.sin(angle), jnp.cos(angle)
        by_pole = (push + 0.05 * turn**2 * sin) / 1.1
        turning = (9.8 * sin - cos * by_pole) / (0.5 * (4 / 3 - 0.1 * cos**2 / 1.1))
        moving = by_pole - 0.05 * turning * cos / 1.1
        rates = jnp.stack([speed, moving, turn, turning])
        return state + 0.02 * rates, jnp.float32(1.0)

    limits = jnp.array([2.4, 12 * 2 * jnp.pi / 360], jnp.float32)
    return learned_policy(
        Environment(
            steps=500,
            observed=4,
            outputs=2,
            reset=lambda key: jax.random.uniform(key, (4,), jnp.float32, -0.05, 0.05),
            observe=lambda state: state,
            step=step,
            done=lambda state: (jnp.abs(state[jnp.array([0, 2])]) > limits).any(),
        ),
        hidden=hidden,
        normalise=normalise,
        test_episodes=test_episodes,
    )


def pendulum(
    *, hidden: tuple[int, ...] = (), normalise: bool = False, test_episodes: int = 100
) -> UnrolledProblem:
    """Swing a pendulum up with a weak motor and hold it there: 200 steps, never ended early.

    The reward of a step is -(angle^2 + 0.1 speed^2 + 0.001 torque^2), the angle from upright.

    Args:
      hidden: as in `cartpole`. The torque is 2 tanh of the policy's output.
      normalise, test_episodes: as in `cartpole`.

    Raises:
      ValueError: as `cartpole`.

    Examples:
      >>> problem = pendulum()
      >>> theta = problem.init_theta(jax.random.key(0))
      >>> state = problem.init(theta, (), 200, jax.random.key(1))
      >>> bool(problem.step(theta, state, ())[1] > 0), problem.done
      (True, None)
    """
    bounds = jnp.array([jnp.pi, 1.0], jnp.float32)

    def step(state, outputs):
        angle, speed = state
        torque = 2 * jnp.tanh(outputs[0])
        off = (angle + jnp.pi) % (2 * jnp.pi) - jnp.pi
        cost = off**2 + 0.1 * speed**2 + 0.001 * torque**2
        speed = jnp.clip(speed + 0.05 * (15 * jnp.sin(angle) + 3 * torque), -8.0, 8.0)
        return jnp.stack([angle + 0.05 * speed, speed]), -cost

    return learned_policy(
        Environment(
            steps=200,
            observed=3,
            outputs=1,
            reset=lambda key: bounds * jax.random.uniform(key, (2,), jnp.float32, -1.0),
            observe=lambda state: jnp.stack([jnp.cos(state[0]), jnp.sin(state[0]), state[1]]),
            step=step,
            differentiable=True,
        ),
        hidden=hidden,
        normalise=normalise,
        test_episodes=test_episodes,
    )


def acrobot(
    *, hidden: tuple[int, ...] = (), normalise: bool = False, test_episodes: int = 100
) -> UnrolledProblem:
    """Swing the tip of a double pendulum above a line: reward -1 a step until then, 500 at most.

    Args:
      hidden: as in `cartpole`. The torque on the second joint, -1, 0 or 1, is the largest output's.
      normalise, test_episodes: as in `cartpole`.

    Raises:
      ValueError: as `cartpole`.

    Examples:
      >>> problem = acrobot()
      >>> theta = problem.init_theta(jax.random.key(0))
      >>> state = problem.init(theta, (), 500, jax.random.key(1))
      >>> float(problem.step(theta, state, ())[1])
      1.0
    """
    fastest = jnp.array([4 * jnp.pi, 9 * jnp.pi], jnp.float32)
    done = lambda state: -jnp.cos(state[0]) - jnp.cos(state[0] + state[1]) > 1.0

    def rates(state, torque):
        first, second, turn1, turn2 = state
        sin, cos = jnp.sin(second), jnp.cos(second)
        d1, d2 = 0.25 + 1.25 + cos + 2.0, 0.25 + 0.5 * cos + 1.0
        phi2 = 0.5 * 9.8 * jnp.sin(first + second)
        phi1 = -0.5 * turn2 * (turn2 + 2 * turn1) * sin + 1.5 * 9.8 * jnp.sin(first) + phi2
        acceleration2 = torque + d2 / d1 * phi1 - 0.5 * turn1**2 * sin - phi2
        acceleration2 = acceleration2 / (1.25 - d2**2 / d1)
        return jnp.stack([turn1, turn2, -(d2 * acceleration2 + phi1) / d1, acceleration2])

    def step(state, outputs):
        torque = jnp.argmax(outputs).astype(jnp.float32) - 1
        dt = 0.2  # fourth-order Runge-Kutta
        k1 = rates(state, torque)
        k2 = rates(state + dt / 2 * k1, torque)
        k3 = rates(state + dt / 2 * k2, torque)
        k4 = rates(state + dt * k3, torque)
        state = state + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        angles = (state[:2] + jnp.pi) % (2 * jnp.pi) - jnp.pi
        state = jnp.concatenate([angles, jnp.clip(state[2:], -fastest, fastest)])
        return state, jnp.where(done(state), 0.0, -1.0)

    def observe(state):
        (first, second), turns = state[:2], state[2:]
        angles = [jnp.cos(first), jnp.sin(first), jnp.cos(second), jnp.sin(second)]
        return jnp.concatenate([jnp.stack(angles), turns])

    reset = lambda key: jax.random.uniform(key, (4,), jnp.float32, -0.1, 0.1)
    return learned_policy(
        Environment(500, 6, 3, reset, observe, step, done),
        hidden=hidden,
        normalise=normalise,
        test_episodes=test_episodes,
    )
