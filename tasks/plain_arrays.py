"""Data sets as plain arrays beside TFDS' files: to import TFDS takes longer than a first update."""

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any, cast
from zipfile import BadZipFile

import numpy as np

Splits = dict[str, dict[str, np.ndarray]]

VERSION = "1.0.0"
"""Of the sets from scikit-learn; those of another version are prepared anew."""

ARRAYS = "arrays.npz"
"""``SPLIT/COLUMN`` for each array, in a set's folder."""


def arrays_file(name: str, data_dir: str | None) -> Path:
    """Where a set of scikit-learn is, if it was read once, in a TFDS data folder."""
    folder = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
    with contextlib.suppress(RuntimeError):  # a user without a home
        folder = folder.expanduser()
    return folder / "sklearn" / name / VERSION / ARRAYS


def read_arrays(file: Path) -> Splits | None:
    """What `write_arrays` wrote; ``None`` where there is nothing, or it is damaged."""
    splits: Splits = {}
    try:
        with file.open("rb") as opened, np.load(opened) as arrays:  # which checks the sums
            for key in arrays.files:
                split, column = key.split("/")
                splits.setdefault(split, {})[column] = arrays[key]
    except (OSError, ValueError, EOFError, KeyError, BadZipFile):
        return None
    return splits


def write_arrays(file: Path, splits: Splits) -> None:
    """Writes a file whole or not at all; not at all where the folder takes none."""
    arrays = {f"{split}/{name}": v for split, rows in splits.items() for name, v in rows.items()}
    with contextlib.suppress(OSError):
        with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".npz", delete=False) as new:
            np.savez(new, **cast(Any, arrays))
        Path(new.name).replace(file)
