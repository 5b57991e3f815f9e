"""A run's directory: what is in it, and whether a configuration may resume it."""

import codecs
import os
import shlex
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from metaopt.config.schema import Config, from_json, mismatches, to_json
from metaopt.core.errors import OwnFault, UserError
from metaopt.core.files import (
    disk_fault,
    json_text,
    parse_json,
    read_text,
    unused,
    write_atomically,
)
from metaopt.core.metric import Metric
from metaopt.pretrained.artefact import THETA


class RunDirectory:
    """Paths and host-side files of one run.

    Attributes:
      path: the directory: ``config.json``, ``metrics.jsonl``, ``tensorboard/``, ``checkpoints/``,
        ``optimizer/`` (what `metaopt.load` reads) and the report; ``test_metric.json`` where the
        problem has a test metric; ``episode.png``, a strip of pictures, where it was drawn.
    """

    def __init__(self, path: Path):
        self.path = path
        self.lock = path / "run.lock"
        self.config = path / "config.json"
        self.metrics = path / "metrics.jsonl"
        self.test_metric = path / "test_metric.json"
        self.strip = path / "episode.png"
        self.tensorboard = path / "tensorboard"
        self.checkpoints = path / "checkpoints"
        self.optimizer = path / "optimizer"

    def open(self, config: Config) -> None:
        """Makes the directory for a run, or checks that it holds this very one.

        Raises:
          UserError: where it holds another run or something else, or cannot be written.
        """
        with unusable(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self.check(config)
            if self.is_empty():  # also one that was mistyped, and failed before its first step
                self.write(config)

    def check(self, config: Config) -> None:
        """Checks that the directory is missing, empty or holds this very run.

        Raises:
          UserError: where it holds another run or something else.
        """
        names = (p.name for p in self.path.iterdir()) if self.path.is_dir() else ()
        ours = lambda name: name == self.lock.name or name.endswith(".tmp")
        present = sorted(name for name in names if not ours(name))
        if not present:
            return
        self._check_kinds()
        if not self.config.exists():
            raise UserError(
                f"{self.path} holds something else than a run ({present[0]}, but no config.json): "
                "choose another --out."
            )
        faults = mismatches(self.read_config(), config)
        if faults and not self.is_empty():
            raise UserError(
                f"{self.path} holds a run with another configuration ({'; '.join(faults)}): use "
                "its values to resume it, or choose another --out."
            )

    def _check_kinds(self) -> None:
        """That there are no files where a run has folders, nor the reverse."""
        for path in (self.checkpoints, self.tensorboard, self.optimizer):
            if os.path.lexists(path) and not os.path.isdir(path):
                raise UserError(f"{path} is no folder, but {_kind(path)}: move it elsewhere.")
        for path in (self.config, self.metrics, self.test_metric):
            if os.path.lexists(path) and not os.path.isfile(path):
                raise UserError(f"{path} is no file, but {_kind(path)}: move it elsewhere.")

    def newest_checkpoint(self) -> int | None:
        """The outer step of the newest, good or damaged; ``None`` for a run without checkpoints."""
        names = os.listdir(self.checkpoints) if self.checkpoints.is_dir() else []
        return max((int(name) for name in names if name.isdecimal()), default=None)

    def require_never_saved(self, checkpoint_every: int) -> None:
        """Refuses to start anew where a checkpoint was.

        Raises:
          UserError: where theta was saved, or the metrics go on after two checkpoints: the first of
            them was finished then.
        """
        theta = (self.path / THETA, self.optimizer / THETA)
        is_saved = any(file.exists() for file in theta)
        rows = self._rows()[0] if self.metrics.is_file() else []
        done = max((row["step"] for row in rows), default=0)
        every = max(checkpoint_every, self.read_config().checkpoint_every)
        if is_saved or done > 2 * every:
            here = shlex.quote(str(self.path))
            begin = f", with --start-from {here} to begin at the theta saved there" * is_saved
            raise UserError(
                f"{self.path} was trained before, but its checkpoints are gone: choose another "
                f"--out{begin}; or remove {self.path} to start anew."
            )

    def is_empty(self) -> bool:
        """Whether nothing was done that another configuration would lose."""
        has_metrics = self.metrics.is_file() and self.metrics.stat().st_size > 0
        return self.newest_checkpoint() is None and not has_metrics

    def write(self, config: Config) -> None:
        """Writes the configuration, also in place of one that it may resume."""
        write_atomically(self.config, to_json(config))

    def read_config(self) -> Config:
        """The run's configuration.

        Raises:
          UserError: if there is none, or it cannot be read.
        """
        try:
            return from_json(read_text(self.config))
        except FileNotFoundError as error:
            raise UserError(f"{self.path} holds no run: there is no config.json.") from error
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{self.config} cannot be read: {error}") from error

    def read_problem(self) -> str | None:
        """What the run unrolls, by its name; ``None`` where the file is not a run's."""
        try:
            return str(parse_json(read_text(self.config))["problem"]["name"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write_test_metric(self, metric: Metric) -> None:
        """Writes what the test metric is, for those who read the run without its problem."""
        write_atomically(self.test_metric, json_text(metric))

    def read_test_metric(self) -> Metric:
        """What the test metric is, if there is one; a loss where nothing says it."""
        try:
            return Metric(**parse_json(read_text(self.test_metric)))
        except (OSError, ValueError, TypeError):
            return Metric()

    def rewind_metrics(self, step: int, log_every: int) -> None:
        """Drops the lines of metrics after an outer step, and says where some before it are lost.

        A file with lines that cannot be read is kept beside the new one.
        """
        existed = self.metrics.exists()
        rows, unreadable = self._rows() if existed else ([], 0)
        by_step = {row["step"]: row for row in rows if row["step"] <= step}
        kept = [by_step[n] for n in sorted(by_step)]
        aside = unused(self.metrics.with_name(f"damaged-{self.metrics.name}"))
        if unreadable:
            self.metrics.rename(aside)
        wanted = range(log_every, step + 1, log_every)
        lost = len(set(wanted) - {row["step"] for row in kept})
        if lost or unreadable:
            few = f"{lost} of its {len(wanted)} lines" if lost else "no line"
            where = f"; it is kept as {aside.name}" if unreadable else ""
            warnings.warn(
                f"{self.metrics} has lost {few} up to outer step {step}{where}.", stacklevel=3
            )
        if existed:
            write_atomically(self.metrics, "".join(map(json_text, kept)))

    def read_metrics(self) -> list[dict[str, Any]]:
        """The rows of ``metrics.jsonl``, oldest first; non-finite values are None.

        A last line that was cut off in the middle of a write is left out; other lines that are no
        rows are, too, with a warning that says how many.
        """
        rows, damaged = self._rows()
        if damaged:
            warnings.warn(
                f"{damaged} line{'s' * (damaged > 1)} of {self.metrics} cannot be read and "
                f"{'are' if damaged > 1 else 'is'} left out.",
                stacklevel=3,
            )
        return rows

    def _rows(self) -> tuple[list[dict[str, Any]], int]:
        """The rows of ``metrics.jsonl``, and how many of its whole lines are none."""
        *lines, _ = self.metrics.read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n")
        rows = [row for row in map(_row, lines) if row is not None]
        return rows, len(lines) - len(rows)


def _row(line: bytes) -> dict[str, Any] | None:
    """A line of metrics; ``None`` where it is none."""
    try:
        row = parse_json(line)
    except ValueError:
        return None
    number = lambda value: (
        isinstance(value, float) or (isinstance(value, int) and abs(value) < 1 << 63)
    )
    numbers = isinstance(row, dict) and all(
        value is None or number(value) for value in row.values()
    )
    return row if numbers and isinstance(row.get("step"), int) else None


def _kind(path: Path) -> str:
    """What something is that is in the way."""
    if os.path.islink(path) and not os.path.exists(path):
        return f"a link to {os.readlink(path)}, which is not there"
    return "a folder" if os.path.isdir(path) else "a file" if os.path.isfile(path) else "a device"


@contextmanager
def unusable(path: Path) -> Iterator[None]:
    """Turns a folder that cannot be made or opened into a sentence."""
    try:
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        is_link = os.path.islink(path) and not os.path.exists(path)
        why = f"it is {_kind(path)}" if is_link else getattr(error, "strerror", str(error))
        raise UserError(
            f"{path} cannot be used as a run directory ({why}): choose another --out."
        ) from error


@contextmanager
def disk_faults(directory: RunDirectory) -> Iterator[None]:
    """Turns a disk that fails while a run is written into a sentence, an `OwnFault`."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        reason = None if isinstance(error, UserError) else disk_fault(error)
        if reason is None:
            raise
        saved = directory.newest_checkpoint()
        file = getattr(error, "filename", None)
        if isinstance(file, str | Path) and Path(file).parent == directory.path:
            reason = f"{Path(file).name}: {reason}"
        then = f"resumes from outer step {saved}" if saved else "starts anew: none was saved"
        raise OwnFault(
            f"{directory.path} cannot be written ({reason}): mend that and the same command {then}."
        ) from error
