"""The command line that runs a configuration."""

import shlex
from typing import Any

from metaopt.config.recipes import start_of
from metaopt.config.registry import catalogue
from metaopt.config.schema import Config, flat


def to_command(config: Config, out: str | None = None) -> str:
    """The shortest `metaopt train` that runs a configuration: a recipe, and what differs from it.

    Args:
      config: the run.
      out: its directory; the command line's own choice if not given.

    Examples:
      >>> import dataclasses
      >>> to_command(dataclasses.replace(catalogue("recipe")["tiny"], seed=3), out="runs/other")
      'metaopt train tiny --seed 3 --out runs/other'
    """
    wanted, estimator, choices = flat(config), config.estimator.name, []
    del wanted["estimator.name"]
    for name, recipe in catalogue("recipe").items():
        start = flat(start_of(name, estimator))
        words = ["metaopt", "train", name]
        if recipe.estimator.name != estimator:
            words += ["--estimator", estimator]
        for field in [field for field, value in wanted.items() if start[field] != value]:
            words += _flag(field, wanted[field])
        choices.append(words)
    return shlex.join([*min(choices, key=len), *(["--out", out] if out else [])])


def _flag(field: str, value: Any) -> list[str]:
    """A field as the command line takes it."""
    *groups, name = field.replace("_", "-").split(".")
    if isinstance(value, bool):
        return [f"--{'.'.join([*groups, name if value else f'no-{name}'])}"]
    values = value if isinstance(value, tuple | list) else [value]
    return [f"--{'.'.join([*groups, name])}", *map(str, values)]
