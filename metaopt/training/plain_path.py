"""A folder by a path of plain characters, for libraries that take others for patterns.

Orbax looks for files through `etils`, which expands ``[``, ``*`` and ``?`` anywhere in a path, and
TensorStore wants text in UTF-8. A folder whose path has anything but plain characters is handed to
them through a symbolic link.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from metaopt.parallel.processes import on_primary


@contextmanager
def plain_path(folder: Path) -> Iterator[Path]:
    """A path to a folder without special characters, while the block runs.

    Every process of a run has to enter it, and gets the same path.

    Args:
      folder: made where it does not exist.

    Examples:
      >>> with plain_path(Path("/tmp")) as path:
      ...     str(path)
      '/tmp'
      >>> with tempfile.TemporaryDirectory(prefix="proj [old]") as folder:
      ...     with plain_path(Path(folder)) as path:
      ...         "[" in str(path), path.samefile(folder)
      (False, True)
    """
    absolute = folder.absolute()
    if re.fullmatch(r"[\w/. ,+@=~-]*", str(absolute), re.ASCII):
        yield absolute
        return
    absolute.mkdir(parents=True, exist_ok=True)
    parent = Path(on_primary(lambda: tempfile.mkdtemp(prefix="metaopt-")))
    link = parent / "run"
    try:
        parent.mkdir(exist_ok=True)  # on other hosts
        with suppress(FileExistsError):
            link.symlink_to(absolute, target_is_directory=True)
        yield link
    finally:
        with suppress(OSError):  # another process has done it
            os.unlink(link)
            parent.rmdir()
