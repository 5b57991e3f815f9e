"""MuJoCo's C library for many robots at once, on a pool of threads. Internal.

A robot's physics is a row of float64: MuJoCo's state with what its solver starts from next, so that
a simulation that goes on from it goes on to the bit, and the position whose change is rewarded. JAX
carries a row as its bit pattern, uint32 ``[.., 2]``, since it has no float64 here.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metaopt import UserError
from metaopt.tasks.robots import Beside, Robot


class Motion(NamedTuple):
    """What n robots are like after a step.

    Attributes:
      physics: uint32 ``[n, width, 2]``, the bits of their rows.
      observed: float32 ``[n, o]``.
      reward: float32 ``[n]``; NaN where MuJoCo found the simulation unstable and began it anew.
      ended: bool ``[n]``.
    """

    physics: np.ndarray
    observed: np.ndarray
    reward: np.ndarray
    ended: np.ndarray


def load_mujoco(what: str) -> tuple[Any, Path]:
    """MuJoCo, and the folder of gymnasium's models, which is not imported for them.

    Raises:
      UserError: where one of the two is not installed, or MuJoCo does not load.
    """
    gymnasium = find_spec("gymnasium")
    if gymnasium is None or find_spec("mujoco") is None:
        raise UserError(
            f"{what} needs the packages mujoco and gymnasium: pip install 'metaopt[rl]'."
        )
    try:
        import mujoco
    except Exception as error:  # what it draws with is loaded, too, and fails in any way
        way = os.environ.get("MUJOCO_GL")
        raise UserError(
            f"MuJoCo does not load, with MUJOCO_GL={way!r} in the environment "
            f"({type(error).__name__}: {error}): install what that names, or leave it out."
        ) from error
    return mujoco, Path(str(gymnasium.origin)).parent / "envs" / "mujoco" / "assets"


def kept_state(mujoco: Any) -> int:
    """Which parts of MuJoCo's state a row has."""
    kinds = "TIME", "QPOS", "QVEL", "ACT", "WARMSTART"
    return sum(int(getattr(mujoco.mjtState, f"mjSTATE_{kind}")) for kind in kinds)


def rows_of(bits: np.ndarray) -> np.ndarray:
    """Rows, float64 ``[.., width]``, from their bits, uint32 ``[.., width, 2]``."""
    return np.ascontiguousarray(bits).view(np.float64)[..., 0]


