"""MuJoCo's C library for many robots at once, on a pool of threads. Internal.

A robot's physics is a row of float64: MuJoCo's state with what its solver starts from next, so that
a simulation that goes on from it goes on to the bit, and the position whose change is rewarded. JAX
carries a row as its bit pattern, uint32 ``[.., 2]``, since it has no float64 here.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
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


class Physics(NamedTuple):
    """A robot's model, and how any number of it are started and moved.

    Attributes:
      model: MuJoCo's.
      file: that it is from.
      width: of a row.
      observed: how many numbers are seen.
      seconds: of simulated time in a step.
      start: ``(positions [n, q], velocities [n, v]) -> Motion``, these added to the model's own.
      step: ``(physics, ended [n], actions [n, a]) -> Motion``; who has ended stays as it is.
    """

    model: Any
    file: Path
    width: int
    observed: int
    seconds: float
    start: Callable[[np.ndarray, np.ndarray], Motion]
    step: Callable[[np.ndarray, np.ndarray, np.ndarray], Motion]


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


@cache
def physics_of(robot: Robot) -> Physics:
    """The physics of a robot, made once.

    Raises:
      UserError: as `load_mujoco`.
    """
    mujoco, folder = load_mujoco(f"the model {robot.model}")
    file = folder / robot.model
    model = _quietly(mujoco, lambda: mujoco.MjModel.from_xml_path(str(file)))
    nq, nv, seconds = model.nq, model.nv, robot.frames * model.opt.timestep
    kept = kept_state(mujoco)
    width = mujoco.mj_stateSize(model, kept) + 1
    idle: list[Any] = []  # one MjData for each thread that is at work

    def with_data(work: Callable[[Any], None]) -> None:
        try:
            data = idle.pop()
        except IndexError:
            data = mujoco.MjData(model)
        work(data)
        idle.append(data)

    def beside(data: Any) -> Beside:
        return Beside(data.qpos[0], 0.0, np.empty(0)) if not robot.beside else robot.beside(
            model, data
        )  # fmt: skip

    more = len(beside(mujoco.MjData(model)).observed)

    def motion(rows, extra, costs, reward) -> Motion:
        qpos, qvel = rows[:, 1 : 1 + nq], rows[:, 1 + nq : 1 + nq + nv]
        seen = qpos[:, robot.unseen :], np.clip(qvel, -robot.fastest, robot.fastest), extra
        healthy = np.ones(len(rows), bool) if robot.healthy is None else robot.healthy(qpos, qvel)
        return Motion(
            rows.view(np.uint32).reshape(len(rows), width, 2),
            np.concatenate(seen, axis=1, dtype=np.float32, casting="same_kind"),
            (reward + robot.alive * healthy - costs).astype(np.float32),
            ~healthy,
        )

    def start(positions: np.ndarray, velocities: np.ndarray) -> Motion:
        rows, extra = np.empty((len(positions), width)), np.empty((len(positions), more))

        def work(data):
            for row, seen, moved, pushed in zip(rows, extra, positions, velocities, strict=True):
                mujoco.mj_resetData(model, data)
                data.qpos += moved
                data.qvel += pushed
                mujoco.mj_forward(model, data)
                mujoco.mj_getState(model, data, row[:-1], kept)
                row[-1], _, seen[:] = beside(data)

        with_data(work)
        return motion(rows, extra, 0.0, 0.0)._replace(ended=np.zeros(len(rows), bool))

    def step(physics: np.ndarray, ended: np.ndarray, actions: np.ndarray) -> Motion:
        rows = rows_of(physics).copy()
        before, costs = rows.copy(), robot.effort * np.square(actions, dtype=np.float64).sum(axis=1)
        extra, moving = np.zeros((len(rows), more)), np.flatnonzero(~ended)

        def work(data, part):
            move, ctrl = robot.frames, data.ctrl
            for i in part:
                row = rows[i]
                state = row[:-1]
                mujoco.mj_setState(model, data, state, kept)
                ctrl[:] = actions[i]
                mujoco.mj_step(model, data, move)
                mujoco.mj_getState(model, data, state, kept)
                if robot.beside is not None:
                    mujoco.mj_rnePostConstraint(model, data)
                    row[-1], cost, extra[i] = robot.beside(model, data)
                    costs[i] += cost

        parts = np.array_split(moving, min(_cores(), len(moving)) or 1)
        _in_threads([lambda part=part: with_data(lambda data: work(data, part)) for part in parts])
        if robot.beside is None:
            rows[:, -1] = rows[:, 1]
        reward = robot.forward * (rows[:, -1] - before[:, -1]) / seconds
        reward[rows[:, 0] < before[:, 0] + (~ended) * seconds / 2] = np.nan
        return motion(rows, extra, costs, reward)

    return Physics(model, file, width, nq - robot.unseen + nv + more, seconds, start, step)


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
