"""A run's metrics: rows of numbers in ``metrics.jsonl`` and, for people, in TensorBoard."""

import os
import socket
import time
from contextlib import closing
from typing import Any

from metaopt.core.files import json_text
from metaopt.parallel.processes import is_first
from metaopt.training.run_directory import RunDirectory


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
            self._file.write(json_text(row))
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
