"""The command line: which command it asks for, and what its faults look like."""

import inspect
import logging
import os
import sys
import warnings
from functools import reduce
from importlib.metadata import version
from operator import or_
from typing import Annotated, Any

import tyro

from metaopt.commands import COMMANDS, default_of
from metaopt.commands.train import Train
from metaopt.config.schema import Config
from metaopt.core.errors import UserError

ABOUT = "Meta-train learned optimizers with Noise-Reuse Evolution Strategies, and use them."

SHORT = {f"--{name}": f"--{name}.name" for name in ("problem", "task", "optimizer", "estimator")}
"""``--task digits_mlp`` for ``--task.name digits_mlp``."""


def main(argv: list[str] | None = None) -> int:
    """Runs a command line, ``sys.argv`` where none is given, and returns its exit code.

    0 done; 2 a fault in what was asked for, said in one line; 128 + n stopped by signal n.
    """
    argv = sys.argv[1:] if argv is None else argv
    if argv == ["--version"]:
        print(f"metaopt {version('metaopt')}")
        return 0
    for library in ("absl", "asyncio"):  # what goes wrong there is raised, and said here in a line
        logging.getLogger(library).setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            return _parse([SHORT.get(word, word) for word in argv])()
    except UserError as error:
        print(f"metaopt: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("metaopt: interrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `metaopt list | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _warn(message, category, filename, lineno, file=None, line=None) -> None:
    """A warning as a line of its own, for people who never asked where in the code it is."""
    if issubclass(category, UserWarning):
        print(f"metaopt: warning: {message}", file=sys.stderr)
    else:
        print(warnings.formatwarning(message, category, filename, lineno), file=sys.stderr)


def _parse(argv: list[str]):
    from metaopt.config.registry import catalogue, find

    def parse(recipe: Config):
        defaults = {name: default_of(name, tyro.MISSING) for name in COMMANDS}
        defaults["train"] = Train(recipe)
        commands = [
            Annotated[type(default), tyro.conf.subcommand(name, default=default, description=about)]
            for name, default in defaults.items()
            for about in [inspect.getdoc(default)]
        ]
        any_of: Any = reduce(or_, commands)
        return tyro.cli(any_of, args=argv, prog="metaopt", description=ABOUT)

    command = parse(Config())
    if isinstance(command, Train):  # now that the recipe is known, once more from its values
        recipe = find("recipe", command.recipe)
        # `lorenz --estimator pes` starts from lorenz_pes, where there is such a recipe.
        own = catalogue("recipe").get(f"{command.recipe}_{command.config.estimator.name}", recipe)
        command = parse(own)
    return command
