"""The per-parameter MLP optimizer (Metz et al. 2019, arXiv 1810.10180).

A small network, shared by all elements of all tensors, reads the gradient, the parameter and six
momenta and writes a direction and a log-magnitude:

    p <- p - dir * exp(1e-3 * mag) * 1e-3
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from learned_optimizers.features import (
    FirstLayer,
    LastLayer,
    ema,
    kernel_init,
    normalise,
    over_elements,
    time_features,
)
from metaopt import LearnedOptimizer

MOMENTUM_DECAYS = (0.1, 0.5, 0.9, 0.99, 0.999, 0.9999)
EXP_MULT = STEP_MULT = 1e-3


class MLPState(NamedTuple):
    """What the MLP optimizer carries.

    Attributes:
      step: int32 scalar, updates done.
      momenta: like the parameters, each with an axis of the 6 decays at the end; float32.
    """

    step: jax.Array
    momenta: optax.Updates


class MLPRule(nn.Module):
    """``(normalised features [..., 8], time features [11]) -> step [...]``, element by element.

    Attributes:
      hidden: widths of the hidden layers, ReLU after each.
    """

    hidden: tuple[int, ...] = (32, 32)

    @nn.compact
    def __call__(self, features: jax.Array, time: jax.Array) -> jax.Array:
        x = FirstLayer(self.hidden[0], name="layer_0")(features, time)
        for i, width in enumerate(self.hidden[1:], start=1):
            x = nn.Dense(width, kernel_init=kernel_init, name=f"layer_{i}")(nn.relu(x))
        x = LastLayer(2, name=f"layer_{len(self.hidden)}")(x)
        direction, magnitude = x[..., 0], x[..., 1]
        return direction * jnp.exp(magnitude * EXP_MULT) * STEP_MULT


def mlp(*, hidden: tuple[int, ...] = (32, 32)) -> LearnedOptimizer:
    """The MLP optimizer, 19 -> 32 -> 32 -> 2: 1762 meta-parameters.

    Inputs in order: gradient, parameter, momenta for decays .1, .5, .9, .99, .999, .9999, each
    normalised over its tensor; then the 11 time features. Ignores the horizon and the loss.

    Args:
      hidden: widths of the hidden layers.

    Raises:
      ValueError: where a width is not a positive integer.

    Example:
      >>> optimizer = mlp()
      >>> theta = optimizer.init(jax.random.key(0))
      >>> sum(leaf.size for leaf in jax.tree.leaves(theta))
      1762
      >>> tx = optimizer.optimizer(theta)
      >>> params = {"w": jnp.ones((3, 2))}
      >>> updates, state = tx.update(params, tx.init(params), params)
    """
    hidden = tuple(hidden)
    if not hidden or not all(isinstance(width, int) and width > 0 for width in hidden):
        raise ValueError(f"hidden must be one or more positive integers, got {hidden!r}.")
    rule = MLPRule(hidden)
    decays = jnp.array(MOMENTUM_DECAYS, jnp.float32)

    def init_theta(key):
        features = jnp.zeros((1, 2 + len(MOMENTUM_DECAYS)))
        return rule.init(key, features, time_features(jnp.int32(0)))["params"]

    def optimizer(theta, num_steps=None):
        del num_steps  # this rule reads the step, not the horizon

        def init(params):
            zeros = lambda p: jnp.zeros((*p.shape, len(MOMENTUM_DECAYS)), jnp.float32)
            return MLPState(jnp.int32(0), jax.tree.map(zeros, params))

        def update(updates, state, params=None, **extra_args):
            del extra_args
            if params is None:
                raise ValueError("the mlp optimizer reads the parameters: update(g, state, params)")
            time = time_features(state.step)
            accumulate = lambda g, m: ema(m, g.astype(jnp.float32)[..., None], decays)
            momenta = jax.tree.map(accumulate, updates, state.momenta)

            def features(g, p, m):
                inputs = jnp.stack([g, p], axis=-1).astype(jnp.float32)
                return normalise(jnp.concatenate([inputs, m], axis=-1))  # [..., 8]

            steps = over_elements(
                lambda x: jnp.asarray(rule.apply({"params": theta}, x, time)),
                jax.tree.map(features, updates, params, momenta),
            )
            updates = jax.tree.map(lambda p, step: -step.astype(p.dtype), params, steps)
            return updates, MLPState(state.step + 1, momenta)

        return optax.GradientTransformationExtraArgs(init, update)

    return LearnedOptimizer(init_theta, optimizer, _public_paths(len(hidden) + 1))


def _public_paths(layers):
    leaves = {"w": "kernel", "b": "bias"}
    return {
        f"mlp/~/linear_{i}/{public}": f"layer_{i}/{ours}"
        for i in range(layers)
        for public, ours in leaves.items()
    }
