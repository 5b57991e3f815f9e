"""Run checkpoints by Orbax: the whole `MetaState`, asynchronously, atomically, the newest n."""

from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from metaopt.errors import UserError
from metaopt.types import MetaState


class Checkpoints:
    """The checkpoints of one run directory; a context manager that waits for saves in flight.

    Beside the state each holds what the host has added up so far (`totals`: JSON numbers).

    Args:
      directory: where they are; made where it does not exist.
      keep: how many of the newest stay.
    """

    def __init__(self, directory: Path, keep: int):
        self._directory = directory
        self._manager = ocp.CheckpointManager(
            directory.absolute(), options=ocp.CheckpointManagerOptions(max_to_keep=keep)
        )

    def save(self, state: MetaState, totals: dict[str, Any]) -> None:
        """Copies the state off the device and writes it in the background."""
        step = int(state.step)
        if step != self._manager.latest_step():
            items = ocp.args.Composite(
                state=ocp.args.StandardSave(state), totals=ocp.args.JsonSave(dict(totals))
            )
            self._manager.save(step, args=items)

    def restore(self, like: MetaState) -> tuple[MetaState, dict[str, Any]] | None:
        """The newest checkpoint and its totals, or ``None`` where there is none.

        Args:
          like: `jax.ShapeDtypeStruct`s with shardings, or a state itself.

        Raises:
          UserError: where it cannot be read.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(like), totals=ocp.args.JsonRestore()
        )
        try:
            restored = self._manager.restore(step, args=items)
        except Exception as error:  # Orbax raises many kinds; all of them mean this
            first = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            raise UserError(
                f"the checkpoint {self._directory / str(step)} cannot be read ({first}): remove it "
                "to go on from the one before, or choose another --out."
            ) from error
        return restored["state"], restored["totals"]

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        self._manager.wait_until_finished()
        self._manager.close()
