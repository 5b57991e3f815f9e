"""Members of the families at random: sizes, shapes and settings, as text that a mixture takes.

The ranges are those of google/learned_optimization's samplers, of which a wide learned optimizer
sees hundreds. Members differ in shape, so that each is a program of its own; small ones that are
masked to one shape, and drawn anew for every episode, are `metaopt.tasks.small_mlps`.
"""

import json
import math
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from metaopt import UserError, choose, flops_of, make_task
from metaopt.tasks.language_models import CELLS
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


def _image_cnn(rng: np.random.Generator) -> Arguments:
    layers = int(rng.integers(1, 4))
    halved = int(rng.integers(min(3, layers + 1)))
    return {
        "channels": [_log_integer(rng, 4, 64)] * layers,
        "strides": [2] * halved + [1] * (layers - halved),
        "side": _log_integer(rng, 4, 32),
        "batch_size": _log_integer(rng, 4, 256),
        "activation": str(rng.choice(list(ACTIVATIONS))),
        "norm": NORMS[rng.integers(len(NORMS))],
    }


def _resnet(rng: np.random.Generator) -> Arguments:
    first = _log_integer(rng, 4, 32)
    return {
        "channels": [first, 2 * first, 2 * first][: int(rng.integers(1, 4))],
        "side": _log_integer(rng, 4, 32),
        "batch_size": _log_integer(rng, 4, 128),
        "norm": NORMS[rng.integers(1, len(NORMS))],
    }


def _rnn_lm(rng: np.random.Generator) -> Arguments:
    return {
        "cell": str(rng.choice(list(CELLS))),
        "size": _log_integer(rng, 8, 256),
        "embedding": _log_integer(rng, 8, 256),
        "batch_size": _log_integer(rng, 4, 512),
        "length": _log_integer(rng, 4, 512),
    }


def _transformer_lm(rng: np.random.Generator) -> Arguments:
    heads = _log_integer(rng, 1, 8)
    return {
        "width": heads * _log_integer(rng, 8, 128),
        "heads": heads,
        "layers": _log_integer(rng, 1, 8),
        "batch_size": _log_integer(rng, 4, 128),
        "length": _log_integer(rng, 4, 128),
    }


def _vit(rng: np.random.Generator) -> Arguments:
    heads = _log_integer(rng, 1, 16)
    return {
        "patch": int(rng.choice([1, 2, 4])),
        "width": heads * _log_integer(rng, 4, 32),
        "heads": heads,
        "layers": _log_integer(rng, 1, 16),
        "batch_size": _log_integer(rng, 4, 128),
    }


def _mlp_mixer(rng: np.random.Generator) -> Arguments:
    return {
        "patch": int(rng.choice([1, 2, 4])),
        "width": _log_integer(rng, 8, 128),
        "token_hidden": _log_integer(rng, 8, 128),
        "channel_hidden": _log_integer(rng, 8, 512),
        "layers": _log_integer(rng, 1, 16),
        "batch_size": _log_integer(rng, 4, 128),
    }


def _es_gradient(rng: np.random.Generator) -> Arguments:
    inner = _image_mlp(rng)
    text = ":".join(("image_mlp", *(f"{k}={_shown(v)}" for k, v in inner.items())))
    return {"task": text, "pairs": int(rng.choice([1, 8]))}


def _nested(rng: np.random.Generator) -> Arguments:
    width, batch = _log_integer(rng, 4, 32), _log_integer(rng, 4, 64)
    hidden = _log_integer(rng, 2, 512)
    return {
        "task": f"image_mlp:hidden=[{width}]:batch_size={batch}",
        "optimizer": str(rng.choice(["scheduled_adam", f"mlp:hidden=[{hidden}]"])),
        "num_steps": _log_integer(rng, 10, 200),
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
    "es_gradient": _es_gradient,
    "image_cnn": _image_cnn,
    "image_mlp": _image_mlp,
    "mlp_mixer": _mlp_mixer,
    "nested": _nested,
    "quadratics": _quadratics,
    "resnet": _resnet,
    "rnn_lm": _rnn_lm,
    "signal_cnn": _signal_cnn,
    "signal_mlp": _signal_mlp,
    "table_mlp": _table_mlp,
    "transformer_lm": _transformer_lm,
    "vae": _vae,
    "vit": _vit,
}
"""A family -> how its members are drawn. To add one: a function, and a line here."""


def sample_tasks(
    family: str, count: int, *, seed: int = 0, flops_at_most: float = LARGEST
) -> tuple[str, ...]:
    """Members of a family at random, as text for ``metaopt.Config(mixture=...)`` and `make_task`.

    Args:
      family: of `SAMPLERS`, such as ``"image_mlp"``, ``"transformer_lm"`` or ``"quadratics"``.
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
    if not (isinstance(flops_at_most, int | float) and flops_at_most > 0):
        raise UserError(f"flops_at_most must be a number above 0, got {flops_at_most!r}.")
    # Each family has a stream of its own: alike draws of several would be alike tasks.
    rng = np.random.default_rng((seed, zlib.crc32(family.encode())))
    found, refused = list[str](), 0
    while len(found) < count:
        text = " ".join((family, *(f"{k}={_shown(v)}" for k, v in draw(rng).items())))
        if _flops(text) <= flops_at_most:
            found.append(text)
            refused = 0
        elif (refused := refused + 1) == 20:
            raise UserError(
                f"twenty members of {family} in a row take more than flops_at_most="
                f"{flops_at_most:g} a step: raise it."
            )
    return tuple(found)


@cache
def _flops(text: str) -> float:
    return flops_of(make_task(text))


def _shown(value: Any) -> str:
    """A value as a mixture takes it: JSON without spaces, a word without quotes."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
