"""A trained optimizer becomes an optax transformation again."""

import operator
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from metaopt.config.components import make
from metaopt.core.errors import UserError
from metaopt.core.theta import unflatten_theta
from metaopt.core.types import LearnedOptimizer, Theta
from metaopt.pretrained import artefact
from metaopt.pretrained.shipped import directory_of

FAR_STEPS = 4
"""A horizon this many times longer or shorter than those of meta-training is far outside."""

FAR_ELEMENTS = 16
"""A tensor this many times larger is: four times as wide in two axes."""


class OutsideTrainedRange(UserWarning):
    """A trained optimizer is used far outside what it was meta-trained on."""


def read(what: str | Path) -> tuple[LearnedOptimizer, Theta]:
    """A trained optimizer and its theta.

    Args:
      what: the name of a shipped one, a run's directory, or a directory that `metaopt export` or
        `metaopt import` made.

    Raises:
      UserError: if there is none, or it is damaged, of a newer schema or another optimizer's.
    """
    directory = directory_of(what)
    return _optimizer(directory, artefact.read_artefact(directory))


def _optimizer(directory: Path, found: artefact.Artefact) -> tuple[LearnedOptimizer, Theta]:
    try:
        optimizer = make("learned optimizer", found.optimizer)
        target = jax.eval_shape(optimizer.init, jax.random.key(0))
        return optimizer, unflatten_theta(found.flat, target)
    except UserError as error:
        raise UserError(f"{directory}: {error}") from error


def load(what: str | Path, num_steps: int | None = None) -> optax.GradientTransformationExtraArgs:
    """A trained optimizer as an optax transformation; public as `metaopt.load`.

    Warns (`OutsideTrainedRange`), once, where it is used for far more or fewer steps, or on far
    larger tensors, than it was meta-trained with; of the tensors in ``init``.

    Args:
      what: the name of a shipped one, a run's directory, or a directory that `metaopt export` or
        `metaopt import` made.
      num_steps: how many steps it is going to be used for.

    Raises:
      UserError: if there is none, or it is damaged, of a newer schema or another optimizer's.

    Examples:
      >>> tx = load("mlp-digits", num_steps=200)
    """
    directory = directory_of(what)
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
