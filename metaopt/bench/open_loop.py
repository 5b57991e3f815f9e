"""How fast MuJoCo is by itself: its own rollouts of known actions, on all cores."""

import os
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

ROBOTS, STEPS = 60, 100
"""In a rollout."""


def is_installed() -> bool:
    """Whether MuJoCo is, and gymnasium, which has the models."""
    return all(find_spec(name) is not None for name in ("mujoco", "gymnasium"))


def rate(model: str, frames: int) -> Callable[[], float]:
    """``() -> steps a second`` of `mujoco.rollout`: random actions that nobody has to compute.

    Args:
      model: a file among gymnasium's models.
      frames: MuJoCo's steps in a step, which all have its action.
    """
    import mujoco
    from mujoco import rollout

    folder = Path(str(find_spec("gymnasium").origin)).parent  # type: ignore[union-attr]
    told = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda message: None)  # of a model's old attributes
    robot = mujoco.MjModel.from_xml_path(str(folder / "envs" / "mujoco" / "assets" / model))
    mujoco.set_mju_user_warning(told)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = [mujoco.MjData(robot) for _ in range(cores or 1)]
    rng = np.random.default_rng(0)
    start = np.zeros((ROBOTS, mujoco.mj_stateSize(robot, mujoco.mjtState.mjSTATE_FULLPHYSICS)))
    start[:, 1 : 1 + robot.nq] = robot.qpos0
    start[:, 1 : 1 + robot.nq + robot.nv] += rng.uniform(-0.1, 0.1, (ROBOTS, robot.nq + robot.nv))
    actions = rng.uniform(-1.0, 1.0, (ROBOTS, STEPS, robot.nu)).repeat(frames, axis=1)
    pool: Any = rollout.Rollout(nthread=len(threads) if len(threads) > 1 else 0)

    def measure() -> float:
        began = time.perf_counter()
        pool.rollout(robot, threads, start, actions)
        return ROBOTS * STEPS / (time.perf_counter() - began)

    measure()
    return measure
