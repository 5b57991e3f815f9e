"""``metaopt import``: a public checkpoint becomes a trained optimizer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Import:
    """Turn a public checkpoint (Flax, msgpack) into a trained optimizer that metaopt.load reads."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """What flax.serialization.to_bytes has written: nested dicts of arrays."""
    name: Annotated[str, tyro.conf.arg(name="as")]
    """Which learned optimizer it is; `metaopt list` shows them."""
    out: Path
    """The directory to write."""
    args: tuple[str, ...] = ()
    """The optimizer's keyword arguments, which give its sizes, each NAME=VALUE."""

    def __call__(self) -> int:
        """Does it, and returns the exit code."""
        from metaopt.config.schema import Component
        from metaopt.core.sizes import count_of
        from metaopt.pretrained.importer import import_file

        theta = import_file(self.file, Component(self.name, self.args), self.out)
        numbers = count_of(theta)
        print(f"{self.out} holds {self.name}, {numbers:,} meta-parameters; to use it:")
        print(f"  tx = metaopt.load({str(self.out)!r}, num_steps=...)")
        return 0
