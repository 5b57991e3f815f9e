"""Several processes that do one run: how they find each other, and agree on what hosts decide.

All of them run the same program, each on its devices' share of the particles. What a clock, a disk
or a signal decides has to be decided the same way in all of them, or they wait for each other for
ever. So it is asked of all with `max_over_processes`, or of process 0 alone with `on_primary`. With
one process both do nothing.
"""

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import jax
import numpy as np

from metaopt.core.errors import OwnFault, UserError

ADDRESS, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
"""Variables that say where process 0 listens, how many there are, and which one this is."""

LAUNCHER = "METAOPT_LAUNCHER"
"""The descriptor of a pipe that closes when the process that started this one ends."""

HEARTBEAT_SECONDS = 30
"""A process that was silent for so long is gone; JAX then ends the others."""

ORPHAN_SECONDS = 120
"""How long a process may take to save and end when the one that started it has gone."""

LOST = 75
"""Exit code of a process that lost the others: a temporary failure, as sysexits.h has it."""

T = TypeVar("T")


def join() -> None:
    """Joins the other processes of this run, where there are any; comes before JAX's first use.

    They are known by the variables `ADDRESS`, `COUNT` and `INDEX`; or found by JAX itself in a
    step of several tasks under Slurm, under Open MPI, in a TPU pod, and wherever `COUNT` is
    ``auto``.

    Raises:
      UserError: where the variables contradict themselves.
    """
    environment = os.environ
    _end_with(environment.pop(LAUNCHER, None))
    count = environment.get(COUNT)
    if count == "auto" or (count is None and _in_cluster()):
        arguments: dict[str, Any] = {}
    elif count is None and INDEX not in environment:
        return
    else:
        given = {name: environment.get(name, "") for name in (ADDRESS, COUNT, INDEX)}
        numbers = [int(given[name]) if given[name].isdigit() else -1 for name in (COUNT, INDEX)]
        if not (given[ADDRESS] and 0 <= numbers[1] < numbers[0]):
            raise UserError(
                f"several processes need {ADDRESS}=HOST:PORT, {COUNT}=N and {INDEX}=0 to N-1, got "
                f"{', '.join(f'{name}={value!r}' for name, value in given.items())}."
            )
        arguments = {
            "coordinator_address": given[ADDRESS],
            "num_processes": numbers[0],
            "process_id": numbers[1],
            "cluster_detection_method": "deactivate",
        }
    # It would take SIGTERM for itself.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            **arguments,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except ValueError as error:
        raise UserError(
            f"JAX does not find the other processes ({error}): set {ADDRESS}, {COUNT} and {INDEX}."
        ) from error


def _end_with(launcher: str | None) -> None:
    """Asks this process to save and end when the one that started it has ended."""
    if launcher is None:
        return

    def watch() -> None:
        os.read(int(launcher), 1)  # returns when the other end is closed
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(ORPHAN_SECONDS)
        os._exit(LOST)  # nothing has listened: it may wait for a process that is gone

    threading.Thread(target=watch, daemon=True, name="launcher").start()


def _in_cluster() -> bool:
    """Whether the environment is that of one of several tasks, which JAX knows how to join."""
    sizes = [os.environ.get(n, "") for n in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")]
    workers = os.environ.get("TPU_WORKER_HOSTNAMES", "")
    return any(size.isdigit() and int(size) > 1 for size in sizes) or "," in workers


@contextmanager
def together() -> Iterator[None]:
    """Joins the others for a block, and leaves them after it.

    Where something fails in it that the others do not know of, this process ends at once, so that
    they learn of it: with the exit code `LOST` and a sentence where it is they who are gone, with 2
    and a sentence for a fault of this process alone, with 1 and a traceback otherwise.
    """
    join()
    try:
        yield
    except Exception as error:
        own = isinstance(error, OwnFault)
        if jax.process_count() == 1 or (isinstance(error, UserError) and not own):
            raise
        # Gloo's word for it may come as a ValueError, where a result is read.
        lost = isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in str(error)
        where = f"metaopt: process {jax.process_index()} of {jax.process_count()}"
        if own:
            said = f"{where}: {error}"
        elif lost:
            (reason, *_) = str(error).strip().splitlines() or [repr(error)]
            said = f"{where} lost the others ({reason})."
        else:
            said = f"{traceback.format_exc()}{where} failed."
        end = "" if own else " The same command resumes from the last checkpoint."
        print(f"{said}{end}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(2 if own else LOST if lost else 1)  # an orderly exit would wait for the others
    jax.distributed.shutdown()


def is_primary() -> bool:
    """Whether this is the process that writes and prints; the only one where there is one."""
    return jax.process_index() == 0


def max_over_processes(*numbers: int) -> list[int]:
    """The largest of each number that any process says; each has to call this.

    Examples:
      >>> max_over_processes(3, True)
      [3, 1]
    """
    if jax.process_count() == 1:
        return [int(number) for number in numbers]
    from jax.experimental.multihost_utils import process_allgather

    return process_allgather(np.array(numbers, np.int32)).max(axis=0).tolist()


def on_primary(function: Callable[[], T]) -> T:
    """Calls a function in process 0 alone; all processes have to call this, and get what it says.

    Args:
      function: returns what JSON can hold. A `UserError` of its is raised in all.

    Examples:
      >>> on_primary(lambda: [1, None])
      [1, None]
    """
    if jax.process_count() == 1:
        return function()
    from jax.experimental.multihost_utils import broadcast_one_to_all

    said: dict[str, Any] = {}
    if is_primary():
        try:
            said = {"value": function()}
        except UserError as error:
            said = {"error": str(error)}
    text = json.dumps(said).encode()
    (length,) = max_over_processes(len(text))
    padded = text.ljust(1 << length.bit_length())  # few lengths, few programs
    said = json.loads(broadcast_one_to_all(np.frombuffer(padded, np.uint8)).tobytes())
    if "error" in said:
        raise UserError(said["error"])
    return said["value"]


def primary_first(function: Callable[[], T]) -> T:
    """Calls a function in process 0 and then in the others: what it prepares is made once."""
    made: list[T] = []
    on_primary(lambda: made.append(function()))
    return made[0] if made else function()
