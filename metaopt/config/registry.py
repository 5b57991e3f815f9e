"""Catalogues of tasks, problems and learned optimizers, found through entry points.

A catalogue is a plain dict, name -> factory. Any installed distribution can add one under the
groups below; `metaopt` itself imports none of them.
"""

import difflib
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, Literal, TypeVar

from metaopt.core.errors import UserError

Kind = Literal["task", "problem", "learned optimizer"]

GROUPS: dict[str, str] = {
    "task": "metaopt.tasks",
    "problem": "metaopt.problems",
    "learned optimizer": "metaopt.learned_optimizers",
}

T = TypeVar("T")


def catalogue(kind: Kind) -> dict[str, Callable[..., Any]]:
    """All installed factories of one kind, by name.

    Args:
      kind: ``"task"``, ``"problem"`` or ``"learned optimizer"``.

    Raises:
      UserError: where two distributions use one name.

    Example:
      >>> "digits_mlp" in catalogue("task")
      True
    """
    found: dict[str, Callable[..., Any]] = {}
    for entry in sorted(entry_points(group=GROUPS[kind]), key=lambda entry: entry.value):
        for name, factory in entry.load().items():
            if found.setdefault(name, factory) is not factory:
                raise UserError(f"two installed catalogues have a {kind} named {name!r}.")
    return found


def choose(kind: str, name: str, options: Mapping[str, T]) -> T:
    """``options[name]``, or an error that lists the valid names and the nearest.

    Raises:
      UserError: where there is no such name.

    Example:
      >>> choose("task", "digit_mlp", {"digits_mlp": 1, "quadratic": 2})
      Traceback (most recent call last):
      ...
      metaopt.core.errors.UserError: unknown task 'digit_mlp': did you mean 'digits_mlp'? ...
    """
    if name in options:
        return options[name]
    near = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    hint = f": did you mean {near[0]!r}? Valid: " if near else "; valid: "
    raise UserError(f"unknown {kind} {name!r}{hint}{', '.join(sorted(options))}.")
