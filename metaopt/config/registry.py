"""Catalogues of everything that has a name, found through entry points.

A catalogue is a dict, name -> what it stands for. Any installed distribution can add one under the
groups below, and `metaopt` finds its own in the same way: so what others add is as good as what is
here. An entry point names such a dict, or a single thing, which then has the entry point's name.
"""

import difflib
import sys
import warnings
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, TypeVar, get_args

from metaopt.core.errors import UserError

Kind = Literal["task", "problem", "learned optimizer", "estimator", "baseline", "recipe"]

GROUPS: dict[str, str] = {
    "task": "metaopt.tasks",
    "problem": "metaopt.problems",
    "learned optimizer": "metaopt.learned_optimizers",
    "estimator": "metaopt.estimators",
    "baseline": "metaopt.baselines",
    "recipe": "metaopt.recipes",
}
"""Kind -> entry point group. Trained optimizers have one, too: see `metaopt.pretrained.shipped`."""

OWN = "metaopt"
"""The distribution whose names nobody else's can take."""

T = TypeVar("T")


def catalogue(kind: Kind) -> dict[str, Any]:
    """Everything installed of one kind, by name.

    What does not load is left out with a warning that names its distribution, and so is what has a
    name that is taken: this distribution's own come first, then those of others by their names.

    Args:
      kind: ``"task"``, ``"problem"``, ``"learned optimizer"`` or ``"estimator"``, whose values are
        factories; ``"baseline"``, optax transformations of a learning rate; ``"recipe"``,
        configurations.

    Raises:
      UserError: for another kind.

    Examples:
      >>> "digits_mlp" in catalogue("task")
      True
    """
    found: dict[str, Any] = {}
    for named in _loaded(choose("kind of catalogue", kind, GROUPS), tuple(sys.path)):
        found = {**named, **found}
    return found


@cache  # scanning what is installed takes a few milliseconds each time
def _loaded(group: str, path: tuple[str, ...]) -> list[Mapping[str, Any]]:
    """The catalogues of a group, without what cannot be used."""
    owners: dict[str, str] = {}
    catalogues: list[Mapping[str, Any]] = []
    for entry in installed(group):
        value, owner = load_entry(entry), distribution_of(entry)
        if value is None:
            continue
        named = value if isinstance(value, Mapping) else {entry.name: value}
        faults = {name: f"{owners[name]} has one of that name" for name in named if name in owners}
        if group != GROUPS["recipe"]:  # all others are factories
            faults |= {name: "it is no function" for name in named if not callable(named[name])}
        for name, fault in faults.items():
            warnings.warn(f"{name!r} of {owner} ({group}) is left out: {fault}.", stacklevel=3)
        owners |= {name: owner for name in named if name not in faults}
        catalogues.append({n: v for n, v in named.items() if n not in faults} if faults else named)
    return catalogues


def find(kind: Kind, name: str) -> Any:
    """What a name stands for in the catalogue of its kind.

    Raises:
      UserError: where there is no such name, with the valid ones and the nearest.
    """
    return choose(kind, name, catalogue(kind))


def installed(group: str) -> list[EntryPoint]:
    """The entry points of a group: this distribution's own first, then by distribution and name."""
    order = lambda entry: (distribution_of(entry) != OWN, distribution_of(entry), entry.name)
    return sorted(entry_points(group=group), key=order)


def provider(kind: Kind, name: str) -> dict[str, str]:
    """The distribution that somebody else's name comes from: its name and version.

    Returns:
      ``{distribution: version}``; empty for what is this distribution's own, or in no catalogue.

    Examples:
      >>> provider("task", "digits_mlp")
      {}
    """
    for entry in installed(GROUPS[kind]):
        value = load_entry(entry)
        if name in (value if isinstance(value, Mapping) else (entry.name,)):
            dist = entry.dist
            return {} if dist is None or dist.name == OWN else {dist.name: dist.version}
    return {}


def load_entry(entry: EntryPoint) -> Any:
    """What an entry point names; ``None``, with a warning, where it does not load."""
    try:
        return entry.load()
    except Exception as error:  # other people's code can fail in any way
        warnings.warn(
            f"{distribution_of(entry)} is installed, but its {entry.group} ({entry.value}) do not "
            f"load and are left out: {type(error).__name__}: {error}",
            stacklevel=2,
        )
        return None


def distribution_of(entry: EntryPoint) -> str:
    """The name of the distribution that an entry point is of."""
    return "an unknown distribution" if entry.dist is None else str(entry.dist.name)


FEW = 40
"""Names that a sentence can hold; of a catalogue with more only the nearest is named."""


def choose(kind: str, name: str, options: Mapping[str, T]) -> T:
    """``options[name]``, or an error that lists the nearest and, unless `metaopt list` shows
    them and they are many, all names.

    Raises:
      UserError: where there is no such name.

    Examples:
      >>> choose("task", "digit_mlp", {"digits_mlp": 1, "quadratic": 2})
      Traceback (most recent call last):
      ...
      metaopt.core.errors.UserError: unknown task 'digit_mlp': did you mean 'digits_mlp'? ...
    """
    if name in options:
        return options[name]
    for other in get_args(Kind) if kind in GROUPS else ():
        if name in catalogue(other):
            raise UserError(f"{name!r} is the name of a {other}, not of a {kind}.")
    many = len(options) > FEW and kind in GROUPS
    lower = {option.lower(): option for option in options}
    near = difflib.get_close_matches(str(name).lower(), lower, n=1, cutoff=0.5)
    hint = f": did you mean {lower[near[0]]!r}? " if near else "; "
    every = (
        f"`metaopt list` shows all {len(options)}."
        if many and near
        else f"{'Valid' if near else 'valid'}: {', '.join(sorted(options))}."
    )
    raise UserError(f"unknown {kind} {name!r}{hint}{every}")
