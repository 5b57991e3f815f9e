"""Robots of MuJoCo that learn to move: swimmer, half cheetah, hopper, walker, ant, humanoid.

The paper's third application (Li et al. 2023, arXiv 2304.12180): a linear policy without bias,
nothing normalised, squashed or shaped; the loss of a step is minus its reward. The simulation is
MuJoCo's C library, called once a step for all particles of a device; see `metaopt.tasks.physics`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metaopt import UnrolledProblem, unroll
from metaopt.tasks import robots
from metaopt.tasks.drawing import frames_of
from metaopt.tasks.physics import physics_of, rows_of
from metaopt.tasks.policies import policy, tested_by_return
from metaopt.tasks.robots import Robot

HORIZON = 1000
"""Steps of an episode of the test, and of gymnasium's environments."""

PICTURES = 25
"""A second, about."""


class RobotState(NamedTuple):
    """A robot in an episode.

    Attributes:
      physics: uint32 ``[width, 2]``, the bits of MuJoCo's float64 state.
      observed: float32 ``[o]``, what the policy sees next.
      ended: bool scalar, whether it has fallen.
    """

    physics: jax.Array
    observed: jax.Array
    ended: jax.Array


def swimmer(*, hidden: tuple[int, ...] = (), test_episodes: int = 20) -> UnrolledProblem:
    """Three links in a fluid swim forward: 8 observations, 2 actions, no early end.

    Reward: forward velocity - 1e-4 |action|^2. Theta starts at zeros. Needs ``metaopt[rl]``.

    Args:
      hidden: widths of the policy's hidden layers (tanh, with biases); none for a linear policy
        without bias. Its outputs are the actions.
      test_episodes: episodes of 1,000 steps whose mean return is the test metric, without noise
        on theta.

    Raises:
      ValueError: for widths that are not positive integers, or no test episode.
      UserError: where MuJoCo or gymnasium is not installed.

    Examples:
      >>> problem = swimmer()
      >>> theta = problem.init_theta(jax.random.key(0))
      >>> state = problem.init(theta, (), 1000, jax.random.key(1))
      >>> state, losses = unroll(problem, theta, state, (), 4)
      >>> state.observed.shape, losses.shape
      ((8,), (4,))
    """
    return _problem(robots.SWIMMER, hidden, test_episodes)


def half_cheetah(*, hidden: tuple[int, ...] = (), test_episodes: int = 20) -> UnrolledProblem:
    """A two-legged cheetah in the plane runs forward: 17 observations, 6 actions, no early end.

    Reward: forward velocity - 0.1 |action|^2. The last layer starts from a truncated normal of
    variance 0.03 / fan-in. Arguments and errors are those of `swimmer`.
    """
    return _problem(robots.HALF_CHEETAH, hidden, test_episodes, last_variance=0.03)


def hopper(*, hidden: tuple[int, ...] = (), test_episodes: int = 20) -> UnrolledProblem:
    """One leg hops forward and ends where it falls: 11 observations, 3 actions.

    Reward: 1 where it stands + forward velocity - 1e-3 |action|^2. Theta starts at zeros. Arguments
    and errors are those of `swimmer`.
    """
    return _problem(robots.HOPPER, hidden, test_episodes)


def walker2d(*, hidden: tuple[int, ...] = (), test_episodes: int = 20) -> UnrolledProblem:
    """Two legs in the plane walk forward and end where they fall: 17 observations, 6 actions.

    Reward, start, arguments and errors are those of `hopper`.
    """
    return _problem(robots.WALKER2D, hidden, test_episodes)


def ant(*, hidden: tuple[int, ...] = (), test_episodes: int = 20) -> UnrolledProblem:
    """Four legs walk forward and end where they leap or fall: 105 observations, 8 actions.

    Reward: 1 while healthy + forward velocity - 0.5 |action|^2 - 5e-4 |contact forces|^2. Theta
    starts at zeros. Arguments and errors are those of `swimmer`.
    """
    return _problem(robots.ANT, hidden, test_episodes)


