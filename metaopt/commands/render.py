"""``metaopt render``: what a run learned, in pictures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from metaopt.core.errors import UserError
from metaopt.training import placement


@dataclass(frozen=True)
class Render:
    """Draw an episode of what a run learned, such as a robot that walks, as an animation."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The directory of a run whose problem can be drawn."""
    out: Path | None = None
    """The GIF to write, or an MP4 where ffmpeg is installed; RUN/episode.gif if not given."""
    seconds: float = 10.0
    """How much of the episode, at most."""
    seed: int = 0
    """Of its start."""

    def __call__(self) -> int:
        """Does it, and returns the exit code."""
        placement.prepare_jax()
        from metaopt.evaluation.render import render_run

        if not self.seconds > 0:
            raise UserError(f"--seconds must be above 0, got {self.seconds}.")
        print(f"Animation: {render_run(self.run, self.out, seconds=self.seconds, seed=self.seed)}")
        return 0
