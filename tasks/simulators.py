"""A robot as an environment, simulated by MuJoCo's C library or by MJX. Internal.

Both keep the physics in one layout: a row of MuJoCo's state, with what its solver starts from next,
and the position whose change is rewarded. The C library simulates all robots of a device in one
callback a step, on the cores of the host, in float64; MJX is MuJoCo in JAX, in float32 on any
device, and within what JAX compiles.
"""

from collections.abc import Callable
from contextlib import redirect_stdout
from importlib.util import find_spec
from io import StringIO
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metaopt import UserError
from metaopt.tasks.physics import Physics, kept_state, physics_of, rows_of
from metaopt.tasks.policies import Environment
from metaopt.tasks.robots import Robot

HORIZON = 1000
"""Steps of an episode of the test, and of gymnasium's environments."""


class RobotState(NamedTuple):
    """A robot in an episode.

    Attributes:
      physics: its row: uint32 ``[width, 2]``, the bits of MuJoCo's float64 state; with MJX float32
        ``[width]``.
      observed: float32 ``[o]``, what the policy sees next.
      ended: bool scalar, whether it has fallen.
    """

    physics: jax.Array
    observed: jax.Array
    ended: jax.Array


class Simulator(NamedTuple):
    """What moves a robot.

    Attributes:
      environment: whose states are `RobotState`.
      rows: states' physics, fetched, as float64 ``[.., width]``.
      seconds: of simulated time in a step.
    """

    environment: Environment
    rows: Callable[[np.ndarray], np.ndarray]
    seconds: float


def simulator_of(robot: Robot, backend: str) -> Simulator:
    """The simulator of that name: ``"mujoco"`` for the C library, or ``"mjx"``.

    Raises:
      ValueError: for another name.
      UserError: where something is not installed, or MJX cannot simulate the robot.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be {' or '.join(map(repr, BACKENDS))}, got {backend!r}.")
    return BACKENDS[backend](robot)


def _c_library(robot: Robot) -> Simulator:
    physics = physics_of(robot)
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

    # JAX keeps no program with a callback in its cache on disk: a function's address is in it.
    def reset(key):
        noise = _start_noise(robot, physics, key)
        return jax.pure_callback(start_many, state_shape, *noise, vmap_method="broadcast_all")

    def step(state, actions):
        arguments = state.physics, state.ended, actions
        shapes = state_shape, reward_shape
        return jax.pure_callback(step_many, shapes, *arguments, vmap_method="broadcast_all")

    return _simulator(robot, physics, reset, step, rows_of)


def _mjx(robot: Robot) -> Simulator:
    if robot.beside is not None:
        raise UserError(
            f"backend='mjx' does not simulate what senses forces, such as {robot.model}: choose "
            "backend='mujoco', or one of swimmer, half_cheetah, hopper and walker2d."
        )
    physics = physics_of(robot)
    if find_spec("mujoco.mjx") is None:
        raise UserError("backend='mjx' needs the package mujoco-mjx: pip install 'metaopt[mjx]'.")
    with redirect_stdout(StringIO()):  # it says what of its own parts is not installed
        from mujoco import mjx
    kept, nq, nv = kept_state(physics.mujoco), physics.model.nq, physics.model.nv
    model = mjx.put_model(physics.model, impl="jax")
    start = np.zeros(physics.width, np.float32)
    start[1 : 1 + nq] = physics.model.qpos0

    def seen(row):
        speeds = jnp.clip(row[1 + nq : 1 + nq + nv], -robot.fastest, robot.fastest)
        return jnp.concatenate([row[1 + robot.unseen : 1 + nq], speeds])

    def reset(key):
        noise = jnp.concatenate(_start_noise(robot, physics, key))
        row = jnp.asarray(start).at[1 : 1 + nq + nv].add(noise)
        row = row.at[-1].set(row[1])
        return RobotState(row, seen(row), jnp.bool_(False))

    def advance(actions, _, row):
        # As MJX is written: it mixes dtypes, and is not made for the rounding of tensor cores.
        with jax.numpy_dtype_promotion("standard"), jax.default_matmul_precision("highest"):
            data = mjx.set_state(model, mjx.make_data(model), row[:-1], kept)
            data = mjx.step(model, data.replace(ctrl=actions))
            after = mjx.get_state(model, data, kept).astype(jnp.float32)
        return jnp.concatenate([after, after[1:2]])

    def step(state, actions):
        before = state.physics
        row = jax.lax.fori_loop(0, robot.frames, lambda i, row: advance(actions, i, row), before)
        velocity = (row[-1] - before[-1]) / physics.seconds
        reward = robot.forward * velocity - robot.effort * jnp.square(actions).sum()
        healthy = jnp.bool_(True)
        if robot.healthy is not None:
            healthy = robot.healthy(row[None, 1 : 1 + nq], row[None, 1 + nq : 1 + nq + nv])[0]
        reward += robot.alive * healthy.astype(jnp.float32)
        stable = (jnp.abs(row) < 1e10).all()  # as the C library has it
        return RobotState(row, seen(row), ~healthy), jnp.where(stable, reward, jnp.nan)

    return _simulator(robot, physics, reset, step, lambda rows: np.asarray(rows, np.float64))


BACKENDS = {"mujoco": _c_library, "mjx": _mjx}


def _simulator(robot: Robot, physics: Physics, reset: Any, step: Any, rows: Any) -> Simulator:
    environment = Environment(
        steps=HORIZON,
        observed=physics.observed,
        outputs=physics.model.nu,
        reset=reset,
        observe=lambda state: state.observed,
        step=step,
        done=None if robot.healthy is None else lambda state: state.ended,
    )
    return Simulator(environment, rows, physics.seconds)


def _start_noise(robot: Robot, physics: Physics, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What is added to the model's own positions and velocities at the start."""
    uniform = lambda key, shape: jax.random.uniform(key, shape, jnp.float32, -1.0)
    keys = jax.random.split(key)
    positions = robot.noise * uniform(keys[0], (physics.model.nq,))
    drawn = jax.random.normal if robot.normal_speeds else uniform
    return positions, robot.noise * drawn(keys[1], (physics.model.nv,))


def _of_many(function: Any, *arguments: Any, dims: tuple[int, ...]) -> Any:
    """A function of ``[n, ...]`` on arguments with any number of axes before their own ``dims``."""
    arrays = [np.asarray(argument) for argument in arguments]
    before = arrays[0].shape[: arrays[0].ndim - dims[0]]
    flat = [a.reshape((-1, *a.shape[a.ndim - n :])) for a, n in zip(arrays, dims, strict=True)]
    result = function(*flat)
    return type(result)(*(leaf.reshape((*before, *leaf.shape[1:])) for leaf in result))
