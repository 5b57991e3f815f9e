"""A run's directory: what is in it, and whether a configuration may go on there."""

import json
import math
import os
from pathlib import Path
from typing import Any

from metaopt.config import Config, from_json, mismatches, to_json
from metaopt.errors import UserError
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
            write_atomically(self.config, to_json(config))
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be used as a run directory ({error.strerror}): choose another "
                "--out."
            ) from error

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
        from tensorboardX import SummaryWriter

        directory.rewind_metrics(step)
        self._file = directory.metrics.open("a")
        self._board = SummaryWriter(str(directory.tensorboard), purge_step=step + 1)

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Rows of outer steps: flat, numbers, each with its ``step``. TensorBoard gets the last."""
        for row in rows:
            # JSON has no NaN.
            finite = {k: v if math.isfinite(v) else None for k, v in row.items()}
            self._file.write(json.dumps(finite) + "\n")
        for name, value in (rows[-1] if rows else {}).items():
            if name != "step":
                self._board.add_scalar(name, value, rows[-1]["step"])

    def flush(self) -> None:
        """Hands everything written so far to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *_) -> None:
        self.flush()
        self._file.close()
        self._board.close()


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


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file so that it is there in full or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
