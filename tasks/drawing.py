"""Pictures of MuJoCo's robots, drawn without a screen. Internal.

OpenGL can be started once in a process, and fails in many ways; so a process of its own draws, one
for each way to do without a screen, until one succeeds.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from metaopt import UserError
from metaopt.tasks import physics
from metaopt.tasks.robots import Robot

WAYS = "egl", "osmesa", "glfw"
"""Of MuJoCo to OpenGL, tried in this order unless ``MUJOCO_GL`` names one."""


def frames_of(robot: Robot, rows: np.ndarray, size: tuple[int, int] = (240, 320)) -> np.ndarray:
    """A picture of each of a robot's positions, from a camera that follows it.

    Args:
      robot: what it is.
      rows: float64 ``[n, width]``, see `metaopt.tasks.physics`.
      size: height and width in pixels, at most 480 and 640.

    Returns:
      uint8 ``[n, height, width, 3]``.

    Raises:
      UserError: where nothing draws here, with what was tried.
    """
    model = physics.physics_of(robot).file
    ways = (os.environ["MUJOCO_GL"],) if "MUJOCO_GL" in os.environ else WAYS
    with tempfile.TemporaryDirectory(prefix="metaopt-") as folder:
        given, drawn = Path(folder) / "rows.npz", Path(folder) / "frames.npy"
        np.savez(given, model=str(model), rows=rows, size=size)
        code = f"from {__name__} import draw; draw({str(given)!r}, {str(drawn)!r})"
        for way in ways:
            env = os.environ | {"MUJOCO_GL": way}
            done = subprocess.run(
                [sys.executable, "-c", code], env=env, cwd=folder, capture_output=True, check=False
            )
            if done.returncode == 0:
                return np.load(drawn)
    raise UserError(
        f"MuJoCo found nothing to draw with here (tried {', '.join(ways)}): install EGL or OSMesa, "
        "such as by apt-get install libegl1 or libosmesa6."
    )


def draw(given: str, drawn: str) -> None:
    """What the process does: pictures of the rows in one file into the other."""
    import mujoco

    with np.load(given) as orders:
        rows, (height, width) = orders["rows"], orders["size"]
        model = mujoco.MjModel.from_xml_path(str(orders["model"]))
    data, kept = mujoco.MjData(model), physics.kept_state(mujoco)
    with mujoco.Renderer(model, int(height), int(width)) as renderer:
        for effect in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            renderer.scene.flags[effect] = 0  # most of the time that software takes
        frames = []
        for row in rows:
            mujoco.mj_setState(model, data, row[:-1], kept)
            mujoco.mj_forward(model, data)
            renderer.update_scene(data, camera="track")
            frames.append(renderer.render().copy())
    np.save(drawn, np.stack(frames))
