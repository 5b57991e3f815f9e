"""Where ``metaopt`` and ``python -m metaopt`` begin, before JAX is imported."""

import os
import signal
import sys
from typing import Any, NoReturn


def start() -> int:
    """Imports the command line and runs it; its exit code.

    Until it runs nothing is open or begun, and Ctrl-C ends Python on the spot: raised in the middle
    of an import it would be a page of text, or be forgotten.
    """
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:  # and not ignored, as in the background of a script
        signal.signal(signal.SIGINT, _leave)
    from metaopt.commands.main import main

    signal.signal(signal.SIGINT, handler)
    return main()


def _leave(signum: int, frame: Any) -> NoReturn:
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, b"metaopt: interrupted.\n")
    os._exit(128 + signum)


if __name__ == "__main__":
    sys.exit(start())
