"""Members of the families at random: sizes, shapes and settings, as text that a mixture takes.

The ranges are those of google/learned_optimization's samplers, of which a wide learned optimizer
sees hundreds. Members differ in shape, so that each is a program of its own; small ones that are
masked to one shape, and drawn anew for every episode, are `metaopt.tasks.small_mlps`.
"""

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from metaopt import UserError, choose, flops_of, make_task
from metaopt.tasks.layers import ACTIVATIONS, NORMS

Arguments = dict[str, Any]

LARGEST = 2e9
"""FLOPs of a training step above which a member is left out, if nothing else is asked for."""


def _log_integer(rng: np.random.Generator, low: int, high: int) -> int:
    """From low to high, both included, its logarithm uniform."""
    return int(min(high, math.exp(rng.uniform(math.log(low), math.log(high + 1)))))


def _hidden(rng: np.random.Generator, low: int, high: int, layers: int) -> list[int]:
    return [_log_integer(rng, low, high)] * int(rng.integers(layers + 1))


def _image_mlp(rng: np.random.Generator) -> Arguments:
    return {
        "hidden": _hidden(rng, 8, 128, 4),
        "side": _log_integer(rng, 4, 32),
        "batch_size": _log_integer(rng, 4, 512),
        "activation": str(rng.choice(list(ACTIVATIONS))),
        "norm": NORMS[rng.integers(len(NORMS))],
        "init_scale": round(math.exp(rng.uniform(math.log(0.5), math.log(2))), 3),
        "objective": "mse" if rng.random() < 0.2 else "cross_entropy",
    }


def _autoencoder(rng: np.random.Generator) -> Arguments:
    outer, code = _log_integer(rng, 8, 128), _log_integer(rng, 4, 64)
    layers = int(rng.integers(3))
    return {
        "hidden": [*[outer] * layers, code, *[outer] * layers],
        "side": _log_integer(rng, 4, 32),
        "batch_size": _log_integer(rng, 4, 512),
        "activation": str(rng.choice(list(ACTIVATIONS))),
    }


def _vae(rng: np.random.Generator) -> Arguments:
    return {
        "hidden": _hidden(rng, 4, 128, 4),
        "latent": _log_integer(rng, 2, 128),
        "side": _log_integer(rng, 4, 32),
        "batch_size": _log_integer(rng, 4, 512),
        "activation": str(rng.choice(list(ACTIVATIONS))),
    }


def _table_mlp(rng: np.random.Generator) -> Arguments:
    return {
        "dataset": str(rng.choice(["breast_cancer", "diabetes", "iris", "wine"])),
        "hidden": _hidden(rng, 4, 128, 3),
        "batch_size": _log_integer(rng, 4, 128),
        "activation": str(rng.choice(list(ACTIVATIONS))),
        "norm": NORMS[rng.integers(len(NORMS))],
    }


def _signal_mlp(rng: np.random.Generator) -> Arguments:
    return {
        "hidden": _hidden(rng, 8, 128, 4),
        "batch_size": _log_integer(rng, 4, 512),
        "activation": str(rng.choice(list(ACTIVATIONS))),
    }


def _signal_cnn(rng: np.random.Generator) -> Arguments:
    return {
        "channels": [_log_integer(rng, 4, 64)] * int(rng.integers(1, 4)),
        "batch_size": _log_integer(rng, 4, 256),
        "activation": str(rng.choice(list(ACTIVATIONS))),
    }


def _quadratics(rng: np.random.Generator) -> Arguments:
    return {
        "dim": _log_integer(rng, 2, 512),
        "condition": round(10 ** rng.uniform(0, 4), 1),
        "noise": round(float(rng.choice([0.0, 0.1, 1.0])), 1),
        "log": bool(rng.random() < 0.2),
        "sampled": True,
    }


SAMPLERS: dict[str, Callable[[np.random.Generator], Arguments]] = {
    "autoencoder": _autoencoder,
    "image_mlp": _image_mlp,
    "quadratics": _quadratics,
    "signal_cnn": _signal_cnn,
    "signal_mlp": _signal_mlp,
    "table_mlp": _table_mlp,
    "vae": _vae,
}
"""A family -> how its members are drawn. To add one: a function, and a line here."""


def sample_tasks(
    family: str, count: int, *, seed: int = 0, flops_at_most: float = LARGEST
) -> tuple[str, ...]:
    """Members of a family at random, as text for ``metaopt.Config(mixture=...)`` and `make_task`.

    Args:
      family: ``"image_mlp"``, ``"autoencoder"``, ``"vae"``, ``"table_mlp"``, ``"signal_mlp"``,
        ``"signal_cnn"`` or ``"quadratics"``.
      count: how many.
      seed: of the draws; the first members of a longer list are those of a shorter one.
      flops_at_most: a member whose training step takes more is left out, and another one drawn.

    Raises:
      UserError: for another family, a count or seed out of range, or where twenty draws in a row
        were too dear.

    Examples:
      >>> for text in sample_tasks("table_mlp", 2):
      ...     print(text)  # doctest: +NORMALIZE_WHITESPACE
      table_mlp dataset=...
      table_mlp dataset=...
    """
    draw = choose("family", family, SAMPLERS)
    for name, value, least in (("count", count, 1), ("seed", seed, 0)):
        if not isinstance(value, int) or value < least:
            raise UserError(f"{name} must be an integer of at least {least}, got {value!r}.")
    rng, found, refused = np.random.default_rng(seed), list[str](), 0
    while len(found) < count:
        text = " ".join((family, *(f"{k}={_shown(v)}" for k, v in draw(rng).items())))
        if flops_of(make_task(text)) <= flops_at_most:
            found.append(text)
            refused = 0
        elif (refused := refused + 1) == 20:
            raise UserError(
                f"twenty members of {family} in a row take more than flops_at_most="
                f"{flops_at_most:g} a step: raise it."
            )
    return tuple(found)


def _shown(value: Any) -> str:
    """A value as a mixture takes it: JSON without spaces, a word without quotes."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
