"""The optimizers that a learned one has to beat, each with its learning rate swept."""

from collections.abc import Callable

import jax.numpy as jnp
import optax

from metaopt.config.registry import find
from metaopt.core.types import LearnedOptimizer

Baseline = Callable[[float], optax.GradientTransformation]

BASELINES: dict[str, Baseline] = {
    "adam": optax.adam,
    "adamw": lambda rate: optax.adamw(rate, weight_decay=1e-2),
    "lion": optax.lion,
    "muon": optax.contrib.muon,
    "nadam": optax.nadam,
    "rmsprop": optax.rmsprop,
    "sgd": optax.sgd,
    "sgdm": lambda rate: optax.sgd(rate, momentum=0.9),
}
"""Name -> (learning rate -> optax transformation). To add one: a line here."""

RATES = tuple(float(f"{10 ** (k / 2):.3g}") for k in range(-12, 3))
"""Learning rates of a sweep: two a decade, 15 from 1e-6 to 10."""


def baseline(name: str) -> LearnedOptimizer:
    """A baseline as an optimizer whose theta is its learning rate, so that rates can be vmapped.

    Raises:
      UserError: where there is no such baseline.

    Example:
      >>> tx = baseline("sgd").optimizer(0.5)
      >>> tx.update(jnp.ones(2), tx.init(jnp.zeros(2)))[0].tolist()
      [-0.5, -0.5]
    """
    make: Baseline = find("baseline", name)
    return LearnedOptimizer(
        init=lambda key: jnp.float32(1e-3),
        optimizer=lambda rate, num_steps=None: optax.with_extra_args_support(make(rate)),
    )
