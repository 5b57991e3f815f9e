"""What a run leaves behind: theta, and a learned optimizer with all that loading it needs."""

import json
import math
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from metaopt.config.components import make
from metaopt.config.registry import provider
from metaopt.config.schema import Config, innermost, to_json, trained_tasks
from metaopt.core.errors import UserError
from metaopt.core.files import write_atomically
from metaopt.core.theta import flatten_theta, theta_paths
from metaopt.core.types import Task, Theta
from metaopt.pretrained import artefact
from metaopt.pretrained.shipped import directory_of
from metaopt.training.run_directory import RunDirectory

POPULATION = "population.safetensors"
"""In a run's directory, where it had several thetas."""

LIBRARIES = ("metaopt", "jax", "jaxlib", "flax", "optax", "numpy")


def save_run(
    directory: RunDirectory,
    config: Config,
    theta: Theta,
    totals: dict[str, Any],
    task: Task | None,
) -> None:
    """Writes theta; that of a learned optimizer into ``optimizer/``, with what `load` reads.

    Args:
      directory: the run's.
      config: the run.
      theta: where it stands.
      totals: ``outer_steps``, ``unroll_steps`` and ``seconds`` so far.
      task: what an optimizer of the catalogue was trained on, the first of a mixture; ``None``
        where there is no such optimizer.
    """
    is_own = config.problem.name != "training"
    if is_own:
        write_atomically(directory.path / artefact.THETA, save(flatten_theta(theta)))
    if task is None:
        return
    directory.optimizer.mkdir(exist_ok=True)
    horizon, others = config.estimator.horizon, () if is_own else trained_tasks(config)[1:]
    first = config.problem.name if is_own else config.task.name
    tasks = {" ".join((first, *(() if is_own else config.task.args))): task}
    tasks |= {" ".join((one.name, *one.args)): make("task", one) for one in others}
    names = [first] if is_own else [innermost(one).name for one in trained_tasks(config)]
    shapes: dict[str, tuple[int, ...]] = {}
    for name, one in tasks.items():
        prefix = f"{name}: " if len(tasks) > 1 else ""
        shapes |= {prefix + path: shape for path, shape in _shapes(one).items()}
    artefact.write(
        directory.optimizer,
        config.optimizer,
        theta,
        trained_on={"task": names[0], "tasks": names} | {"num_steps": horizon} | totals,
        trained_range={
            "num_steps": [config.estimator.shortest_horizon or horizon, horizon],
            "largest_tensor": max(map(math.prod, shapes.values()), default=0),
            "parameters": shapes,
        },
        recipe=json.loads(to_json(config)),
        versions=versions() | others_of(config),
        hardware=hardware(),
        **started_from(directory, config),
    )


def started_from(directory: RunDirectory, config: Config) -> dict[str, Any]:
    """What made theta before this run, where it started from another's: ``started_from``.

    It is read once: a run that has begun does not need the other any more.
    """
    if config.start_from is None:
        return {}
    own, other = _description(directory.optimizer), _description(config.start_from)
    facts = ("recipe", "trained_on", "hardware", "started_from")
    # An imported one, and those of version 0.1, do not say.
    before = {name: other[name] for name in facts if name in other} if "recipe" in other else None
    before = own.get("started_from", before)
    return {} if before is None else {"started_from": before}


def _description(what: str | Path) -> dict[str, Any]:
    """The content of a trained optimizer's ``config.json``; empty if it cannot be read."""
    try:
        return artefact.read_artefact(directory_of(what)).description
    except UserError:
        return {}


def save_population(directory: RunDirectory, thetas: Theta, losses: np.ndarray) -> None:
    """Writes all thetas of a population, leaves ``[n, ...]``, and their ``validation`` losses."""
    content = flatten_theta(thetas) | {"validation": losses}
    write_atomically(directory.path / POPULATION, save(content))


def _shapes(task: Task) -> dict[str, tuple[int, ...]]:
    """The shape of each of a task's parameters, by path."""
    params = jax.eval_shape(lambda key: task.init(task.sample(key), key), jax.random.key(0))
    leaves = jax.tree.leaves(params)
    return {path: leaf.shape for path, leaf in zip(theta_paths(params), leaves, strict=True)}


def versions() -> dict[str, str]:
    """The versions of Python and of the `LIBRARIES` that numbers depend on.

    Examples:
      >>> list(versions())[:2]
      ['python', 'metaopt']
    """
    libraries = {name: version(name) for name in LIBRARIES}
    return {"python": platform.python_version()} | libraries


def others_of(config: Config) -> dict[str, str]:
    """The distributions of others, and their versions, that a configuration needs."""
    found = provider("learned optimizer", config.optimizer.name)
    found |= provider("estimator", config.estimator.name)
    for task in trained_tasks(config):
        found |= provider("task", task.name)
    return found


def hardware() -> str:
    """What JAX runs on here, such as ``"2 cpu devices (x86_64), 2 CPU cores"``."""
    device = jax.devices()[0]
    kind = platform.machine() if device.platform == "cpu" else device.device_kind
    return f"{jax.device_count()} {device.platform} devices ({kind}), {os.cpu_count()} CPU cores"


def flat_theta(what: Any) -> dict[str, np.ndarray]:
    """The theta of a run, whatever its problem is, or of a trained optimizer, by path.

    Args:
      what: a run's directory, or what `metaopt.load` takes.

    Raises:
      UserError: if there is none, or it is damaged.
    """
    directory = RunDirectory(Path(what))
    if not directory.config.is_file() or directory.read_problem() in (None, "training"):
        return artefact.read_artefact(directory_of(what)).flat
    file = directory.path / artefact.THETA
    try:
        flat = dict(sorted(load(file.read_bytes()).items()))  # it keeps them in no fixed order
        artefact.require_finite(flat, file)
        return flat
    except FileNotFoundError as error:
        raise UserError(f"{directory.path} holds no theta: `metaopt train` saves one.") from error
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file} cannot be read: {error}") from error
