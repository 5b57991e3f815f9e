"""From names and arguments to the objects they stand for."""

import inspect
from collections.abc import Callable
from typing import Any

from metaopt.config.registry import Kind, catalogue, choose
from metaopt.config.schema import Component, parse_args
from metaopt.core import inner
from metaopt.core.errors import UserError


def make(kind: Kind, component: Component) -> Any:
    """What a `Component` names, from the catalogue of its kind.

    Raises:
      UserError: for an unknown name or argument, or a value that its factory refuses.
    """
    options = catalogue(kind)
    if kind == "problem":
        options = options | {"training": inner.training}  # so that the error lists it
    factory = choose(kind, component.name, options)
    return call(factory, f"{kind} {component.name!r}", parse_args(component.args))


def call(factory: Callable[..., Any], what: str, arguments: dict[str, Any], *positional) -> Any:
    parameters = inspect.signature(factory).parameters.values()
    named = {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}
    if unknown := sorted(set(arguments) - set(named)):
        raise UserError(
            f"{what} takes no argument {unknown[0]!r}; it takes {', '.join(named) or 'none'}."
        )
    required = [name for name, p in named.items() if p.default is p.empty]
    if missing := [name for name in required if name not in arguments]:
        raise UserError(f"{what} needs a value for {', '.join(missing)}.")
    try:
        return factory(*positional, **arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"{what}: {error}") from error
