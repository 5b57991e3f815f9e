"""What an evaluation is asked for: names become optimizers and tasks, faults become sentences."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from metaopt.config.components import make
from metaopt.config.registry import catalogue, choose
from metaopt.config.schema import Component, Config, component_of, from_json, trained_tasks
from metaopt.core.errors import UserError
from metaopt.core.types import LearnedOptimizer, Task, Theta
from metaopt.evaluation.runs import SPLITS
from metaopt.pretrained import artefact
from metaopt.pretrained import load as pretrained
from metaopt.pretrained.shipped import directory_of
from metaopt.training.run import Run

Trained = tuple[LearnedOptimizer, Theta]


class TrainedOn(NamedTuple):
    """What a trained optimizer says of its training.

    Attributes:
      tasks: all of a mixture; none where it was trained on a task that has no name here.
      num_steps: T of its evaluation.
      shortest, longest: steps of its inner runs.
      largest_tensor: elements; ``None`` if it does not say that.
      cost: what it took, in a sentence; empty if it does not say that.
    """

    tasks: tuple[Component, ...]
    num_steps: int
    shortest: int
    longest: int
    largest_tensor: int | None
    cost: str = ""


def trained_by_name(optimizers) -> tuple[dict[str, Trained], dict[str, TrainedOn]]:
    """Optimizers by name, and what is known of the training of those that say it.

    Args:
      optimizers: as in `metaopt.evaluate`. One with a baseline's name is called ``learned NAME``.

    Raises:
      UserError: if there is no such trained optimizer, or it cannot be read.
    """
    if isinstance(optimizers, Mapping):
        pair = lambda one: (one.optimizer, one.theta) if isinstance(one, Run) else one
        return {name: pair(one) for name, one in optimizers.items()}, {}
    if isinstance(optimizers, str | os.PathLike):
        optimizers = [optimizers]
    short = [Path(one).resolve().name for one in optimizers]
    found, known = {}, {}
    for one, name in zip(optimizers, short, strict=True):
        name = not_a_baseline(str(one) if short.count(name) > 1 else name)
        found[name] = pretrained.read(one)
        if (on := trained_on(one)) is not None:
            known[name] = on
    return found, known


def not_a_baseline(name: str) -> str:
    """A name for a learned optimizer that no baseline has.

    Examples:
      >>> not_a_baseline("mlp"), not_a_baseline("adam")
      ('mlp', 'learned adam')
    """
    return f"learned {name}" if name in catalogue("baseline") else name


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
    check_numbers(seeds, rates)
    choose("split", split, dict.fromkeys(SPLITS))


def check_numbers(seeds: int, rates: Sequence[float]) -> None:
    """Raises a `UserError` for too few seeds, or rates that are none."""
    if seeds < 2:
        raise UserError(f"seeds must be at least 2, got {seeds}.")
    if not rates or not all(rate > 0 for rate in rates):
        raise UserError(f"rates must be positive numbers, at least one, got {tuple(rates)}.")


def tasks_by_label(tasks, known: Mapping[str, TrainedOn]) -> dict[str, Task]:
    """Tasks by what they were called by, such as ``"digits_mlp:hidden=[64]"``.

    Args:
      tasks: as in `metaopt.evaluate`; where there are none, those of the optimizers' training.
      known: what the optimizers say of it.

    Raises:
      UserError: for an unknown task or argument, or if there are no tasks at all.
    """
    if isinstance(tasks, Mapping):
        if not tasks:
            raise UserError("name at least one task.")
        return dict(tasks)
    if isinstance(tasks, str):
        tasks = [tasks]
    components = [_component(task) for task in tasks]
    components = components or [task for on in known.values() for task in on.tasks]
    if not components:
        names = ", ".join(sorted(catalogue("task")))
        raise UserError(f"no task is given, and the optimizers name none; valid tasks: {names}.")
    return {label(component): make("task", component) for component in components}


def _component(task: str | Component) -> Component:
    if isinstance(task, Task):
        raise UserError("tasks without a name here are given as {name: task}.")
    return task if isinstance(task, Component) else component_of(task)


def label(component: Component) -> str:
    """How an evaluation calls a task.

    Examples:
      >>> label(Component("digits_mlp", ("hidden=[64]",)))
      'digits_mlp:hidden=[64]'
    """
    return ":".join((component.name, *component.args))


def trained_on(what: str | Path) -> TrainedOn | None:
    """What a trained optimizer says of its training; ``None`` if nothing, as an imported one.

    Args:
      what: as `metaopt.load` takes it.
    """
    try:
        found = artefact.read_artefact(directory_of(what))
        config = from_json(json.dumps(found.description["recipe"]))
    except (KeyError, UserError):
        return None
    is_own = config.problem.name != Config().problem.name  # a task that only its owner has
    horizon = config.estimator.horizon
    shortest, longest, largest = found.trained_range or (horizon, horizon, None)
    steps = config.evaluation.num_steps or horizon
    cost = _cost(found.description, config.seed)
    tasks = () if is_own else trained_tasks(config)
    return TrainedOn(tasks, steps, shortest, longest, largest, cost)


def _cost(description: Mapping[str, Any], seed: int) -> str:
    """What meta-training took, by what it wrote down."""
    try:
        took, hardware = description["trained_on"], description["hardware"]
        steps, unrolled, seconds = took["outer_steps"], took["unroll_steps"], took["seconds"]
        before = description
        while "trained_on" in (before := before.get("started_from", {})):
            steps += before["trained_on"]["outer_steps"]
            unrolled += before["trained_on"]["unroll_steps"]
            seconds += before["trained_on"]["seconds"]
        return (
            f"meta-trained once, with seed {seed}: {steps:,} outer steps, "
            f"{unrolled:,} unroll steps, {seconds:,.0f} s on {hardware}"
        )
    except (KeyError, TypeError, ValueError):  # version 0.1 did not write all of it
        return ""


def num_steps_of(known: Mapping[str, TrainedOn]) -> int:
    """T of the first of the optimizers that says what it was trained for.

    Raises:
      UserError: if none does.
    """
    if not known:
        raise UserError("num_steps is not given, and the optimizers do not say theirs.")
    return next(iter(known.values())).num_steps
