"""NN-Adam: an LSTM for each tensor moves Adam's hyper-parameters (released with arXiv 2203.11860).

    m <- b1 m + (1 - b1) g,  v <- b2 v + (1 - b2) g^2
    p <- p - lr (1 + eps) m / (eps + sqrt(v + 1e-10))

A tensor's lr, b1, b2 and eps are kept as a tenth of log lr, log(1 - b1), log(1 - b2), log eps;
after each step the LSTM, from the tensor's statistics, adds a little to each of the four.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from metaopt import LearnedOptimizer
from metaopt.learned_optimizers.equal_shapes import rows_of_tensors
from metaopt.learned_optimizers.factored import GRADIENT_CLIP
from metaopt.learned_optimizers.features import apply, ema
from metaopt.learned_optimizers.recurrent import (
    Carry,
    LSTMCell,
    log_magnitude,
    start_carry,
    zero_start,
)
from metaopt.learned_optimizers.slices import piece_of
from metaopt.learned_optimizers.transformation import learned_optimizer, transformation

WIDTH = 32
FEATURES = 19
MOVE_MULT = 0.01
START = {"lr": 1e-4, "one_minus_beta1": 0.1, "one_minus_beta2": 1e-3, "epsilon": 1e-8}
RANGES = {
    "lr": (1e-8, 1e3),
    "one_minus_beta1": (4.5399930e-05, 1.0),  # e^-10
    "one_minus_beta2": (4.5399930e-05, 1.0),
    "epsilon": (1e-11, 1e4),
}


class NNAdamState(NamedTuple):
    """What NN-Adam carries.

    Attributes:
      momentum: m, like the parameters; float32.
      second_moment: v, like the parameters; float32.
      stored: float32 ``[tensors, 4]``, each tensor's lr, b1, b2 and eps as they are kept; tensors
        that have elements, in the order of the leaves.
      carry: the LSTM's, a row for each of these.
    """

    momentum: optax.Updates
    second_moment: optax.Updates
    stored: jax.Array
    carry: Carry


class NNAdamRule(nn.Module):
    """``(carry, features [tensors, 19]) -> (carry, moves of the stored values [tensors, 4])``."""

    @nn.compact
    def __call__(self, carry: Carry, features: jax.Array) -> tuple[Carry, jax.Array]:
        carry = LSTMCell(WIDTH, name="lstm")(carry, features)
        # At first nothing moves: Adam.
        moves = nn.Dense(4, kernel_init=nn.initializers.zeros, name="controls")(carry.hidden)
        return carry, MOVE_MULT * moves


def nn_adam() -> LearnedOptimizer:
    """Adam with hyper-parameters that an LSTM of width 32 moves: 6856 meta-parameters.

    Where they start is meta-learned as well. Ignores the horizon and the loss.

    Examples:
      >>> optimizer = nn_adam()
      >>> theta = optimizer.init(jax.random.key(0))
      >>> sum(leaf.size for leaf in jax.tree.leaves(theta))
      6856
      >>> tx, params = optimizer.optimizer(theta), {"w": jnp.ones((3, 2))}
      >>> updates, state = tx.update(params, tx.init(params), params)
    """
    rule = NNAdamRule()

    def init_theta(key):
        start = zero_start(WIDTH)
        return {
            "stored": {name: 0.1 * jnp.log(value) for name, value in START.items()},
            "start": start,
            "rule": rule.init(key, Carry(**start), jnp.zeros((1, FEATURES)))["params"],
        }

    def optimizer(theta, num_steps):
        del num_steps  # this rule reads the statistics alone

        def init(params):
            tensors = len(jax.tree.leaves(params))
            stored = jnp.stack([theta["stored"][name] for name in START])
            zeros = optax.tree.zeros_like(params)
            stored = jnp.broadcast_to(stored, (tensors, len(START)))
            return NNAdamState(zeros, zeros, stored, start_carry(theta["start"], tensors))

        def update(grads, state, params, value):
            del value
            grads = jax.tree.map(lambda g: jnp.clip(g, -GRADIENT_CLIP, GRADIENT_CLIP), grads)
            values = in_range(state.stored)
            own = [piece_of(values, i) for i in range(len(values))]  # lr, 1 - b1, 1 - b2, eps
            own = jax.tree.unflatten(jax.tree.structure(grads), own)
            m = jax.tree.map(lambda m, g, x: ema(m, g, 1 - x[1]), state.momentum, grads, own)
            v = jax.tree.map(
                lambda v, g, x: ema(v, g * g, 1 - x[2]), state.second_moment, grads, own
            )
            adam = lambda m, v, x: -x[0] * (1 + x[3]) * m / (x[3] + jnp.sqrt(v + 1e-10))
            updates = jax.tree.map(adam, m, v, own)
            features = rows_of_tensors(tensor_features, params, grads, m, v, rows=state.stored)
            carry, moves = apply(rule, theta["rule"], state.carry, features)
            stored = 0.1 * jnp.log(in_range(state.stored + moves))
            return updates, NNAdamState(m, v, stored, carry)

        return transformation("nn_adam", init, update)

    return learned_optimizer("nn_adam", init_theta, optimizer, _public_paths())


def in_range(stored: jax.Array) -> jax.Array:
    """lr, 1 - b1, 1 - b2 and eps from the values that are kept: ``[tensors, 4]``."""
    low, high = jnp.array(list(RANGES.values())).T
    return jnp.clip(jnp.exp(10 * stored), low, high)


def tensor_features(
    parameter: jax.Array, gradient: jax.Array, m: jax.Array, v: jax.Array, stored: jax.Array
) -> jax.Array:
    """The LSTM's inputs for one tensor, alphabetically by their published names: ``[19]``."""
    lr, beta1, beta2, epsilon = 0.2 * jnp.clip(stored, -5, 5)
    mean = {"g": gradient.mean(), "m": m.mean(), "p": parameter.mean(), "rms": v.mean()}
    tensors = {"g": gradient, "m": m, "p": parameter, "rms": v}
    var = {name: jnp.square(x - mean[name]).mean() for name, x in tensors.items()}
    features = {
        "beta1": beta1,
        "beta2": beta2,
        "epsilon": epsilon,
        "is_bias": jnp.float32(1.0 if parameter.ndim == 1 else -1.0),
        "is_scalar": jnp.float32(1.0 if parameter.ndim == 0 else -1.0),
        "lr": lr,
        "mean_gabs_mag": log_magnitude(jnp.abs(gradient).mean()),
        "mean_rms": log_magnitude(mean["rms"]),
        "mean_sign": jnp.sign(mean["rms"]),
        **{f"mean_{name}_mag": log_magnitude(mean[name]) for name in "gmp"},
        **{f"mean_{name}_sign": jnp.sign(mean[name]) for name in "gmp"},
        **{f"var_{name}": log_magnitude(x) for name, x in var.items()},
    }
    return jnp.stack([features[name] for name in sorted(features)])


def _public_paths() -> dict[str, str]:
    ours = dict(zip(("lr", "beta1", "beta2", "epsilon"), START, strict=True))
    layers = {
        "rnn_params/rnn/linear": "rule/lstm/gates",
        "rnn_to_controls_params/rnn_to_controls": "rule/controls",
    }
    return {
        **{f"per_layer_{theirs}": f"stored/{name}" for theirs, name in ours.items()},
        **{f"lstm_init_state/{leaf}": f"start/{leaf}" for leaf in ("hidden", "cell")},
        **{f"{theirs}/w": f"{name}/kernel" for theirs, name in layers.items()},
        **{f"{theirs}/b": f"{name}/bias" for theirs, name in layers.items()},
    }
