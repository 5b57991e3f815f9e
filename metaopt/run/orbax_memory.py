"""Saves that do not grow the process.

TensorStore (0.1.75 to 0.1.86) never frees the strings of a JSON value that it returns to Python.
Orbax (0.12.8) asks it for one for every array, and for all its metrics twice a save: 27 KiB of a
checkpoint of 30 arrays stay for good, which a long run with many checkpoints would notice. No
option of either avoids it, so two of Orbax's functions are replaced by ones that ask less often;
what is written is the same. Where another version has no such functions, nothing is done.
"""

import copy
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any

from orbax.checkpoint._src.serialization import tensorstore_utils


def keep_flat() -> None:
    """Makes the saves of this process ask TensorStore for no more JSON than they need.

    Orbax loses one line of its log: how many bytes reached the disk. A second call does nothing.
    """
    build = getattr(tensorstore_utils, "build_kvstore_tspec", None)
    if build is not None and not hasattr(build, "__wrapped__"):
        tensorstore_utils.build_kvstore_tspec = once_per_directory(build)
    if hasattr(tensorstore_utils, "get_tensorstore_raw_bytes"):
        tensorstore_utils.get_tensorstore_raw_bytes = lambda *_, **__: 0


def once_per_directory(build: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """The same specifications, of which those of one directory differ in their name alone."""
    remembered = lru_cache(maxsize=8)(build)

    @wraps(build)
    def spec(directory: str, name: str | None = None, **options: Any) -> dict[str, Any]:
        if name is None or not options.get("use_ocdbt", True):
            return build(directory, name, **options)  # there the name is a part of the path
        return {**copy.deepcopy(remembered(directory, **options)), "path": name}

    return spec
