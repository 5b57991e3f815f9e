"""What six robots see, are rewarded for and fall by: those of gymnasium's version 5 environments.

Models, observations, rewards, starts and ends are those of gymnasium 1.4's Swimmer-v5,
HalfCheetah-v5, Hopper-v5, Walker2d-v5, Ant-v5 and Humanoid-v5 (https://gymnasium.farama.org, MIT),
of many robots at a time. Nothing here needs MuJoCo; `metaopt.tasks.physics` moves them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Beside(NamedTuple):
    """What a robot needs of a simulation beside positions and velocities.

    Attributes:
      x: the position whose change is rewarded.
      cost: of contacts.
      observed: float64 ``[k]``, seen after positions and velocities.
    """

    x: float
    cost: float
    observed: np.ndarray


class Robot(NamedTuple):
    """A robot and its reward; n of them at a time, float64.

    Attributes:
      model: the file of its model, among those of gymnasium.
      frames: MuJoCo's steps in a step.
      unseen: how many of the first positions are not observed.
      noise: half the width of the uniform noise on the positions at the start.
      normal_speeds: whether the velocities start with normal noise of this standard deviation
        instead.
      forward: the reward of a unit of forward velocity.
      effort: the cost of a squared action.
      alive: the reward of a step after which it is healthy.
      fastest: to which observed velocities are clipped.
      healthy: ``(positions [n, q], velocities [n, v]) -> bool [n]``, of NumPy's arrays or, where
        there is no ``beside``, JAX's; the episode ends where it is not. ``None`` if it has no end.
      beside: ``(model, data) -> Beside`` of one simulation after a step; ``None`` if the rest is
        enough.
    """

    model: str
    frames: int
    unseen: int = 1
    noise: float = 0.1
    normal_speeds: bool = False
    forward: float = 1.0
    effort: float = 1e-3
    alive: float = 0.0
    fastest: float = np.inf
    healthy: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    beside: Callable[[Any, Any], Beside] | None = None


def _hopper_is_healthy(positions: np.ndarray, velocities: np.ndarray) -> np.ndarray:
    """Higher than 0.7, upright within 0.2 rad, and nothing beyond 100."""
    height, angle = positions[:, 1], positions[:, 2]
    bounded = (abs(positions[:, 2:]) < 100).all(axis=1) & (abs(velocities) < 100).all(axis=1)
    return (height > 0.7) & (abs(angle) < 0.2) & bounded


def _walker_is_healthy(positions: np.ndarray, velocities: np.ndarray) -> np.ndarray:
    height, angle = positions[:, 1], positions[:, 2]
    return (height > 0.8) & (height < 2.0) & (abs(angle) < 1.0)


def _ant_is_healthy(positions: np.ndarray, velocities: np.ndarray) -> np.ndarray:
    finite = np.isfinite(positions).all(axis=1) & np.isfinite(velocities).all(axis=1)
    return finite & (positions[:, 2] >= 0.2) & (positions[:, 2] <= 1.0)


def _beside_an_ant(model: Any, data: Any) -> Beside:
    """Its torso's place, and the contact forces, clipped to ±1."""
    forces = np.clip(data.cfrc_ext, -1.0, 1.0)
    return Beside(data.xpos[1, 0], 5e-4 * np.square(forces).sum(), forces[1:].ravel())


def _beside_a_humanoid(model: Any, data: Any) -> Beside:
    """Its centre of mass, and inertias, velocities and forces of all its bodies."""
    x = model.body_mass @ data.xipos[:, 0] / model.body_mass.sum()
    cost = min(5e-7 * np.square(data.cfrc_ext).sum(), 10.0)
    of_bodies = data.cinert[1:], data.cvel[1:], data.qfrc_actuator[6:], data.cfrc_ext[1:]
    return Beside(x, cost, np.concatenate([values.ravel() for values in of_bodies]))


SWIMMER = Robot("swimmer.xml", frames=4, unseen=2, effort=1e-4)
HALF_CHEETAH = Robot("half_cheetah.xml", frames=5, effort=0.1, normal_speeds=True)
HOPPER = Robot(
    "hopper.xml", frames=4, noise=5e-3, alive=1.0, fastest=10.0, healthy=_hopper_is_healthy
)
WALKER2D = Robot(
    "walker2d_v5.xml", frames=4, noise=5e-3, alive=1.0, fastest=10.0, healthy=_walker_is_healthy
)
ANT = Robot(
    "ant.xml",
    frames=5,
    unseen=2,
    normal_speeds=True,
    effort=0.5,
    alive=1.0,
    healthy=_ant_is_healthy,
    beside=_beside_an_ant,
)
HUMANOID = Robot(
    "humanoid.xml",
    frames=5,
    unseen=2,
    noise=1e-2,
    forward=1.25,
    effort=0.1,
    alive=5.0,
    healthy=lambda positions, velocities: (positions[:, 2] > 1.0) & (positions[:, 2] < 2.0),
    beside=_beside_a_humanoid,
)
