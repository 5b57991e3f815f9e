"""What an evaluation is asked for: names become optimizers and tasks, faults become sentences."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from metaopt.config.components import make
from metaopt.config.registry import catalogue, choose
from metaopt.config.schema import Component, from_json
from metaopt.core.errors import UserError
from metaopt.core.types import LearnedOptimizer, Task, Theta
from metaopt.evaluation.trials import SPLITS
from metaopt.pretrained import artefact
from metaopt.pretrained import load as pretrained
from metaopt.pretrained.shipped import directory_of

Trained = tuple[LearnedOptimizer, Theta]


def trained_by_name(optimizers) -> tuple[dict[str, Trained], list[str | Path]]:
    """Optimizers by name, and where they came from.

    Args:
      optimizers: as in `metaopt.evaluate`. One with a baseline's name is called ``learned NAME``.

    Raises:
      UserError: where there is no such trained optimizer, or it cannot be read.
    """
    if isinstance(optimizers, Mapping):
        return dict(optimizers), []
    if isinstance(optimizers, str | Path):
        optimizers = [optimizers]
    short = [Path(one).resolve().name for one in optimizers]
    found, baselines = {}, catalogue("baseline")
    for one, name in zip(optimizers, short, strict=True):
        name = str(one) if short.count(name) > 1 else name
        found[f"learned {name}" if name in baselines else name] = pretrained.read(one)
    return found, list(optimizers)


def check(trained, swept, seeds, rates, split) -> None:
    """Whether these can be compared.

    Args:
      trained, swept: trained optimizers and baselines by name.
      seeds, rates, split: as in `metaopt.evaluate`.

    Raises:
      UserError: naming the value at fault and the valid ones.
    """
    if not trained:
        raise UserError("name at least one trained optimizer.")
    if not swept:
        raise UserError(
            f"name at least one baseline; valid: {', '.join(sorted(catalogue('baseline')))}."
        )
    if both := sorted(set(trained) & set(swept)):
        raise UserError(f"{both[0]!r} is a baseline's name: call the trained optimizer otherwise.")
    if seeds < 2:
        raise UserError(f"seeds must be at least 2, got {seeds}.")
    if not rates or not all(rate > 0 for rate in rates):
        raise UserError(f"rates must be positive numbers, at least one, got {tuple(rates)}.")
    choose("split", split, dict.fromkeys(SPLITS))


def tasks_by_label(tasks, origins) -> dict[str, Task]:
    """Tasks by what they were called by, such as ``"digits_mlp:hidden=[64]"``.

    Args:
      tasks: as in `metaopt.evaluate`; where there are none, those of the optimizers' training.
      origins: where the optimizers came from.

    Raises:
      UserError: for an unknown task or argument, or where there are no tasks at all.
    """
    if isinstance(tasks, Mapping):
        if not tasks:
            raise UserError("name at least one task.")
        return dict(tasks)
    if isinstance(tasks, str):
        tasks = [tasks]
    components = [_component(task) for task in tasks] or _tasks_of(origins)
    return {_label(component): make("task", component) for component in components}


def _component(task: str | Component) -> Component:
    if isinstance(task, Component):
        return task
    name, *args = re.split(r":(?=\w+=)", task)
    return Component(name, tuple(args))


def _label(component: Component) -> str:
    return ":".join((component.name, *component.args))


def _described(origin: str | Path) -> tuple[Component, int] | None:
    """The task and the horizon that a trained optimizer comes from, where that is known."""
    try:
        recipe = artefact.read_artefact(directory_of(origin)).description["recipe"]
        config = from_json(json.dumps(recipe))
    except (KeyError, UserError):  # imported, say
        return None
    return config.task, config.evaluation.num_steps or config.estimator.horizon


def _tasks_of(origins: list[str | Path]) -> list[Component]:
    known = [found[0] for origin in origins if (found := _described(origin)) is not None]
    if not known:
        names = ", ".join(sorted(catalogue("task")))
        raise UserError(f"no task is given, and the optimizers name none; valid tasks: {names}.")
    return list(dict.fromkeys(known))


def num_steps_of(origins: list[str | Path]) -> int:
    """T of the first of the optimizers that says what it was trained for.

    Raises:
      UserError: where none does.
    """
    for origin in origins:
        if (found := _described(origin)) is not None:
            return found[1]
    raise UserError("num_steps is not given, and the optimizers do not say theirs.")
