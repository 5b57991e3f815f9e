"""Where trials are kept, a file each, so that an evaluation that was interrupted resumes."""

import hashlib
import io
import zipfile
import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np

from metaopt.core.files import write_atomically
from metaopt.core.types import PyTree

Kept = tuple[dict[str, np.ndarray], list[float]]
"""Curves by ``MEASURE/HORIZON``, and some numbers beside them."""


def digest(program: str, arguments: PyTree, horizons: tuple[int, ...]) -> str:
    """A name for a trial, by everything that it depends on.

    Examples:
      >>> digest("program", np.zeros(2), (4,)) == digest("program", np.ones(2), (4,))
      False
    """
    found = hashlib.sha256(f"{program} {horizons}".encode())
    for leaf in jax.tree.leaves(arguments):
        found.update(np.ascontiguousarray(leaf).tobytes())
    return found.hexdigest()[:24]


def write(file: Path, curves: dict[str, np.ndarray], facts: list[float]) -> None:
    """Keeps a trial; its folder is made where it is missing."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = dict(curves)
    np.savez_compressed(buffer, facts=np.array(facts, np.float64), **arrays)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, buffer.getvalue())


def read(file: Path) -> Kept | None:
    """What `write` kept; ``None`` if it is not there, or damaged: it is then run again."""
    try:
        with file.open("rb") as stream, np.load(stream) as stored:
            arrays = {name: stored[name] for name in stored.files}
        facts = arrays.pop("facts").tolist()
        return arrays, facts
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
