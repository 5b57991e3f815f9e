"""An episode of what a run learned as an animation, and a strip of it in the run's report."""

import io
import shutil
import subprocess
import tempfile
from pathlib import Path

import jax
import numpy as np

from metaopt.config.components import make
from metaopt.core.errors import UserError
from metaopt.core.files import make_folder, write_atomically
from metaopt.evaluation.run_page import run_page
from metaopt.training.run import load_theta
from metaopt.training.run_directory import RunDirectory

STRIP = 6
"""Pictures in the report."""


def render_run(run: Path, out: Path | None = None, *, seconds: float = 10.0, seed: int = 0) -> Path:
    """Draws an episode under a run's theta, without noise, and shows a strip of it in the report.

    Args:
      run: the run's directory.
      out: a GIF or, by its name, an MP4; ``episode.gif`` in the run's directory if not given.
      seconds: how much of the episode, at most.
      seed: of its start.

    Returns:
      Where it is.

    Raises:
      UserError: if there is no run or no theta, its problem cannot be drawn, nothing draws here,
        the file is of another kind or cannot be written, or there is no ffmpeg for an MP4.
    """
    out = None if out is None else Path(out)
    kind = ".gif" if out is None else out.suffix.lower()
    if kind not in (".gif", ".mp4"):
        raise UserError(f"--out must be a file that ends in .gif or .mp4, got {out}.")
    if kind == ".mp4" and shutil.which("ffmpeg") is None:
        raise UserError(f"{out} needs the program ffmpeg, which is not here: choose a .gif.")
    directory = RunDirectory(Path(run))
    config = directory.read_config()
    name = config.problem.name
    problem = None if name == "training" else make("problem", config.problem)
    if problem is None or problem.render is None:
        raise UserError(
            f"{run} is a run of problem {name!r}, which does not say how it is drawn: choose a run "
            "of one that does, such as swimmer, or give the problem a render."
        )
    theta, data = load_theta(directory.path), problem.data()
    frames, rate = problem.render(theta, data, jax.random.key(seed), seconds)
    out = out or directory.path / "episode.gif"
    make_folder(out.parent)
    animation = (to_gif if kind == ".gif" else to_mp4)(frames, rate)
    try:
        write_atomically(out, animation)
    except OSError as error:
        raise UserError(
            f"{out} cannot be written ({error.strerror}): choose another --out."
        ) from error
    chosen = np.linspace(0, len(frames) - 1, min(STRIP, len(frames))).round().astype(int)
    write_atomically(directory.strip, to_picture(np.concatenate(frames[chosen], axis=1)))
    write_atomically(directory.path / "report.html", run_page(directory, config, None))
    return out


def to_gif(frames: np.ndarray, rate: float) -> bytes:
    """An endless animation.

    Args:
      frames: uint8 ``[n, height, width, 3]``.
      rate: of them a second; GIFs count in hundredths of a second.

    Examples:
      >>> to_gif(np.zeros((2, 4, 4, 3), np.uint8), 25.0)[:6]
      b'GIF89a'
    """
    from PIL import Image

    first, *rest = map(Image.fromarray, frames)
    file = io.BytesIO()
    duration = 10 * max(2, round(100 / rate))
    first.save(file, "GIF", save_all=True, append_images=rest, duration=duration, loop=0)
    return file.getvalue()


def to_mp4(frames: np.ndarray, rate: float) -> bytes:
    """A film that any browser shows, by ffmpeg.

    Args:
      frames: uint8 ``[n, height, width, 3]``; an odd height or width becomes even, as H.264 has it.
      rate: of them a second.

    Raises:
      UserError: where ffmpeg fails, with what it says.
    """
    _, height, width, _ = frames.shape
    pixels = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {rate:g} -i -".split()
    film = ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p", "-movflags", "faststart"]
    with tempfile.TemporaryDirectory(prefix="metaopt-") as folder:
        file = Path(folder) / "film.mp4"
        command = ["ffmpeg", "-loglevel", "error", *pixels, *film, str(file)]
        done = subprocess.run(command, input=frames.tobytes(), capture_output=True, check=False)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise UserError(
                f"ffmpeg made no MP4 ({said[-1] if said else 'no reason given'}): choose a .gif."
            )
        return file.read_bytes()


def to_picture(pixels: np.ndarray) -> bytes:
    """A PNG of uint8 ``[height, width, 3]``."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return file.getvalue()
