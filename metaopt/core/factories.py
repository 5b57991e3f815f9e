"""A catalogue out of a module: the functions that it imports, by name."""

from collections.abc import Callable, Mapping
from typing import Any, get_type_hints


def factories(module: Mapping[str, Any], record: type) -> dict[str, Callable[..., Any]]:
    """The public functions of a module that are annotated to return a record, sorted by name.

    A package that lists its parts by importing them has its catalogue from this:

        from metaopt.tasks.classification import digits_mlp as digits_mlp
        TASKS = factories(globals(), Task)

    Args:
      module: its names, ``globals()``.
      record: what the functions return, such as `metaopt.Task`.

    Examples:
      >>> from metaopt import tasks
      >>> "lorenz" in factories(vars(tasks), tasks.UnrolledProblem)
      True
    """
    return {
        name: thing
        for name, thing in sorted(module.items())
        if not name.startswith("_")
        and callable(thing)
        and not isinstance(thing, type)
        and get_type_hints(thing).get("return") is record
    }
