"""The optimizers that a learned one has to beat, each with its learning rate swept.

A baseline takes a learning rate and the number of steps of the run, so that it can have a schedule:

    rate(t) = peak * min(s / w, (1 + cos(pi (s - w) / (1 - w))) / 2),   s = (t + 1/2) / T,  w = 0.05

is a linear warm-up over the first 5% of the T steps and then a cosine to 0, read at the middle of
each step, so that no step has the rate 0.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from metaopt.config.registry import find
from metaopt.core.types import LearnedOptimizer

WARM_UP = 0.05
"""The fraction of a run over which a schedule rises to its peak."""


class Baseline(NamedTuple):
    """An optimizer by its learning rate; calling it makes the optax transformation.

    Attributes:
      make: ``(rate, num_steps) -> optax transformation``; either may be traced.
      scheduled: whether it looks at ``num_steps``. One that does is run for each horizon by itself;
        of one that does not, a shorter run is the start of a longer one.
    """

    make: Callable[..., optax.GradientTransformation]
    scheduled: bool = False

    def __call__(self, rate, num_steps=None) -> optax.GradientTransformation:
        """The transformation with a learning rate, for a run of ``num_steps`` steps."""
        return self.make(rate, num_steps)


def warmup_cosine(step: jax.Array | int, num_steps: jax.Array | int) -> jax.Array:
    """The fraction of the peak rate that a step has, see the module; a float32 scalar.

    Args:
      step: t, from 0.
      num_steps: T; both may be traced, which `optax.warmup_cosine_decay_schedule` does not take.

    Examples:
      >>> [round(float(warmup_cosine(step, 100)), 3) for step in (0, 4, 52, 99)]
      [0.1, 0.9, 0.5, 0.0]
    """
    done = (jnp.asarray(step, jnp.float32) + 0.5) / jnp.asarray(num_steps, jnp.float32)
    falling = (1 + jnp.cos(jnp.pi * jnp.minimum((done - WARM_UP) / (1 - WARM_UP), 1))) / 2
    return jnp.where(done < WARM_UP, done / WARM_UP, falling)


def constant(make: Callable[..., optax.GradientTransformation]) -> Baseline:
    """A baseline whose rate stays what it is; ``make`` takes a rate.

    Examples:
      >>> tx = constant(optax.sgd)(0.5)
      >>> tx.update(jnp.ones(2), tx.init(jnp.zeros(2)))[0].tolist()
      [-0.5, -0.5]
    """
    return Baseline(lambda rate, num_steps: make(rate))


def cosine(make: Callable[..., optax.GradientTransformation]) -> Baseline:
    """A baseline with the module's schedule; ``make`` takes a rate, or a schedule as optax has it.

    Examples:
      >>> tx = cosine(optax.sgd)(0.5, num_steps=1)
      >>> print(f"{tx.update(jnp.ones(()), tx.init(jnp.zeros(())))[0]:.3f}")
      -0.271
    """

    def scheduled(rate, num_steps):
        if num_steps is None:
            raise ValueError("a baseline with a schedule needs num_steps.")
        return make(lambda step: rate * warmup_cosine(step, num_steps))

    return Baseline(scheduled, scheduled=True)


def _adamw(rate) -> optax.GradientTransformation:
    return optax.adamw(rate, weight_decay=1e-2)


def _sgdm(rate) -> optax.GradientTransformation:
    return optax.sgd(rate, momentum=0.9)


BASELINES: dict[str, Baseline] = {
    "adam": constant(optax.adam),
    "adam_cosine": cosine(optax.adam),
    "adamw": constant(_adamw),
    "adamw_cosine": cosine(_adamw),
    "lion": constant(optax.lion),
    "lion_cosine": cosine(optax.lion),
    "muon": constant(optax.contrib.muon),
    "muon_cosine": cosine(optax.contrib.muon),
    "nadam": constant(optax.nadam),
    "rmsprop": constant(optax.rmsprop),
    "sgd": constant(optax.sgd),
    "sgdm": constant(_sgdm),
    "sgdm_cosine": cosine(_sgdm),
}
"""Name -> baseline. To add one: a line here."""

RATES = tuple(float(f"{10 ** (k / 3):.3g}") for k in range(-12, 3))
"""Learning rates of every sweep: three a decade, 15 from 1e-4 to 4.64."""


def baseline_of(name: str) -> Baseline:
    """A baseline by its name; a plain function of a rate, as others may add, is a constant one.

    Raises:
      UserError: if there is no such baseline.

    Examples:
      >>> baseline_of("adam").scheduled, baseline_of("adam_cosine").scheduled
      (False, True)
    """
    found = find("baseline", name)
    return found if isinstance(found, Baseline) else constant(found)


def baseline(name: str) -> LearnedOptimizer:
    """A baseline as an optimizer whose theta is its learning rate, so that rates can be vmapped.

    Raises:
      UserError: if there is no such baseline.

    Examples:
      >>> tx = baseline("sgd").optimizer(0.5)
      >>> tx.update(jnp.ones(2), tx.init(jnp.zeros(2)))[0].tolist()
      [-0.5, -0.5]
    """
    make = baseline_of(name)
    return LearnedOptimizer(
        init=lambda key: jnp.float32(1e-3),
        optimizer=lambda rate, num_steps=None: optax.with_extra_args_support(make(rate, num_steps)),
    )
