"""Ctrl-C and SIGTERM as a polite request; a second one is obeyed at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Request:
    """Whether a stop was asked for, and by which signal."""

    signal: int | None = None

    def __call__(self) -> bool:
        return self.signal is not None


@contextmanager
def stop_on_signals() -> Iterator[Request]:
    """Turns SIGINT and SIGTERM into a `Request` while the block runs.

    Only the main thread is told of signals: in another one nothing asks for a stop.
    """
    request = Request()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def handle(number, frame):
        request.signal = number
        signal.signal(number, previous[number])  # the second time it means it

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
