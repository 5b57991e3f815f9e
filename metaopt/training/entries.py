"""What a comparison is of: recipes and configurations to train, and runs that exist."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metaopt.config.components import make
from metaopt.config.recipes import recipe
from metaopt.config.registry import catalogue, find
from metaopt.config.schema import Component, Config
from metaopt.core.errors import UserError
from metaopt.core.types import UnrolledProblem
from metaopt.estimators.options import Options
from metaopt.training.experiment import NOTHING, Own, build
from metaopt.training.run import named

Entry = Config | tuple[Path, ...]
"""One line of a comparison: what is to be trained with each seed, or the runs of its seeds."""

TESTS = 50
"""A comparison measures the test metric about so often if the configuration does not say it."""


def entries(
    what: Any,
    *,
    problem: Component | None = None,
    own: Own = NOTHING,
    name: str | None = None,
    outer_steps: int | None = None,
) -> dict[str, Entry]:
    """The lines of a comparison by name, each checked before anything runs.

    Args:
      what: as in `metaopt.compare`.
      problem: what is unrolled instead of the configurations' problems; if not given, theirs.
      own: pieces that are in no catalogue, instead of theirs.
      name: what to call these.
      outer_steps: updates of theta instead of theirs.

    Raises:
      UserError: naming what is neither a recipe nor a run, or the value at fault.
    """
    found = {key: _entry(one) for key, one in _by_name(what).items()}
    is_own = own.given
    changed: dict[str, Entry] = {}
    for key, one in found.items():
        if isinstance(one, tuple):
            changed[key] = one
            continue
        if outer_steps is not None:
            one = dataclasses.replace(one, outer_steps=outer_steps)
        if problem is not None:
            one = dataclasses.replace(one, problem=problem)
        if problem is not None or is_own:
            one = dataclasses.replace(one, test_every=None)
        one = _tested(one, own)
        if is_own:
            one = named(one, own, name)
        build(one, own)
        changed[key] = one
    return changed


def _by_name(what: Any) -> dict[str, Any]:
    if isinstance(what, Mapping):
        for key in what:
            if not re.fullmatch(r"\w[\w .:=,+-]*", str(key)):
                raise UserError(f"a line's name has no '/' or such in it, got {key!r}.")
        return dict(what)
    alone = isinstance(what, str | Config) or hasattr(what, "__fspath__")
    things = [what] if alone else list(what)
    if any(isinstance(one, Config | Options) for one in things):
        raise UserError("give configurations names: metaopt.compare({'mine': config}).")
    texts = [str(getattr(one, "path", one)) for one in things]
    if twice := sorted({text for text in texts if texts.count(text) > 1}):
        raise UserError(f"{twice[0]} is named twice.")
    short = [Path(text).resolve().name for text in texts]
    clear = [a if short.count(a) == 1 else b for a, b in zip(short, texts, strict=True)]
    return dict(zip(clear, things, strict=True))


def _entry(one: Any) -> Entry:
    if isinstance(one, Config):
        return one
    if isinstance(one, Options):
        return dataclasses.replace(recipe("digits_mlp"), estimator=one)
    if isinstance(one, str) and one in catalogue("recipe"):
        return recipe(one)
    if isinstance(one, str) or hasattr(one, "__fspath__"):
        path = Path(one)
        if (path / "config.json").is_file():
            return (path,)
        if seeds := sorted(path.glob("seed*/config.json")):
            return tuple(file.parent for file in seeds)
        if isinstance(one, str) and not path.exists():
            find("recipe", one)  # raises, with the nearest name
        raise UserError(f"{path} holds no run: there is no config.json, and no seed0/config.json.")
    if isinstance(one, Sequence) and one:
        return tuple(path for run in one for path in _runs(run))
    raise UserError(
        f"compare takes recipes, configurations, options of an estimator and runs, got {one!r}."
    )


def _runs(one: Any) -> tuple[Path, ...]:
    found = _entry(one)
    if isinstance(found, tuple):
        return found
    raise UserError(f"several things under one name have to be runs, got {one!r}.")


def _tested(config: Config, own: Own) -> Config:
    """The configuration with measurements of the test metric, where there is one, on the way."""
    problem: UnrolledProblem | None = own.problem
    if problem is None and config.problem.name != "training" and not (own.task or own.optimizer):
        problem = make("problem", config.problem)
    if config.test_every is not None or problem is None or problem.test_loss is None:
        return config
    return dataclasses.replace(config, test_every=max(1, config.outer_steps // TESTS))
