"""The command line that runs a configuration."""

import shlex
from typing import Any

from metaopt.config.recipes import RECIPES
from metaopt.config.schema import Config, EstimatorConfig, flat


def to_command(config: Config, out: str | None = None) -> str:
    """The shortest `metaopt train` that runs a configuration: a recipe, and what differs from it.

    Args:
      config: the run.
      out: its directory; the command line's own choice if not given.

    Example:
      >>> import dataclasses
      >>> to_command(dataclasses.replace(RECIPES["tiny"], seed=3), out="runs/other")
      'metaopt train tiny --seed 3 --out runs/other'
    """
    wanted, choices = flat(config), []
    for name, recipe in RECIPES.items():
        # The command line would start from the recipe for that estimator instead.
        owns = (
            f"{name}_{estimator}" for estimator in (config.estimator.name, EstimatorConfig().name)
        )
        if any(own in RECIPES for own in owns):
            continue
        words = ["metaopt", "train", name]
        for field, value in flat(recipe).items():
            if wanted[field] != value:
                words += [f"--{field.replace('_', '-')}", *_words(wanted[field])]
        choices.append(words)
    return shlex.join([*min(choices, key=len), *(["--out", out] if out else [])])


def _words(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, tuple | list) else [str(value)]
