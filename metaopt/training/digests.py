"""Digests of a checkpoint's files: of arrays by the process that wrote them, several at a time.

Process 0 digests what is left, and puts all of them into one file before the rename that makes a
checkpoint of the folder.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from metaopt.core.files import json_text, parse_json, sha256

SUMS = "sha256.json"


def digests(files: Iterable[Path], root: Path) -> dict[str, str]:
    """The SHA-256 of files by their paths below ``root``, in as many threads as there are cores.

    Examples:
      >>> digests([Path(__file__)], Path(__file__).parent).keys()
      dict_keys(['digests.py'])
    """
    files = sorted(files)
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(sha256, files))
    return {str(file.relative_to(root)): one for file, one in zip(files, found, strict=True)}


class _OwnDigests:
    """What Orbax waits for last in each process, after its arrays are written."""

    def __init__(self, folder: Path):
        self._folder = folder

    def result(self, timeout: float | None = None) -> None:
        """Writes the digests of the process's own files beside their folder."""
        if self._folder.is_dir():
            sums = digests(_files(self._folder), self._folder.parent)
            _sums_of(self._folder).write_text(json_text(sums), encoding="utf-8")


def digesting_handler() -> ocp.StandardCheckpointHandler:
    """Orbax' handler of a state, in which each process digests the files that it has written."""
    handler = ocp.StandardCheckpointHandler()
    write = handler.async_save

    async def write_and_digest(directory: Any, *args: Any, **kwargs: Any) -> list[Any]:
        own = Path(directory) / f"ocdbt.process_{jax.process_index()}"
        return [*(await write(directory, *args, **kwargs) or []), _OwnDigests(own)]

    handler.async_save = write_and_digest
    return handler


def seal(folder: Path) -> None:
    """Writes the digests of a checkpoint that is complete but for its rename."""
    known: dict[str, str] = {}
    for file in folder.glob("*/ocdbt.process_*.sha256"):
        own = parse_json(file.read_bytes())
        known |= {f"{file.parent.name}/{name}": one for name, one in own.items()}
        file.unlink()
    # Only the items' own files: Orbax writes to those beside them later on.
    files = [file for item in folder.iterdir() if item.is_dir() for file in _files(item)]
    names = {str(file.relative_to(folder)) for file in files}
    known = {name: one for name, one in known.items() if name in names}
    rest = digests((folder / name for name in names - known.keys()), folder)
    sums = dict(sorted((known | rest).items()))
    (folder / SUMS).write_text(json_text(sums, indent=2), encoding="utf-8")


def find_damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint by the digests it carries; ``None`` where they hold."""
    try:
        sums = parse_json((folder / SUMS).read_bytes())
        there = {str(file.relative_to(folder)) for file in _files(folder / "state")}
        if unlisted := sorted(there - sums.keys()):
            return f"{SUMS} does not list {unlisted[0]}"
        if not sums:
            return f"{SUMS} lists nothing"
        found = digests([folder / name for name in sums], folder)
        if changed := sorted(name for name, one in sums.items() if found[name] != one):
            return f"{changed[0]} was changed"
    except (OSError, ValueError, AttributeError, TypeError, KeyError) as error:
        return f"its files cannot be checked: {error}"
    return None


def _files(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file()]


def _sums_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.sha256")
