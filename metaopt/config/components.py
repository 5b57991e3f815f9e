"""From names and arguments to the objects they stand for."""

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

from metaopt.config.kinds import is_a, name_of
from metaopt.config.registry import Kind, catalogue, choose
from metaopt.config.schema import Component, component_of, parse_args
from metaopt.core import inner
from metaopt.core.errors import UserError
from metaopt.core.types import LearnedOptimizer, Task


def make(kind: Kind, component: Component, **arguments: Any) -> Any:
    """What a `Component` names, from the catalogue of its kind; ``arguments`` beside its own.

    Raises:
      UserError: for an unknown name or argument, or a value that its factory refuses.
    """
    options = catalogue(kind)
    if kind == "problem":
        options = options | {"training": inner.training}  # so that the error lists it
    factory = choose(kind, component.name, options)
    return call(factory, f"{kind} {component.name!r}", parse_args(component.args) | arguments)


def make_task(text: str) -> Task:
    """The task of a name, also with arguments in JSON; public as `metaopt.make_task`.

    Args:
      text: as ``"digits_mlp"``, ``"digits_mlp hidden=[64]"`` or ``"digits_mlp:hidden=[64]"``.

    Raises:
      UserError: for a task that there is not, or a value that it refuses.

    Examples:
      >>> import jax
      >>> params = make_task("digits_mlp hidden=[8]").init((), jax.random.key(0))
      >>> sum(leaf.size for leaf in jax.tree.leaves(params))
      610
    """
    if not isinstance(text, str):
        raise UserError(f"a task is asked for by its name, got {text!r}.")
    return make("task", component_of(text))


def make_optimizer(text: str) -> LearnedOptimizer:
    """The learned optimizer of a name; public as `metaopt.make_optimizer`.

    Args:
      text: as ``"mlp"`` or ``"mlp hidden=[8]"``.

    Raises:
      UserError: for a learned optimizer that there is not, or a value that it refuses.

    Examples:
      >>> import jax
      >>> sorted(make_optimizer("sgd").init(jax.random.key(0)))
      ['log_lr']
    """
    if not isinstance(text, str):
        raise UserError(f"a learned optimizer is asked for by its name, got {text!r}.")
    return make("learned optimizer", component_of(text))


def call(factory: Callable[..., Any], what: str, arguments: dict[str, Any], *positional) -> Any:
    """Calls a factory with arguments of names and types that it has.

    Args:
      factory: of the catalogue.
      what: what an error calls it.
      arguments: its keyword arguments, from a command line or JSON.

    Raises:
      UserError: for an unknown or missing argument, or one of another type; for what it refuses.
    """
    parameters = inspect.signature(factory).parameters.values()
    named = {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}
    if unknown := sorted(set(arguments) - set(named)):
        raise UserError(
            f"{what} takes no argument {unknown[0]!r}; it takes {', '.join(named) or 'none'}."
        )
    required = [name for name, p in named.items() if p.default is p.empty]
    if missing := [name for name in required if name not in arguments]:
        raise UserError(f"{what} needs a value for {', '.join(missing)}.")
    for name, value in arguments.items():
        if not is_a(value, kind := kinds_of(factory).get(name, Any)):
            raise UserError(f"{what}: {name} must be {name_of(kind)}, got {value!r}.")
    try:
        return factory(*positional, **arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"{what}: {error}") from error


def kinds_of(factory: Callable[..., Any]) -> dict[str, Any]:
    """The types of its arguments, where they can be known."""
    try:
        return get_type_hints(getattr(factory, "func", factory))  # also of a partial
    except (NameError, TypeError, AttributeError):
        return {}
