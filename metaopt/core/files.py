"""Files as everything here writes them: whole or not at all, in JSON that every reader takes."""

import errno
import hashlib
import json
import math
import os
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metaopt.core.errors import UserError

DISK_FAULTS = (
    *("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "EIO", "EFBIG"),
    *("EISDIR", "ENOTDIR", "EEXIST", "ENAMETOOLONG", "ELOOP"),
)
"""What the operating system says of a disk that is full or cannot be written, and of a folder where
a file should be or the reverse."""


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file so that it is there in full or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_text(path: Path) -> str:
    """A text file in UTF-8 whatever the environment's encoding is, as any editor may have saved it.

    Windows' editors begin it with a byte-order mark and end its lines with two characters.
    """
    return path.read_text(encoding="utf-8-sig")


def parse_json(text: str | bytes) -> Any:
    """What a text in JSON says.

    Raises:
      ValueError: where it is no JSON, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def unused(path: Path) -> Path:
    """The path, or with a number behind where there is something already."""
    numbered = (path.with_name(f"{path.name}.{n}") for n in range(1, 1_000_000))
    return path if not path.exists() else next(p for p in numbered if not p.exists())


def make_folder(path: Path) -> Path:
    """Makes a folder to write into, and those above it; an existing one is taken as it is.

    Raises:
      UserError: where it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}): choose another --out."
        ) from error
    return path


def make_empty_folder(path: Path) -> Path:
    """The same, for a folder that nothing may be in yet.

    Raises:
      UserError: where there is something in it, or it cannot be made.
    """
    present = sorted(entry.name for entry in make_folder(path).iterdir())
    if present:
        raise UserError(f"{path} holds something already ({present[0]}): choose another --out.")
    return path


def disk_fault(error: BaseException | None) -> str | None:
    """What the disk's fault is, where an error is one; ``None`` for any other error.

    Orbax has it in the text, or in a cause.

    Examples:
      >>> disk_fault(OSError(errno.ENOSPC, "..."))
      'No space left on device'
    """
    while error is not None:
        for name in DISK_FAULTS:
            said = os.strerror(number := getattr(errno, name))
            if getattr(error, "errno", None) == number or said in str(error):
                return said
        error = error.__cause__ or error.__context__
    return None


def json_text(value: Any, *, indent: int | None = None) -> str:
    """A value as a line or a page of JSON, the newline included.

    JSON has neither NaN nor infinity: a number that is not finite is null. Arrays become lists;
    named tuples and dataclasses become objects.

    Examples:
      >>> json_text({"losses": np.array([1.0, np.nan])})
      '{"losses": [1.0, null]}\\n'
    """
    return json.dumps(_plain(value), indent=indent, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        value = value._asdict()
    elif is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    elif isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def sha256(content: bytes | Path) -> str:
    """The digest of some bytes or of a file's, in hexadecimal.

    Examples:
      >>> sha256(b"")[:8]
      'e3b0c442'
    """
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
