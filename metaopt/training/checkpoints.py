"""Run checkpoints by Orbax: the whole `MetaState`, asynchronously, atomically, the newest n.

Each carries the SHA-256 of its files, written before the rename that makes it a checkpoint, so that
a damaged one is known before it is read and the run resumes from the newest good one.
"""

import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

from metaopt.core import resize
from metaopt.core.errors import OwnFault, UserError
from metaopt.core.files import disk_fault, unused
from metaopt.core.types import MetaState
from metaopt.parallel.processes import max_over_processes, on_primary
from metaopt.training import orbax_leak
from metaopt.training.digests import digesting_handler, find_damage, seal
from metaopt.training.plain_path import plain_path


class Restored(NamedTuple):
    """What was read.

    Attributes:
      state: the run's.
      totals: what the host had added up by then.
      damaged: what is wrong with the newer checkpoints that were passed over; they were set aside.
    """

    state: MetaState
    totals: dict[str, Any]
    damaged: list[str]


class Checkpoints:
    """The checkpoints of one run directory; a context manager that waits for saves in flight.

    Beside the state each holds what the host has added up so far (`totals`: JSON numbers).

    Args:
      directory: where they are; made where it does not exist.
      keep: how many of the newest stay.
    """

    def __init__(self, directory: Path, keep: int):
        orbax_leak.keep_flat()
        self._shown, self._closing = directory, ExitStack()
        self._directory = self._closing.enter_context(plain_path(directory))
        self._files = on_primary(self._set_aside_files)
        self._manager = ocp.CheckpointManager(
            self._directory,
            item_handlers={"state": digesting_handler(), "totals": ocp.JsonCheckpointHandler()},
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                # Folders at once: where they cannot be made, threads would wait for them, and
                # Python for the threads, for minutes.
                async_options=ocp.options.AsyncOptions(
                    create_directories_asynchronously=False,
                    post_finalization_callback=self._seal,
                ),
            ),
        )

    def save(self, state: MetaState, totals: dict[str, Any]) -> None:
        """Copies the state off the device and writes it in the background."""
        step = int(state.step)
        if step != self._manager.latest_step():
            items = ocp.args.Composite(
                state=ocp.args.StandardSave(state), totals=ocp.args.JsonSave(dict(totals))
            )
            with self._unless_removed():
                self._manager.save(step, args=items)

    def restore(self, like: MetaState) -> Restored | None:
        """The newest good checkpoint, or ``None`` if there is none at all.

        It has as many particles as it was saved with.

        Newer ones that are damaged are renamed to ``damaged-STEP``: nothing is deleted.

        Args:
          like: `jax.ShapeDtypeStruct`s with shardings over a mesh.

        Raises:
          UserError: where there are checkpoints, but none that can be read.
        """
        steps = on_primary(lambda: sorted(self._manager.all_steps(), reverse=True))
        faults, passed_over = list(self._files), list[int]()
        is_foreign = False
        for step in steps:
            folder, shown = self._directory / str(step), self._shown / str(step)
            fault, particles = on_primary(partial(_inspect, folder))
            if fault is None:
                own = resize.like_with(like, particles)
                items = ocp.args.Composite(
                    state=ocp.args.StandardRestore(own), totals=ocp.args.JsonRestore()
                )
                try:
                    restored = self._manager.restore(step, args=items)
                except Exception as error:  # Orbax raises many kinds; all of them mean this
                    fault = _first_line(error)
                    is_foreign |= "tree structures do not match" in fault
                if max_over_processes(fault is not None) == [0]:
                    on_primary(partial(self._set_aside, passed_over))
                    if passed_over:
                        self._manager.reload()
                    return Restored(restored["state"], restored["totals"], faults)
            faults.append(f"{shown} ({fault or 'another process cannot read it'})")
            passed_over.append(step)
        if not steps:
            return None
        if is_foreign:
            raise UserError(
                f"{self._shown} holds what another version of metaopt has saved, or another "
                f"problem, and cannot be resumed: choose another --out, with --start-from "
                f"{shlex.quote(str(self._shown.parent))} to begin at the theta that is saved there."
            )
        raise self._unreadable(faults)

    def _set_aside_files(self) -> list[str]:
        """What is called like a checkpoint and is none: Orbax would remove it.

        Raises:
          UserError: where there is no checkpoint beside it.
        """
        if not self._directory.is_dir():
            return []
        named = [path for path in self._directory.iterdir() if path.name.isdecimal()]
        files = [path for path in named if not path.is_dir()]
        faults = [f"{self._shown / path.name} (a file where a folder should be)" for path in files]
        if files and len(files) == len(named):
            raise self._unreadable(faults)
        self._set_aside([int(path.name) for path in files])
        return faults

    def _unreadable(self, faults: list[str]) -> UserError:
        return UserError(
            f"no checkpoint can be read: {'; '.join(faults)}. Remove {self._shown.parent} to "
            "start anew, or choose another --out."
        )

    def _set_aside(self, steps: list[int]) -> None:
        for step in steps:
            folder = self._directory / str(step)
            folder.rename(unused(self._directory / f"damaged-{step}"))

    def _seal(self) -> None:
        """Writes the sums of a checkpoint that is complete but for its rename."""
        for folder in self._directory.glob("*.orbax-checkpoint-tmp*"):
            seal(Path(folder))

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind, *_) -> None:
        with self._closing:
            if kind is not None and jax.process_count() > 1:
                return  # a save in flight may wait for a process that is gone
            with self._unless_removed():
                self._manager.wait_until_finished()
                self._manager.close()

    @contextmanager
    def _unless_removed(self) -> Iterator[None]:
        """Turns what Orbax meets where its folders went away into a sentence.

        Raises:
          OwnFault: where they were moved or removed meanwhile.
        """
        try:
            yield
        except Exception as error:  # Orbax raises many kinds
            if disk_fault(error) is not None or not _is_of_missing(error):
                raise
            raise OwnFault(
                f"{self._shown} was moved or removed: put it back and the same command resumes, or "
                "choose another --out."
            ) from error


def _inspect(folder: Path) -> tuple[str | None, int]:
    """What is wrong with a checkpoint, and how many particles it has."""
    fault = find_damage(folder)
    if fault is None:
        try:
            shapes = ocp.StandardCheckpointHandler().metadata(folder / "state")
            return None, jax.tree.leaves(shapes["estimator"])[0].shape[0]
        except Exception as error:  # Orbax raises many kinds; all of them mean this
            fault = _first_line(error)
    return fault, 0


def _is_of_missing(error: BaseException | None) -> bool:
    """Whether a file or folder was not there, in the words of TensorStore, Python and Orbax."""
    words = ("NOT_FOUND", "No such file", "No ArrayMetadata found", "params are missing")
    while error is not None:
        if any(said in str(error) for said in words):
            return True
        error = error.__cause__ or error.__context__
    return False


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), repr(error))
