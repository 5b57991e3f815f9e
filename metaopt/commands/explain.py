"""What a name of the catalogues stands for: its arguments, a suite's tasks, a recipe's settings."""

import difflib
import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields
from functools import partial
from typing import Any, get_args

import docstring_parser
from rich.table import Table
from rich.text import Text

from metaopt.config.recipes import summary
from metaopt.config.registry import Kind, catalogue
from metaopt.config.schema import Config, to_json
from metaopt.core.errors import UserError
from metaopt.evaluation.suites import SUITES
from metaopt.pretrained import shipped

KINDS: tuple[Kind, ...] = ("task", "problem", "learned optimizer", "estimator")
"""Of factories, whose arguments are shown."""


def explain(name: str) -> Iterator[Any]:
    """Everything of that name, as text and tables to be printed.

    Raises:
      UserError: if nothing is called so.
    """
    trained = shipped.shipped() | shipped.local()
    known: dict[str, Mapping[str, Any]] = {kind: catalogue(kind) for kind in get_args(Kind)}
    known |= {"suite of tasks": SUITES, "trained optimizer": trained}
    if not any(name in names for names in known.values()):
        every = sorted({each for names in known.values() for each in names})
        near = difflib.get_close_matches(name, every, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UserError(f"nothing is called {name!r}: {hint}`metaopt list` shows all names.")
    for kind, names in known.items():
        if name not in names:
            continue
        found: Any = names[name]
        yield Text(f"{name}, {'an' if kind[0] in 'aeiou' else 'a'} {kind}", "bold")
        if kind in KINDS:
            yield from _factory(found)
        elif kind == "suite of tasks":
            yield f"{found.about}; {found.num_steps:,} steps, {found.seeds} seeds"
            yield _table(found.tasks)
        elif kind == "recipe":
            yield f"{summary(found)}; what is not as by default:"
            yield _table({f"{path}={value}": "" for path, value in _changed(found)})
        elif kind == "trained optimizer":
            yield f"{shipped.summary(found)}\n{found}"
        elif kind == "baseline":
            yield "what evaluations tune beside learned optimizers"
        yield ""


def _changed(config: Config) -> Iterator[tuple[str, Any]]:
    """The settings of a recipe that are not the defaults, by the names of their flags."""
    like = Config(estimator=type(config.estimator)())
    ours, plain = (_flat(json.loads(to_json(one))) for one in (config, like))
    for path, value in ours.items():
        if value != plain.get(path):
            yield path.removesuffix(".name").replace("_", "-"), _shown(value)


def _flat(tree: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {path: tree}
    inside = (_flat(value, f"{path}.{key}" if path else key) for key, value in tree.items())
    return {name: value for part in inside for name, value in part.items()}


def _factory(found: Callable[..., Any]) -> Iterator[Any]:
    """What it makes, and a row for each argument."""
    source: Any = getattr(found, "options", None) or getattr(found, "func", found)
    preset: Mapping[str, Any] = found.keywords if isinstance(found, partial) else {}
    about = _about(source)
    if isinstance(found, partial):
        yield f"A member of {source.__name__}:"
    for paragraph in (docstring_parser.parse(source.__doc__ or "").description or "").split("\n\n"):
        yield Text(" ".join(paragraph.split()))
    rows = {name: preset.get(name, default) for name, default in _arguments(source)}
    yield _table({f"{name}={_shown(value)}": about.get(name, "") for name, value in rows.items()})


def _about(source: Any) -> dict[str, str]:
    """What is said of each argument; ``as for `another` `` is what is said there."""
    listed = list(docstring_parser.parse(source.__doc__ or "").params)
    if isinstance(source, type):  # a dataclass of options, each with a docstring of its own
        listed += [
            one
            for each in source.__mro__[:-1]
            for one in docstring_parser.parse_from_object(each).params
        ]
    about = {
        name.strip(): " ".join((one.description or "").split())
        for one in reversed(listed)
        for name in one.arg_name.split(",")
    }
    factories = [catalogue(kind) for kind in KINDS]
    for name, text in about.items():
        if found := re.search(r"as for `(?:[\w.]+\.)?(\w+)`\.?$", text):
            others = [_about(one[found[1]]) for one in factories if found[1] in one]
            about[name] = next((one[name] for one in others if name in one), text)
    return about


def _arguments(source: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(source, type):  # a dataclass of options
        for field in fields(source):
            made = field.default_factory
            yield field.name, made() if made is not MISSING else field.default
        return
    for name, parameter in inspect.signature(source).parameters.items():
        if parameter.kind is not parameter.VAR_KEYWORD:
            yield name, parameter.default


def _shown(value: Any) -> str:
    """A default as the command line takes it; empty if there is no default.

    Examples:
      >>> _shown((64, 64)), _shown("relu"), _shown(None), _shown(inspect.Parameter.empty)
      ('[64,64]', 'relu', 'none', '')
    """
    if value is inspect.Parameter.empty or value is MISSING:
        return ""
    if isinstance(value, tuple | list):
        return f"[{','.join(_shown(each) for each in value)}]"
    return "none" if value is None else str(value)


def _table(rows: Mapping[str, str]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, about in rows.items():
        table.add_row(f"  {name}", about)
    return table
