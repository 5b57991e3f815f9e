"""Robots of MuJoCo that learn to move: swimmer, half cheetah, hopper, walker, ant, humanoid.

The paper's third application (Li et al. 2023, arXiv 2304.12180): a linear policy without bias,
nothing normalised, squashed or shaped; the loss of a step is minus its reward. The simulation is
MuJoCo's, by its C library or in JAX; see `metaopt.tasks.simulators`.
"""

import jax

from metaopt import UnrolledProblem, unroll
from metaopt.tasks import robots
from metaopt.tasks.drawing import frames_of
from metaopt.tasks.policies import learned_policy
from metaopt.tasks.robots import Robot
from metaopt.tasks.simulators import HORIZON, simulator_of

PICTURES = 25
"""A second, about."""


def swimmer(
    *,
    hidden: tuple[int, ...] = (),
    normalise: bool = False,
    backend: str = "mujoco",
    test_episodes: int = 20,
) -> UnrolledProblem:
    """Three links in a fluid swim forward: 8 observations, 2 actions, no early end.

    Reward: forward velocity - 1e-4 |action|^2. Theta starts at zeros. Needs ``metaopt[rl]``.

    Args:
      hidden: widths of the policy's hidden layers (tanh, with biases); none for a linear policy
        without bias. Its outputs are the actions.
      normalise: whether observations are normalised by running statistics, the same for all
        particles; see `metaopt.RunningStatistics`.
      backend: ``"mujoco"`` simulates on the cores of the host; ``"mjx"`` in JAX, on the device, in
        float32: for accelerators. Needs ``metaopt[mjx]``; not for `ant` and `humanoid`.
      test_episodes: episodes of 1,000 steps whose mean return is the test metric, without noise
        on theta.

    Raises:
      ValueError: for widths that are not positive integers, no test episode, or another backend.
      UserError: where MuJoCo, gymnasium or MJX is not installed, or MJX cannot simulate the robot.

    Examples:
      >>> problem = swimmer()
      >>> theta = problem.init_theta(jax.random.key(0))
      >>> state = problem.init(theta, (), 1000, jax.random.key(1))
      >>> state, losses = unroll(problem, theta, state, (), 4)
      >>> state.observed.shape, losses.shape
      ((8,), (4,))
    """
    return _problem(robots.SWIMMER, hidden, normalise, backend, test_episodes)


def half_cheetah(
    *,
    hidden: tuple[int, ...] = (),
    normalise: bool = False,
    backend: str = "mujoco",
    test_episodes: int = 20,
) -> UnrolledProblem:
    """A two-legged cheetah in the plane runs forward: 17 observations, 6 actions, no early end.

    Reward: forward velocity - 0.1 |action|^2. The last layer starts from a truncated normal of
    variance 0.03 / fan-in. Arguments and errors are those of `swimmer`.
    """
    return _problem(
        robots.HALF_CHEETAH, hidden, normalise, backend, test_episodes, last_variance=0.03
    )


def hopper(
    *,
    hidden: tuple[int, ...] = (),
    normalise: bool = False,
    backend: str = "mujoco",
    test_episodes: int = 20,
) -> UnrolledProblem:
    """One leg hops forward and ends where it falls: 11 observations, 3 actions.

    Reward: 1 where it stands + forward velocity - 1e-3 |action|^2. Theta starts at zeros. Arguments
    and errors are those of `swimmer`.
    """
    return _problem(robots.HOPPER, hidden, normalise, backend, test_episodes)


def walker2d(
    *,
    hidden: tuple[int, ...] = (),
    normalise: bool = False,
    backend: str = "mujoco",
    test_episodes: int = 20,
) -> UnrolledProblem:
    """Two legs in the plane walk forward and end where they fall: 17 observations, 6 actions.

    Reward, start, arguments and errors are those of `hopper`.
    """
    return _problem(robots.WALKER2D, hidden, normalise, backend, test_episodes)


def ant(
    *,
    hidden: tuple[int, ...] = (),
    normalise: bool = False,
    backend: str = "mujoco",
    test_episodes: int = 20,
) -> UnrolledProblem:
    """Four legs walk forward and end where they leap or fall: 105 observations, 8 actions.

    Reward: 1 while healthy + forward velocity - 0.5 |action|^2 - 5e-4 |contact forces|^2. Theta
    starts at zeros. Arguments and errors are those of `swimmer`.
    """
    return _problem(robots.ANT, hidden, normalise, backend, test_episodes)


def humanoid(
    *,
    hidden: tuple[int, ...] = (),
    normalise: bool = False,
    backend: str = "mujoco",
    test_episodes: int = 20,
) -> UnrolledProblem:
    """A humanoid walks forward and ends where it falls: 348 observations, 17 actions.

    Reward: 5 while it stands + 1.25 forward velocity - 0.1 |action|^2 - a cost of contacts. Theta
    starts at zeros. Arguments and errors are those of `swimmer`.
    """
    return _problem(robots.HUMANOID, hidden, normalise, backend, test_episodes)


def _problem(
    robot: Robot,
    hidden: tuple[int, ...],
    normalise: bool,
    backend: str,
    test_episodes: int,
    last_variance: float = 0.0,
) -> UnrolledProblem:
    """The problem of learning to move a robot."""
    simulator = simulator_of(robot, backend)
    problem = learned_policy(
        simulator.environment,
        hidden=hidden,
        bias=bool(hidden),
        last_variance=last_variance,
        normalise=normalise,
        test_episodes=test_episodes,
    )

    def render(theta, data, key, seconds):
        every = max(1, round(1 / (PICTURES * simulator.seconds)))

        @jax.jit
        def episode(theta, key):
            advance = lambda state, _: (unroll(problem, theta, state, data, every)[0], state)
            count = max(1, min(HORIZON, round(seconds / simulator.seconds)) // every)
            start = problem.init(theta, data, HORIZON, key)
            states = jax.lax.scan(advance, start, None, length=count)[1]
            return states.state if normalise else states

        states = jax.device_get(episode(theta, key))
        rows = simulator.rows(states.physics)
        rows = rows[: len(states.ended) - max(0, states.ended.sum() - 1)]
        return frames_of(robot, rows), 1 / (every * simulator.seconds)

    return problem._replace(render=render)
