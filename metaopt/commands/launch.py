"""``metaopt launch``: a run by several processes of this machine."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from metaopt.commands import COMMANDS, record_of
from metaopt.core.errors import UserError
from metaopt.parallel.launch import launch


@dataclass(frozen=True)
class Launch:
    """Run a command in several processes of this machine: metaopt launch -n 2 -- train ..."""

    command: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="COMMAND")]
    """train or compare, behind --, and what it takes."""
    processes: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 2
    """How many share the particles."""

    def __call__(self) -> int:
        """Does it, and returns the exit code."""
        known = [n for n in COMMANDS if getattr(record_of(n), "by_several_processes", False)]
        if self.command[:1] not in [(name,) for name in known]:
            raise UserError(
                f"launch starts {' or '.join(known)}, got {' '.join(self.command)!r}: write "
                "metaopt launch -n 2 -- train, and what train takes."
            )
        return launch(self.command, self.processes)
