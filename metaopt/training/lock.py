"""One writer a run: a lock on its folder, which the system drops when its process ends.

The lock is the file's, not the text in it: that names the holder for people, and nothing reads it.
"""

import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from metaopt.core.errors import UserError
from metaopt.parallel.processes import on_primary
from metaopt.training.run_directory import RunDirectory, disk_faults, unusable

try:
    import fcntl
except ImportError:  # not on this system; treated as a file system without locks
    fcntl = None  # type: ignore[assignment]


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Keeps every other writer out of a run's folder while the block runs.

    Process 0 holds the lock for all processes of the run; each of them has to enter the block.
    Where the file system has no locks there is one warning and no protection.

    Args:
      path: the run's folder; made where it does not exist, and removed again where it stays empty.

    Raises:
      UserError: where another process, or another thread of this one, writes the run; where the
        folder cannot be made or written.

    Examples:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder, only_writer(Path(folder)):
      ...     with only_writer(Path(folder)):
      ...         pass
      Traceback (most recent call last):
      ...
      metaopt.core.errors.UserError: ... is being written by process ...
    """
    held: list[int] = []
    made: list[Path] = []
    directory = RunDirectory(path)

    def acquire() -> None:
        with disk_faults(directory), unusable(path):
            made.extend(folder for folder in (path, *path.parents) if not folder.exists())
            path.mkdir(parents=True, exist_ok=True)
            held.extend(_locked(directory.lock))

    on_primary(acquire)
    try:
        yield
    finally:
        for descriptor in held:
            _release(directory.lock, descriptor)
        with suppress(OSError):  # where there is something in it, such as the run
            for folder in made:
                folder.rmdir()


def _locked(file: Path) -> list[int]:
    """The descriptor of the locked file; none where there are no locks."""
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if fcntl is None:
                raise OSError("this system has none")
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 1000).decode(errors="replace").strip()
            os.close(descriptor)
            raise UserError(
                f"{file.parent} is being written by {holder or 'another process'}: wait until that "
                "ends, stop it, or choose another --out."
            ) from error
        except OSError as error:
            os.close(descriptor)
            file.unlink(missing_ok=True)
            warnings.warn(
                f"{file.parent} has no locks ({error}): take care that no second process writes "
                "the same run.",
                stacklevel=4,
            )
            return []
        if _is_in_place(file, descriptor):
            break
        os.close(descriptor)  # its holder removed it in the meantime
    os.truncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return [descriptor]


def _is_in_place(file: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(file.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _release(file: Path, descriptor: int) -> None:
    """Removes the file before the lock is dropped, so that no two processes lock two files."""
    try:
        if _is_in_place(file, descriptor):
            file.unlink()
    except OSError:
        pass  # the folder was moved, or can no longer be written; the lock ends all the same
    finally:
        os.close(descriptor)
