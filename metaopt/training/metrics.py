"""A run's metrics: rows of numbers in ``metrics.jsonl`` and, for people, in TensorBoard."""

import os
import socket
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from metaopt.core.errors import UserError
from metaopt.core.files import json_text
from metaopt.parallel.processes import is_primary
from metaopt.training.run_directory import RunDirectory


def read_metrics(run: Any) -> dict[str, np.ndarray]:
    """The metrics of a run as columns ``[rows]``, a row a logged outer step, oldest first.

    ``step``, ``loss`` (the meta-loss), ``grad_norm``, ``unroll_steps``, ``seconds`` and the
    estimator's own; the test metric, such as ``test_loss``, where it was measured. Counts are
    int64, all else is float64, NaN where a row has no number or had one that was not finite.

    Args:
      run: a run's directory, or a `metaopt.Run`.

    Raises:
      UserError: where there are no metrics.

    Examples:
      >>> read_metrics("nowhere")
      Traceback (most recent call last):
      ...
      metaopt.core.errors.UserError: nowhere holds no metrics: there is no metrics.jsonl.
    """
    directory = RunDirectory(Path(run))
    try:
        rows = directory.read_metrics()
    except FileNotFoundError as error:
        raise UserError(f"{run} holds no metrics: there is no metrics.jsonl.") from error
    except OSError as error:
        raise UserError(f"{directory.metrics} cannot be read ({error.strerror}).") from error
    if not rows:
        raise UserError(f"{run} holds no metrics yet: it has done no outer step.")
    names = dict.fromkeys(name for row in rows for name in row)

    def column(name: str) -> np.ndarray:
        values = [row.get(name) for row in rows]
        if all(isinstance(value, int) for value in values):
            return np.array(values, np.int64)
        return np.array([np.nan if value is None else value for value in values], np.float64)

    return {name: column(name) for name in names}


class MetricsWriter:
    """Appends rows to ``metrics.jsonl`` and, for people, to TensorBoard."""

    def __init__(self, directory: RunDirectory, step: int, log_every: int):
        # Not its SummaryWriter: that writes in a thread, where a full disk is nobody's to see.
        from tensorboardX import RecordWriter
        from tensorboardX.proto.event_pb2 import SessionLog

        directory.rewind_metrics(step, log_every)
        directory.tensorboard.mkdir(exist_ok=True)
        self._file = directory.metrics.open("a", encoding="utf-8")
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


def metrics_writer(
    directory: RunDirectory, step: int, log_every: int
) -> MetricsWriter | NoMetricsWriter:
    """A `MetricsWriter` in process 0; in the others one that writes nothing."""
    return MetricsWriter(directory, step, log_every) if is_primary() else NoMetricsWriter()
