"""Several processes of a command on this machine: started, passed signals on to, ended together."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import IO

from metaopt.core.errors import UserError
from metaopt.parallel.processes import ADDRESS, COUNT, INDEX, LAUNCHER, LOST

GRACE_SECONDS = 10.0
"""How long the others may take to end by themselves once one has failed."""

LAST_LINES = 20
"""Of what a process said that failed."""

STOPPING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""The signals that are passed on."""

STOPPED = tuple(128 + number for number in STOPPING)
"""Exit codes of a run that was asked to stop: no failure."""


def launch(command: tuple[str, ...], processes: int) -> int:
    """Runs a command of `metaopt` in so many processes that do it together.

    What process 0 says is shown as it comes; of the others only what one said that failed. SIGINT,
    SIGTERM and SIGHUP go to all of them. Where one fails, the others are ended; where this process
    ends, however that may be, they save and end.

    Args:
      command: its words, such as ``("train", "tiny")``.
      processes: how many. On a CPU they share its cores; on GPUs each has the one of its number.

    Returns:
      Their exit code; that of the one that failed first where they differ, 128 + n where it was
      killed by signal n.

    Raises:
      UserError: for fewer than one process.
    """
    if processes < 1:
        raise UserError(f"launch needs at least one process, got {processes}.")
    with ExitStack() as stack:
        outputs = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(processes)]
        alive, ours = os.pipe()
        stack.callback(os.close, ours)
        children = _start(command, outputs, alive)
        os.close(alive)
        stack.callback(_end, children)

        def forward(number, frame):
            for child in children:
                child.send_signal(number)  # nothing, where it has ended

        for number in STOPPING:
            if signal.getsignal(number) is signal.SIG_IGN:
                continue  # as under nohup
            stack.callback(signal.signal, number, signal.signal(number, forward))
        codes = _wait(children)
        return _verdict(codes, outputs)


def _start(
    command: tuple[str, ...], outputs: Sequence[IO[bytes]], alive: int
) -> list[subprocess.Popen]:
    """Starts the processes; ``alive`` is the reading end of a pipe that closes with this one."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    count = len(outputs)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = max(1, min((cores or 1) // count, 8))
    children = []
    for index, output in enumerate(outputs):
        own = {ADDRESS: address, COUNT: str(count), INDEX: str(index), LAUNCHER: str(alive)}
        usual = {"JAX_NUM_CPU_DEVICES": str(cores), "JAX_LOCAL_DEVICE_IDS": str(index)}
        children.append(
            subprocess.Popen(
                [sys.executable, "-m", "metaopt", *command],
                env=usual | os.environ | own,
                stdout=output if index else None,
                stderr=output if index else None,
                pass_fds=(alive,),
                start_new_session=True,  # a terminal's Ctrl-C comes through here, once
            )
        )
    return children


def _wait(children: list[subprocess.Popen]) -> dict[int, int]:
    """The exit codes by process; without those that do not end after another has failed."""
    codes: dict[int, int] = {}
    deadline = None
    while len(codes) < len(children):
        for index, child in enumerate(children):
            if index not in codes and (code := child.poll()) is not None:
                codes[index] = code
                if code not in (0, *STOPPED):
                    deadline = deadline or time.monotonic() + GRACE_SECONDS
        if deadline and time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return codes


def _end(children: list[subprocess.Popen]) -> None:
    for child in children:
        if child.poll() is None:
            child.kill()
        child.wait()


def _verdict(codes: dict[int, int], outputs: Sequence[IO[bytes]]) -> int:
    """The exit code, and on stderr which process failed and how."""
    at_once = tuple(-number for number in STOPPING)  # asked while it started
    failed = [index for index, code in codes.items() if code not in (0, *STOPPED, *at_once)]
    if not failed:
        return max(code if code >= 0 else 128 - code for code in codes.values())
    # Those that lost another say so by their code, or are aborted by JAX.
    followed = lambda index: codes[index] in (LOST, -signal.SIGABRT)
    cause = min(failed, key=lambda index: (followed(index), index))
    code = codes[cause]
    silent = [index for index in range(len(outputs)) if index not in codes]
    if silent and followed(cause):
        cause, how = silent[0], "answered no more"
    elif code < 0:
        how = f"was killed by {signal.Signals(-code).name}"
    else:
        how = f"ended with exit code {code}"
    if cause:
        outputs[cause].seek(0)
        lines = [line for line in outputs[cause] if not line.startswith(b"[Gloo]")]
        sys.stderr.buffer.write(b"".join(lines[-LAST_LINES:]))
        sys.stderr.flush()
    if (cause, code) != (0, 2):  # process 0 has said in a line what is at fault
        print(
            f"metaopt: process {cause} of {len(outputs)} {how}; the others were ended. The same "
            "command resumes from the last checkpoint.",
            file=sys.stderr,
        )
    return code if code >= 0 else 128 - code
