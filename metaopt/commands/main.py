"""The command line: which command it asks for, and what its faults look like."""

import dataclasses
import inspect
import io
import logging
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial, reduce
from importlib.metadata import version
from operator import or_
from typing import Annotated, Any

import tyro

from metaopt.commands import COMMANDS, default_of
from metaopt.commands.data_folder import use_data_folder
from metaopt.commands.train import Train
from metaopt.config.registry import choose
from metaopt.config.schema import Config
from metaopt.core.errors import UserError
from metaopt.core.files import disk_fault
from metaopt.core.own_numbers import own_numbers
from metaopt.estimators.options import Options

ABOUT = "Meta-train learned optimizers with Noise-Reuse Evolution Strategies, and use them."

SHORT = {f"--{name}": f"--{name}.name" for name in ("problem", "task", "optimizer", "estimator")}
"""``--task digits_mlp`` for ``--task.name digits_mlp``."""


def main(argv: list[str] | None = None) -> int:
    """Runs a command line, ``sys.argv`` where none is given, and returns its exit code.

    0 done; 2 a fault in what was asked for, said in one line; 128 + n stopped by signal n.
    """
    argv = sys.argv[1:] if argv is None else argv
    _open_standard_streams()
    otherwise = sys.unraisablehook
    sys.unraisablehook = partial(_unraisable, otherwise)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # for a terminal that has not every letter
            stream.reconfigure(errors="backslashreplace")
    if argv == ["--version"]:
        print(f"metaopt {version('metaopt')}")
        return 0
    for library in (
        "absl",
        "asyncio",
        "matplotlib",
    ):  # what goes wrong there is raised, and said here
        logging.getLogger(library).setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            command = _parse(argv)
            use_data_folder(command)
            with own_numbers():
                return command()
    except (UserError, UserWarning) as error:  # warnings where Python was told -W error
        _complain(f"metaopt: {error}")
        return 2
    except KeyboardInterrupt:
        _complain("metaopt: interrupted.")
        return 130
    except BrokenPipeError:  # `metaopt list | head`: nobody reads on
        return 141
    except OSError as error:
        if disk_fault(error) is None:
            raise
        _complain(f"metaopt: {error}.")
        return 2
    finally:
        sys.unraisablehook = otherwise
        _give_up_what_cannot_be_written()


def _unraisable(otherwise: Callable[[Any], Any], unraisable: Any) -> None:
    """What Python would only print, or forget.

    Ctrl-C in the middle of a garbage collection is sent again, later, when the collection is over.
    What TensorStore's threads say when Orbax gives up a save is left out: Orbax raises it, too.
    """
    if unraisable.exc_type is KeyboardInterrupt:
        main_thread = threading.main_thread().ident  # another would not wake it
        threading.Timer(0.01, signal.pthread_kill, (main_thread, signal.SIGINT)).start()
    elif str(unraisable.exc_value) != "Event loop is closed":
        otherwise(unraisable)


def _open_standard_streams() -> None:
    """Where some were closed (``>&-``) the next files would take their places, and their words."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free: this one


def _give_up_what_cannot_be_written() -> None:
    """Lets Python end in peace, which would try again and complain."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(text: str) -> None:
    """A line for people; where it cannot be written there is nobody to tell."""
    with suppress(OSError):
        print(text, file=sys.stderr)


def _warn(message, category, filename, lineno, file=None, line=None) -> None:
    """A warning as a line of its own, for people who never asked where in the code it is."""
    if issubclass(category, UserWarning):
        _complain(f"metaopt: warning: {message}")
    else:
        _complain(warnings.formatwarning(message, category, filename, lineno))


def _parse(argv: list[str]) -> Any:
    """The record of the command, its options set.

    Twice for ``train``: once to know the recipe and the estimator, with the options of every
    estimator there is, and then from the values of that recipe, with that estimator's options.
    """
    from metaopt.config.recipes import start_of

    argv = [SHORT.get(word, word) for word in argv]
    if argv and not argv[0].startswith("-"):
        choose("command", argv[0], COMMANDS)
    if argv[:1] != ["train"]:
        return _parse_from(Train(), argv)
    anything = Train(Config(estimator=_options_of_all()))
    command = _parse_from(anything, [word for word in argv if word not in ("-h", "--help")])
    start = start_of(command.recipe, command.estimator)
    _refuse_other_options(argv, start.estimator)
    return _parse_from(Train(start), argv)


def _parse_from(train: Train, argv: list[str]) -> Any:
    defaults = {name: default_of(name, tyro.MISSING) for name in COMMANDS} | {"train": train}
    commands = [
        Annotated[type(default), tyro.conf.subcommand(name, default=default, description=about)]
        for name, default in defaults.items()
        for about in [inspect.getdoc(default)]
    ]
    any_of: Any = reduce(or_, commands)
    return tyro.cli(any_of, args=argv, prog="metaopt", description=ABOUT)


def _options_of_all() -> Options:
    """An instance with a field for every option of every estimator."""
    from metaopt.config.registry import catalogue

    kinds = [getattr(factory, "options", Options) for factory in catalogue("estimator").values()]
    fields = {f.name: (f.name, f.type, f) for kind in kinds for f in dataclasses.fields(kind)}
    everything = dataclasses.make_dataclass(
        "Anything", fields.values(), bases=(Options,), frozen=True, kw_only=True
    )
    return everything()


def _refuse_other_options(argv: list[str], options: Options) -> None:
    """Names an option that another estimator has, but not this one."""
    own = [f.name for f in dataclasses.fields(options)]
    for word in argv:
        found = re.match(r"--estimator\.(?:no-)?([\w-]+)", word)
        name = found and found[1].replace("-", "_")
        if name and name not in own and name != "name":
            raise UserError(
                f"estimator {options.name!r} takes no argument {name!r}; it takes {', '.join(own)}."
            )