@dataclass(frozen=True)
class Physics:
    """A robot's model, and how any number of it are started and moved.

    Attributes:
      robot: what it is.
      mujoco: the library.
      model: MuJoCo's model.
      file: that it is from.
      idle: an ``MjData`` for each thread that has been at work.
    """

    robot: Robot
    mujoco: Any
    model: Any
    file: Path
    idle: list[Any]

    @cached_property
    def width(self) -> int:
        """Of a row."""
        return self.mujoco.mj_stateSize(self.model, self._kept) + 1

    @cached_property
    def observed(self) -> int:
        """How many numbers are seen."""
        return self.model.nq - self.robot.unseen + self.model.nv + self._beside_observed

    @cached_property
    def seconds(self) -> float:
        """Of simulated time in a step."""
        return self.robot.frames * self.model.opt.timestep

    def start(self, positions: np.ndarray, velocities: np.ndarray) -> Motion:
        """Robots at the start of an episode.

        Args:
          positions, velocities: ``[n, q]`` and ``[n, v]``, added to the model's own.
        """
        count = len(positions)
        rows, extra = np.empty((count, self.width)), np.empty((count, self._beside_observed))

        def work(data):
            for row, seen, moved, pushed in zip(rows, extra, positions, velocities, strict=True):
                self.mujoco.mj_resetData(self.model, data)
                data.qpos += moved
                data.qvel += pushed
                self.mujoco.mj_forward(self.model, data)
                self.mujoco.mj_getState(self.model, data, row[:-1], self._kept)
                row[-1], _, seen[:] = self._beside(data)

        self._with_data(work)
        return self._motion(rows, extra, np.zeros(count))._replace(ended=np.zeros(count, bool))

    def step(self, bits: np.ndarray, ended: np.ndarray, actions: np.ndarray) -> Motion:
        """Robots a step later; those that have ended stay as they are.

        Args:
          bits: uint32 ``[n, width, 2]``.
          ended: bool ``[n]``.
          actions: ``[n, a]``.
        """
        mujoco, model, robot, kept = self.mujoco, self.model, self.robot, self._kept
        before, rows = rows_of(bits), rows_of(bits).copy()
        costs = robot.effort * np.square(actions, dtype=np.float64).sum(axis=1)
        extra, moving = np.zeros((len(rows), self._beside_observed)), np.flatnonzero(~ended)

        def work(data, part):
            controls = data.ctrl
            for i in part:
                state = rows[i, :-1]
                mujoco.mj_setState(model, data, state, kept)
                controls[:] = actions[i]
                mujoco.mj_step(model, data, robot.frames)
                mujoco.mj_getState(model, data, state, kept)
                if robot.beside is not None:
                    mujoco.mj_rnePostConstraint(model, data)
                    rows[i, -1], cost, extra[i] = robot.beside(model, data)
                    costs[i] += cost

        parts = np.array_split(moving, min(_cores(), len(moving)) or 1)
        _in_threads([partial(self._with_data, work, part) for part in parts])
        if robot.beside is None:
            rows[:, -1] = rows[:, 1]
        reward = robot.forward * (rows[:, -1] - before[:, -1]) / self.seconds - costs
        begun_anew = rows[:, 0] < before[:, 0] + ~ended * self.seconds / 2
        return self._motion(rows, extra, np.where(begun_anew, np.nan, reward))

    def _motion(self, rows: np.ndarray, extra: np.ndarray, reward: np.ndarray) -> Motion:
        """What is seen of the rows, and the reward with that of being healthy."""
        robot, nq = self.robot, self.model.nq
        positions, velocities = rows[:, 1 : 1 + nq], rows[:, 1 + nq : 1 + nq + self.model.nv]
        speeds = np.clip(velocities, -robot.fastest, robot.fastest)
        seen = np.concatenate([positions[:, robot.unseen :], speeds, extra], axis=1)
        healthy = np.ones(len(rows), bool)
        if robot.healthy is not None:
            healthy = robot.healthy(positions, velocities)
        return Motion(
            rows.view(np.uint32).reshape(*rows.shape, 2),
            seen.astype(np.float32),
            (reward + robot.alive * healthy).astype(np.float32),
            ~healthy,
        )

    def _beside(self, data: Any) -> Beside:
        if self.robot.beside is None:
            return Beside(data.qpos[0], 0.0, np.empty(0))
        return self.robot.beside(self.model, data)

    @cached_property
    def _beside_observed(self) -> int:
        return len(self._beside(self.mujoco.MjData(self.model)).observed)

    @cached_property
    def _kept(self) -> int:
        return kept_state(self.mujoco)

    def _with_data(self, work: Callable[..., None], *arguments: Any) -> None:
        """Gives some work an ``MjData`` that nobody else uses meanwhile."""
        try:
            data = self.idle.pop()
        except IndexError:
            data = self.mujoco.MjData(self.model)
        work(data, *arguments)
        self.idle.append(data)


@cache
def physics_of(robot: Robot) -> Physics:
    """The physics of a robot, made once.

    Raises:
      UserError: as `load_mujoco`.
    """
    mujoco, folder = load_mujoco(f"the model {robot.model}")
    file = folder / robot.model
    model = _quietly(mujoco, lambda: mujoco.MjModel.from_xml_path(str(file)))
    return Physics(robot, mujoco, model, file, [])


def _quietly(mujoco: Any, load: Callable[[], Any]) -> Any:
    """Without what MuJoCo has to say of attributes that a model of gymnasium still has."""
    told = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda message: None)
    try:
        return load()
    finally:
        mujoco.set_mju_user_warning(told)


def _in_threads(jobs: list[Callable[[], None]]) -> None:
    """Runs them all, the first in this thread."""
    first, *others = jobs
    running = [_pool().submit(job) for job in others]
    first()
    for job in running:
        job.result()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_cores(), "mujoco")


@cache
def _cores() -> int:
    known = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1
