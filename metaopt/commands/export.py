"""``metaopt export``: a run becomes a pretrained optimizer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Export:
    """Make a pretrained optimizer of a run: files that describe and check themselves."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The directory of a finished run."""
    name: str | None = None
    """What the optimizer is to be called; as RUN's folder if not given."""
    out: Path | None = None
    """The directory to write; NAME if not given."""
    note: str = ""
    """For the card, in Markdown: what else is known of it, such as another evaluation."""

    def __call__(self) -> int:
        """Does it, and returns the exit code."""
        from metaopt.exporting.export import export

        out = export(self.run, self.name, self.out, self.note)
        name = self.name or self.run.resolve().name
        print(f"{out} holds {name}, its card is {out / 'CARD.md'}; to use it:")
        print(f"  tx = metaopt.load({str(out)!r}, num_steps=...)")
        return 0