def humanoid(*, hidden: tuple[int, ...] = (), test_episodes: int = 20) -> UnrolledProblem:
    """A humanoid walks forward and ends where it falls: 348 observations, 17 actions.

    Reward: 5 while it stands + 1.25 forward velocity - 0.1 |action|^2 - a cost of contacts. Theta
    starts at zeros. Arguments and errors are those of `swimmer`.
    """
    return _problem(robots.HUMANOID, hidden, test_episodes)


def _problem(
    robot: Robot, hidden: tuple[int, ...], test_episodes: int, last_variance: float = 0.0
) -> UnrolledProblem:
    """The problem of learning to move a robot."""
    physics = physics_of(robot)
    model = physics.model
    network = policy(
        physics.observed,
        model.nu,
        hidden=hidden,
        bias=bool(hidden),
        last_variance=last_variance,
    )
    shape: Any = jax.ShapeDtypeStruct
    state_shape = RobotState(
        physics=shape((physics.width, 2), jnp.uint32),
        observed=shape((physics.observed,), jnp.float32),
        ended=shape((), jnp.bool_),
    )
    reward_shape = shape((), jnp.float32)

    def start_many(positions, velocities):
        begun = _of_many(physics.start, positions, velocities, dims=(1, 1))
        return RobotState(begun.physics, begun.observed, begun.ended)

    def step_many(bits, ended, actions):
        moved = _of_many(physics.step, bits, ended, actions, dims=(2, 0, 1))
        return RobotState(moved.physics, moved.observed, moved.ended), moved.reward

    def init(theta, data, horizon, key):
        uniform = lambda key, shape: jax.random.uniform(key, shape, minval=-1.0)
        keys = jax.random.split(key)
        positions = robot.noise * uniform(keys[0], (model.nq,))
        drawn = jax.random.normal if robot.normal_speeds else uniform
        velocities = robot.noise * drawn(keys[1], (model.nv,))
        return jax.pure_callback(
            start_many, state_shape, positions, velocities, vmap_method="broadcast_all"
        )

    def step(theta, state, data):
        actions = network.outputs(theta, state.observed)
        state, reward = jax.pure_callback(
            step_many,
            (state_shape, reward_shape),
            state.physics,
            state.ended,
            actions,
            vmap_method="broadcast_all",
        )
        return state, -reward

    problem = UnrolledProblem(
        init=init,
        step=step,
        init_theta=network.init,
        differentiable=False,
        done=None if robot.healthy is None else lambda state: state.ended,
    )

    def render(theta, data, key, seconds):
        every = max(1, round(1 / (PICTURES * physics.seconds)))

        @jax.jit
        def episode(theta, key):
            advance = lambda state, _: (unroll(problem, theta, state, data, every)[0], state)
            count = max(1, min(HORIZON, round(seconds / physics.seconds)) // every)
            start = init(theta, data, HORIZON, key)
            return jax.lax.scan(advance, start, None, length=count)[1]

        states = jax.device_get(episode(theta, key))
        rows = rows_of(states.physics)[: len(states.ended) - max(0, states.ended.sum() - 1)]
        return frames_of(robot, rows), 1 / (every * physics.seconds)

    problem = problem._replace(render=render)
    return tested_by_return(problem, HORIZON, test_episodes)


def _of_many(function: Any, *arguments: Any, dims: tuple[int, ...]) -> Any:
    """A function of ``[n, ...]`` on arguments with any number of axes before their own ``dims``."""
    arrays = [np.asarray(argument) for argument in arguments]
    before = arrays[0].shape[: arrays[0].ndim - dims[0]]
    flat = [a.reshape((-1, *a.shape[a.ndim - n :])) for a, n in zip(arrays, dims, strict=True)]
    result = function(*flat)
    return type(result)(*(leaf.reshape((*before, *leaf.shape[1:])) for leaf in result))
