"""Ctrl-C, SIGTERM and a closed terminal as a polite request; a second one is obeyed at once."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

STOPPING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""The signals that ask a run to save and end."""

ASKED = (signal.SIGINT, signal.SIGTERM)
"""Those that a person sends, whose terminal is still there."""

UNREAD = getattr(signal, "SIGPIPE", signal.SIGTERM)
"""What a run ends with whose output nobody reads any more."""


class Request:
    """Whether a stop was asked for, and by which signal.

    Attributes:
      signal: its number; ``None`` before that.
      on_signal: called, in a thread of its own, as soon as somebody asks: the main thread may be
        inside a compilation of many seconds.
    """

    signal: int | None = None
    on_signal: Callable[[], None] = staticmethod(lambda: None)

    def __call__(self) -> bool:
        return self.signal is not None


@contextmanager
def stop_on_signals() -> Iterator[Request]:
    """Turns the `STOPPING` signals into a `Request` while the block runs.

    A signal that is ignored, as SIGHUP under ``nohup``, stays ignored. Only the main thread is told
    of signals: in another one nothing asks for a stop.
    """
    request = Request()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def handle(number, frame):
        request.signal = number
        if number not in ASKED:
            _leave_the_terminal()
        signal.signal(number, previous[number])  # the second time it means it

    # Those by name count also in a shell's background job.
    ignored = lambda n: n not in ASKED and signal.getsignal(n) is signal.SIG_IGN
    heard = [number for number in STOPPING if not ignored(number)]
    previous = {number: signal.signal(number, handle) for number in heard}
    try:
        with _told_at_once(request):
            yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _told_at_once(request: Request) -> Iterator[None]:
    """Calls ``on_signal`` from a thread, to which the interpreter writes each signal's number."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def listen():
        while number := os.read(reader, 1):
            if number[0] in ASKED:
                request.on_signal()
                return

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)
        listener.join()
        os.close(reader)


def stop_when_unread(console: Console, request: Request) -> None:
    """Asks for a stop where a pipe that a console writes to is closed at its other end."""

    def on_broken_pipe() -> None:
        console.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), console.file.fileno())
        request.signal = UNREAD

    console.on_broken_pipe = on_broken_pipe  # type: ignore[method-assign]


def _leave_the_terminal() -> None:
    """A terminal that was closed takes no more words: writing there would be an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        try:
            if os.isatty(descriptor):
                os.dup2(nowhere, descriptor)
        except OSError:
            pass
