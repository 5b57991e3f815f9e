"""A run's directory: what is in it, and whether a configuration may go on there."""

import errno
import json
import math
import os
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from metaopt.config import Config, from_json, mismatches, to_json
from metaopt.errors import OwnFault, UserError
from metaopt.processes import is_first


class RunDirectory:
    """Paths and host-side files of one run.

    Attributes:
      path: the directory: ``config.json``, ``metrics.jsonl``, ``tensorboard/``, ``checkpoints/``,
        ``optimizer/`` (what `metaopt.load` reads) and the report.
    """

    def __init__(self, path: Path):
        self.path = path
        self.config = path / "config.json"
        self.metrics = path / "metrics.jsonl"
        self.tensorboard = path / "tensorboard"
        self.checkpoints = path / "checkpoints"
        self.optimizer = path / "optimizer"

    def open(self, config: Config) -> None:
        """Makes the directory for a run, or checks that it holds this very one.

        Raises:
          UserError: where it holds another run or something else, or cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            present = sorted(p.name for p in self.path.iterdir() if p.suffix != ".tmp")
            if present:
                self._check(config, present[0])
            else:
                self.write(config)
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be used as a run directory ({error.strerror}): choose another "
                "--out."
            ) from error

    def has_checkpoint(self) -> bool:
        """Whether the run has one, good or damaged, to go on from."""
        return any(path.name.isdecimal() for path in self.checkpoints.glob("*"))

    def write(self, config: Config) -> None:
        """Writes the configuration, also in place of one that may be gone on with."""
        write_atomically(self.config, to_json(config))

    def _check(self, config: Config, something: str) -> None:
        if not self.config.is_file():
            raise UserError(
                f"{self.path} holds something else than a run ({something}, but no config.json): "
                "choose another --out."
            )
        if faults := mismatches(self.read_config(), config):
            raise UserError(
                f"{self.path} holds a run with another configuration ({'; '.join(faults)}): use "
                "its values to go on with it, or choose another --out."
            )

    def read_config(self) -> Config:
        """The run's configuration.

        Raises:
          UserError: where there is none or it cannot be read.
        """
        try:
            return from_json(self.config.read_text())
        except FileNotFoundError as error:
            raise UserError(f"{self.path} holds no run: there is no config.json.") from error
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{self.config} cannot be read: {error}") from error

    def rewind_metrics(self, step: int) -> None:
        """Drops the lines of metrics after an outer step, and a half-written last one."""
        if self.metrics.exists():
            kept = [json.dumps(row) + "\n" for row in self.read_metrics() if row["step"] <= step]
            write_atomically(self.metrics, "".join(kept))

    def read_metrics(self) -> list[dict[str, Any]]:
        """The rows of ``metrics.jsonl``, oldest first; non-finite values are None."""
        rows = []
        for line in self.metrics.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break  # cut off in the middle of a write; nothing valid comes after it
        return rows


class MetricsWriter:
    """Appends rows to ``metrics.jsonl`` and, for people, to TensorBoard."""

    def __init__(self, directory: RunDirectory, step: int):
        # Not its SummaryWriter: that writes in a thread, where a full disk is nobody's to see.
        from tensorboardX import RecordWriter
        from tensorboardX.proto.event_pb2 import SessionLog

        directory.rewind_metrics(step)
        self._file = directory.metrics.open("a")
        directory.tensorboard.mkdir(exist_ok=True)
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}"
        self._board = RecordWriter(str(directory.tensorboard / name))
        self._tell_board(0, file_version="brain.Event:2")
        # What TensorBoard was told of later steps does not count.
        self._tell_board(step + 1, session_log=SessionLog(status=SessionLog.START))

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Rows of outer steps: flat, numbers, each with its ``step``. TensorBoard gets the last."""
        from tensorboardX.proto.summary_pb2 import Summary

        for row in rows:
            # JSON has no NaN.
            finite = {k: v if math.isfinite(v) else None for k, v in row.items()}
            self._file.write(json.dumps(finite) + "\n")
        if rows:
            values = [
                Summary.Value(tag=name, simple_value=value)
                for name, value in rows[-1].items()
                if name != "step"
            ]
            self._tell_board(rows[-1]["step"], summary=Summary(value=values))

    def _tell_board(self, step: int, **what) -> None:
        from tensorboardX.proto.event_pb2 import Event

        event = Event(step=step, wall_time=time.time(), **what)
        self._board.write(event.SerializeToString())

    def flush(self) -> None:
        """Hands everything written so far to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._board.flush()

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *_) -> None:
        with closing(self._board), self._file:
            self.flush()


DISK_FAULTS = ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "EIO", "EFBIG")
"""What the operating system says of a disk that is full, or cannot be written."""


@contextmanager
def disk_faults(directory: RunDirectory) -> Iterator[None]:
    """Turns a disk that fails while a run is written into a sentence, an `OwnFault`."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        reason = None if isinstance(error, UserError) else _disk_fault(error)
        if reason is None:
            raise
        saved = [int(p.name) for p in directory.checkpoints.glob("*") if p.name.isdecimal()]
        then = f"goes on from outer step {max(saved)}" if saved else "starts anew: none was saved"
        raise OwnFault(
            f"{directory.path} cannot be written ({reason}): mend that and the same command {then}."
        ) from error


def _disk_fault(error: BaseException | None) -> str | None:
    """What the disk's fault is, where it is one: Orbax has it in the text, or in a cause."""
    while error is not None:
        for name in DISK_FAULTS:
            said = os.strerror(number := getattr(errno, name))
            if getattr(error, "errno", None) == number or said in str(error):
                return said
        error = error.__cause__ or error.__context__
    return None


class NoMetricsWriter:
    """What the other processes of a run have in place of a `MetricsWriter`."""

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Nothing."""

    def flush(self) -> None:
        """Nothing."""

    def __enter__(self) -> "NoMetricsWriter":
        return self

    def __exit__(self, *_) -> None:
        pass


def metrics_writer(directory: RunDirectory, step: int) -> MetricsWriter | NoMetricsWriter:
    """A `MetricsWriter` in process 0; in the others one that writes nothing."""
    return MetricsWriter(directory, step) if is_first() else NoMetricsWriter()


def make_folder(path: Path) -> Path:
    """Makes a folder to write into, and those above it; one that is there is taken as it is.

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


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file so that it is there in full or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
