"""Saves that do not grow the process.

TensorStore (0.1.75 to 0.1.86) never frees the strings of a JSON value that it returns to Python.
Orbax (0.12.8) asks it for one for every array, and for all its metrics twice a save: 27 KiB of a
checkpoint of 30 arrays stay for good, which a long run with many checkpoints would notice. No
option of either avoids it, so two of Orbax's functions are replaced by ones that ask once; what is
written is the same. Where another version has no such functions, nothing is done.
"""

import os
from collections.abc import Callable
from functools import lru_cache, wraps
from importlib import import_module
from typing import Any

INSIDE = "orbax.checkpoint._src.serialization.tensorstore_utils"

ELSEWHERE = "/elsewhere"
"""The directory of the specifications that are remembered."""


def keep_flat() -> None:
    """Makes the saves of this process ask TensorStore for no more JSON than they need.

    Orbax loses one line of its log: how many bytes reached the disk. A second call does nothing.
    """
    try:
        inside: Any = import_module(INSIDE)
    except ImportError:
        return
    build = getattr(inside, "build_kvstore_tspec", None)
    if build is not None and not hasattr(build, "__wrapped__"):
        inside.build_kvstore_tspec = once_for_all_directories(build)
    if hasattr(inside, "get_tensorstore_raw_bytes"):
        inside.get_tensorstore_raw_bytes = lambda *_, **__: 0


def once_for_all_directories(build: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """The same specifications: with the same options they differ in directory and name alone."""
    remembered = lru_cache(maxsize=32)(lambda options: build(ELSEWHERE, **dict(options)))

    @wraps(build)
    def spec(directory: str, name: str | None = None, **options: Any) -> dict[str, Any]:
        plain = os.path.isabs(directory) and os.path.normpath(directory) == directory
        if not plain or not options.get("use_ocdbt", True):
            return build(directory, name, **options)
        found = _moved(remembered(tuple(sorted(options.items()))), directory)
        return found if name is None else {**found, "path": name}

    return spec


def _moved(spec: Any, directory: str) -> Any:
    """A copy, with paths below `directory` for those below `ELSEWHERE`."""
    if isinstance(spec, dict):
        return {key: _moved(value, directory) for key, value in spec.items()}
    if isinstance(spec, str) and (spec + "/").startswith(ELSEWHERE + "/"):
        return directory + spec.removeprefix(ELSEWHERE)
    return spec
