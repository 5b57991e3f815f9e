"""Trained optimizers: how a run leaves one, and how it becomes an optax transformation again."""

import dataclasses
import operator
import os
import platform
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from safetensors.numpy import save

from metaopt.config import Config
from metaopt.errors import UserError
from metaopt.experiment import make
from metaopt.pretrained import artefact
from metaopt.pretrained.shipped import find
from metaopt.run.directory import RunDirectory, write_atomically
from metaopt.theta import flatten_theta, theta_paths, unflatten_theta
from metaopt.types import LearnedOptimizer, Theta

FAR_STEPS = 4
"""A horizon this many times longer or shorter than those of meta-training is far outside."""

FAR_ELEMENTS = 16
"""A tensor this many times larger is: four times as wide in two axes."""

LIBRARIES = ("metaopt", "jax", "jaxlib", "flax", "optax", "numpy")


class OutsideTrainedRange(UserWarning):
    """A trained optimizer is used far outside what it was meta-trained on."""


def save_run(directory: RunDirectory, config: Config, theta: Theta, totals: dict[str, Any]) -> None:
    """Writes theta; a learned optimizer into ``optimizer/``, with what `load_optimizer` reads.

    Args:
      directory: the run's.
      config: the run.
      theta: where it stands.
      totals: ``outer_steps``, ``unroll_steps`` and ``seconds`` so far.
    """
    if config.problem.name != "training":
        write_atomically(directory.path / artefact.THETA, save(flatten_theta(theta)))
        return
    directory.optimizer.mkdir(exist_ok=True)
    task, horizon = make("task", config.task), config.estimator.horizon
    params = jax.eval_shape(lambda key: task.init(task.sample(key), key), jax.random.key(0))
    leaves = jax.tree.leaves(params)
    artefact.write(
        directory.optimizer,
        config.optimizer,
        theta,
        trained_on={"task": config.task.name, "num_steps": horizon} | totals,
        trained_range={
            "num_steps": [config.estimator.shortest_horizon or horizon, horizon],
            "largest_tensor": max((leaf.size for leaf in leaves), default=0),
            "parameters": {
                path: leaf.shape for path, leaf in zip(theta_paths(params), leaves, strict=True)
            },
        },
        recipe=dataclasses.asdict(config),
        versions={"python": platform.python_version()}
        | {name: version(name) for name in LIBRARIES},
        hardware=_hardware(),
    )


def _hardware() -> str:
    device = jax.devices()[0]
    kind = platform.machine() if device.platform == "cpu" else device.device_kind
    return f"{jax.device_count()} {device.platform} devices ({kind}), {os.cpu_count()} CPU cores"


def read(what: str | Path) -> tuple[LearnedOptimizer, Theta]:
    """A trained optimizer and its theta.

    Args:
      what: the name of a shipped one, a run's directory, or a directory that `metaopt export` or
        `metaopt import` made.

    Raises:
      UserError: where there is none, or it is damaged, of a newer schema or another optimizer's.
    """
    directory = find(what)
    return _optimizer(directory, artefact.read_artefact(directory))


def _optimizer(directory: Path, found: artefact.Artefact) -> tuple[LearnedOptimizer, Theta]:
    try:
        optimizer = make("learned optimizer", found.optimizer)
        target = jax.eval_shape(optimizer.init, jax.random.key(0))
        return optimizer, unflatten_theta(found.flat, target)
    except UserError as error:
        raise UserError(f"{directory}: {error}") from error


def load_optimizer(
    what: str | Path, num_steps: int | None = None
) -> optax.GradientTransformationExtraArgs:
    """A trained optimizer as an optax transformation; public as `metaopt.load`.

    Warns (`OutsideTrainedRange`), once, where it is used for far more or fewer steps, or on far
    larger tensors, than it was meta-trained with; of the tensors in ``init``.

    Args:
      what: the name of a shipped one, a run's directory, or a directory that `metaopt export` or
        `metaopt import` made.
      num_steps: how many steps it is going to be used for.

    Raises:
      UserError: where there is none, or it is damaged, of a newer schema or another optimizer's.

    Example:
      >>> tx = load_optimizer("mlp-digits", num_steps=200)
    """
    directory = find(what)
    found = artefact.read_artefact(directory)
    optimizer, theta = _optimizer(directory, found)
    tx = optimizer.optimizer(theta, num_steps)
    if found.trained_range is None:
        return tx
    shortest, longest, largest = found.trained_range
    steps = _concrete(num_steps)
    if steps is not None and not shortest <= steps * FAR_STEPS <= longest * FAR_STEPS**2:
        steps_there = f"{longest}" if shortest == longest else f"{shortest} to {longest}"
        warnings.warn(
            f"{what} was trained for {steps_there} steps, far from {steps}: it may do worse than "
            "tuned Adam here.",
            OutsideTrainedRange,
            stacklevel=2,
        )
    said = False

    def init(params):
        nonlocal said
        here = max(map(np.size, jax.tree.leaves(params)), default=0)
        if here > FAR_ELEMENTS * largest and not said:
            said = True
            warnings.warn(
                f"{what} was trained on tensors of up to {largest:,} elements, far from {here:,}: "
                "it may do worse than tuned Adam here.",
                OutsideTrainedRange,
                stacklevel=2,
            )
        return tx.init(params)

    return optax.GradientTransformationExtraArgs(init, tx.update)


def _concrete(num_steps: Any) -> int | None:
    """The number, where it is one: not where it is missing or traced."""
    try:
        return operator.index(num_steps)
    except TypeError:
        return None
