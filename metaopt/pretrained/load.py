"""A trained optimizer becomes an optax transformation again."""

import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, get_args

import jax
import optax

from metaopt.config.components import kinds_of, make
from metaopt.config.registry import catalogue, find
from metaopt.core.errors import UserError
from metaopt.core.theta import unflatten_theta
from metaopt.core.types import LearnedOptimizer, Theta
from metaopt.pretrained import artefact
from metaopt.pretrained.shipped import directory_of
from metaopt.pretrained.trained_range import (
    TrainedRange,
    far_shapes,
    far_steps,
    trained_range_in,
)


class OutsideTrainedRange(UserWarning):
    """A trained optimizer is used far outside what it was meta-trained on."""


def read(what: str | Path, learning_rate: Any = None) -> tuple[LearnedOptimizer, Theta]:
    """A trained optimizer and its theta.

    Args:
      what: the name of a shipped one, a run's directory, or a directory that `metaopt export` or
        `metaopt import` made.
      learning_rate: as in `load`.

    Raises:
      UserError: if there is none, or it is damaged, of a newer schema or another optimizer's.
    """
    directory = directory_of(what)
    return _optimizer(directory, artefact.read_artefact(directory), learning_rate)


def _optimizer(
    directory: Path, found: artefact.Artefact, learning_rate: Any = None
) -> tuple[LearnedOptimizer, Theta]:
    given = {} if learning_rate is None else {"learning_rate": learning_rate}
    try:
        if given and not takes_rate(found.optimizer.name):
            which = ", ".join(filter(takes_rate, catalogue("learned optimizer")))
            raise UserError(
                f"{found.optimizer.name} has a learning rate of its own, got learning_rate="
                f"{learning_rate!r}: leave it out. Those that take one are {which}."
            )
        optimizer = make("learned optimizer", found.optimizer, **given)
        target = jax.eval_shape(optimizer.init, jax.random.key(0))
        return optimizer, unflatten_theta(found.flat, target)
    except UserError as error:
        missing = _missing(found.description.get("versions", {}))
        needs = f"it was made with {missing}, which is not installed here; " if missing else ""
        raise UserError(f"{directory}: {needs}{error}") from error


def takes_rate(name: str) -> bool:
    """Whether a learned optimizer leaves the rate to its user: a number, or a schedule of optax's.

    Examples:
      >>> takes_rate("celo2"), takes_rate("gated_adam")
      (True, False)
    """
    kind = kinds_of(find("learned optimizer", name)).get("learning_rate")
    return optax.Schedule in get_args(kind)


def _missing(versions: Mapping[str, str]) -> str:
    """Of the distributions that an optimizer was made with those that are not installed."""
    present = lambda name: name == "python" or any(distributions(name=name))
    return ", ".join(f"{name} {made}" for name, made in versions.items() if not present(name))


class LoadedOptimizer(optax.GradientTransformationExtraArgs):
    """What `load` returns: an optax transformation that knows where it comes from.

    Attributes:
      name: as it was asked for.
      theta: the meta-parameters.
      trained_range: of its meta-training, a `TrainedRange`; ``None`` where that is not known.
      origin: all of its ``config.json``: the recipe, its cost, versions.
      directory: of its files.
    """

    name: str
    theta: Theta
    trained_range: TrainedRange | None
    origin: Mapping[str, Any]
    directory: Path


def load(
    what: str | Path,
    num_steps: int | None = None,
    *,
    learning_rate: Any = None,
    warn_when_passed: bool = False,
) -> LoadedOptimizer:
    """A trained optimizer as an optax transformation; public as `metaopt.load`.

    Warns (`OutsideTrainedRange`), once each, where ``num_steps`` or the tensors in ``init`` are far
    outside its meta-training, and where an optimizer that knows its end is used 10% beyond it.

    Args:
      what: the name of a shipped one, a run's directory, or a directory that `metaopt export` or
        `metaopt import` made.
      num_steps: how many updates it is going to be used for, those before an interruption included.
      learning_rate: a number, or a schedule of the step as optax has them, for an optimizer that
        leaves the rate to its user: `gated_muon` and `celo2`. Theta's own if not given.
      warn_when_passed: whether to warn 10% beyond ``num_steps``. A compiled step then calls
        back to Python, which costs fractions of a millisecond, keeps it out of JAX's persistent
        cache, and cannot be exported.

    Raises:
      UserError: if there is none, or it is damaged, of a newer schema or another optimizer's.
        Or for a ``learning_rate`` where it has a rate of its own.
      ValueError: for a ``num_steps`` that is missing where it is needed, or no whole number.

    Examples:
      >>> tx = load("mlp-digits", num_steps=200)
      >>> tx.name, tx.trained_range.largest_tensor, tx.origin["trained_on"]["task"]
      ('mlp-digits', 2048, 'digits_mlp')
    """
    directory = directory_of(what)
    found = artefact.read_artefact(directory)
    optimizer, theta = _optimizer(directory, found, learning_rate)
    tx = optimizer.optimizer(theta, num_steps)
    known = trained_range_in(found.description)
    steps = _concrete(num_steps)
    if known is not None and steps is not None:
        _warn_if_far(what, far_steps(known, steps), stacklevel=3)
    said = False

    def init(params):
        nonlocal said
        state = tx.init(params)
        if known is not None and not said and (faults := far_shapes(known, params)):
            said = True
            _warn_if_far(what, faults, stacklevel=3)
        return state

    update = tx.update
    if steps is not None and warn_when_passed and "num_steps" in found.description.get("needs", ()):
        update = _warning_when_passed(str(what), update, steps)
    loaded = LoadedOptimizer(init, update)
    loaded.name, loaded.theta, loaded.trained_range = str(what), theta, known
    loaded.origin, loaded.directory = found.description, directory
    return loaded


def _warn_if_far(what: str | Path, faults: list[str], stacklevel: int) -> None:
    if faults:
        warnings.warn(
            f"{what} was trained {', '.join(faults)}: it may do worse than tuned Adam here.",
            OutsideTrainedRange,
            stacklevel=stacklevel,
        )


def _warning_when_passed(name: str, update: Callable, num_steps: int) -> Callable:
    """The update, with a warning in the first step beyond the horizon and a tenth of it."""
    end = num_steps * 11 // 10
    said = False

    def look(done):
        nonlocal said
        if said or done <= end:
            return
        said = True
        warnings.warn(
            f"{name} was told num_steps={num_steps:,} and has done {int(done):,} updates: it stays "
            "at the end of its schedule. Load it with the number of updates in all.",
            OutsideTrainedRange,
            stacklevel=2,
        )

    def full_update(updates, state, params=None, **extra_args):
        updates, state = update(updates, state, params, **extra_args)
        done = getattr(state, "step", getattr(state, "count", None))
        if isinstance(done, jax.core.Tracer):
            call = lambda done: jax.debug.callback(look, done)
            jax.lax.cond(done == end + 1, call, lambda done: None, done)
        elif done is not None:
            look(done)
        return updates, state

    return full_update


def _concrete(num_steps: Any) -> int | None:
    """The number, where it is one: not where it is missing or traced."""
    if num_steps is None or isinstance(num_steps, jax.core.Tracer):
        return None
    return int(num_steps)
