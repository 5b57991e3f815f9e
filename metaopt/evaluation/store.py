"""Where trials are kept, a file each, so that an evaluation that was interrupted resumes."""

import hashlib
import io
import warnings
from collections.abc import Mapping
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


def read(file: Path, like: Mapping[str, tuple[int, ...]], facts: int) -> Kept | None:
    """What `write` kept; ``None`` if it is not there, or damaged: it is then run again.

    Args:
      file: where.
      like: the shape of each curve that is to be in it.
      facts: how many numbers are to be beside them.
    """
    try:
        with file.open("rb") as stream, np.load(stream) as stored:
            arrays = {name: stored[name] for name in stored.files}
        numbers = arrays.pop("facts")
        whole = {name: values.shape for name, values in arrays.items()} == dict(like)
        if not whole or numbers.shape != (facts,) or not np.isfinite(numbers).all():
            raise ValueError("it holds something else")
        if any(values.dtype != np.float32 for values in arrays.values()):
            raise ValueError("it holds other types")
        return arrays, numbers.tolist()
    except FileNotFoundError:
        return None
    except Exception as error:  # each damage has its own kind
        warnings.warn(f"{file} is damaged ({error}): what it held is run again.", stacklevel=2)
        return None
