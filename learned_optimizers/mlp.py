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
    apply,
    ema,
    inverse_rms,
    later_layers,
    over_elements,
    time_features,
    validate_widths,
)
from learned_optimizers.transformation import transformation
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
        x = FirstLayer(self.hidden[0], normalise=False, name="layer_0")([features], time)
        x = later_layers(x, self.hidden, outputs=2)
        return x[..., 0] * jnp.exp(x[..., 1] * EXP_MULT) * STEP_MULT


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
    hidden = validate_widths(hidden)
    rule = MLPRule(hidden)
    decays = jnp.array(MOMENTUM_DECAYS, jnp.float32)

    def init_theta(key):
        features = jnp.zeros((1, 2 + len(MOMENTUM_DECAYS)))
        return rule.init(key, features, time_features(jnp.int32(0)))["params"]

    def optimizer(theta, num_steps=None):
        del num_steps  # this rule reads the step, not the horizon

        def init(params):
            zeros = lambda p: jnp.zeros((*p.shape, len(MOMENTUM_DECAYS)))
            return MLPState(jnp.int32(0), jax.tree.map(zeros, params))

        def update(grads, state, params, value):
            del value
            time = time_features(state.step)
            momenta = jax.tree.map(lambda g, m: ema(m, g[..., None], decays), grads, state.momenta)

            def features(g, p, m):
                parts = (g[..., None], p[..., None], m)
                return jnp.concatenate([x * inverse_rms(x) for x in parts], axis=-1)  # [..., 8]

            steps = over_elements(
                lambda x: apply(rule, theta, x, time),
                jax.tree.map(features, grads, params, momenta),
            )
            return jax.tree.map(jnp.negative, steps), MLPState(state.step + 1, momenta)

        return transformation("mlp", init, update)

    return LearnedOptimizer(init_theta, optimizer, _public_paths(len(hidden) + 1))


def _public_paths(layers):
    leaves = {"w": "kernel", "b": "bias"}
    return {
        f"mlp/~/linear_{i}/{public}": f"layer_{i}/{ours}"
        for i in range(layers)
        for public, ours in leaves.items()
    }
