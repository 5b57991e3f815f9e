"""Gradient descent of a fractional order that a small network chooses for every element.

    p <- p - exp(log_lr) g (|p - c| + eps)^(1 - a) / Gamma(2 - a),   c <- b c + (1 - b) p

The order a is between 0.05 and 1; at a = 1 this is gradient descent. With c = 0 and no eps, g times
the factor is (2 - a) times the Caputo derivative of order a from 0 of a quadratic. c is an average
of the iterates so far: where an element has hardly moved its steps are shorter, and where it has
moved far they are longer. After Szente et al. 2024 (arXiv 2411.14855), of which the abstract is
public: the network, its inputs and c are ours.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from metaopt import LearnedOptimizer
from metaopt.learned_optimizers.arguments import valid_number
from metaopt.learned_optimizers.equal_shapes import over_tensors
from metaopt.learned_optimizers.features import ema, validate_widths
from metaopt.learned_optimizers.planes import init_network, network
from metaopt.learned_optimizers.slices import in_slices
from metaopt.learned_optimizers.transformation import learned_optimizer, transformation

FEATURES = 4
LEAST = 0.05
"""The smallest order."""
SMALLEST = 1e-30
"""A mean square that is taken for 0."""


class FractionalState(NamedTuple):
    """Attributes: ``center``, c; ``momentum``, of the gradients. Both are like the parameters."""

    center: optax.Updates
    momentum: optax.Updates


def fractional(
    *,
    learning_rate: float = 0.1,
    order: float = 0.9,
    epsilon: float = 1e-3,
    hidden: tuple[int, ...] = (8,),
) -> LearnedOptimizer:
    """Fractional gradient descent, its order from an MLP, 4 -> 8 -> 1; 52 meta-parameters.

    Ignores the horizon and the loss.

    Args:
      learning_rate: where theta's rate starts.
      order: where the order starts, for all elements.
      epsilon: the least distance from c.
      hidden: widths of the network's hidden layers.

    Raises:
      ValueError: for a number out of its range, a width that is not a positive integer.

    Examples:
      >>> optimizer = fractional()
      >>> theta = optimizer.init(jax.random.key(0))
      >>> sum(leaf.size for leaf in jax.tree.leaves(theta))
      52
      >>> tx, params = fractional(order=1.0, learning_rate=0.5).optimizer(theta), jnp.ones(2)
      >>> updates, state = tx.update(params, tx.init(params), params)
    """
    valid_number("learning_rate", learning_rate, above=0)
    valid_number("epsilon", epsilon, above=0)
    valid_number("order", order, above=0)
    if not LEAST <= order <= 1:
        raise ValueError(f"order must be from {LEAST} to 1, got {order!r}.")
    widths = (FEATURES, *validate_widths(hidden), 1)

    def init_theta(key):
        return {
            "log_lr": jnp.log(jnp.float32(learning_rate)),
            "log_one_minus_beta": jnp.log(jnp.float32(0.1)),
            "order": jnp.float32(order),
            "network": init_network(key, widths),
        }

    def optimizer(theta, num_steps):
        del num_steps
        rate, beta = jnp.exp(theta["log_lr"]), 1 - jnp.exp(theta["log_one_minus_beta"])

        def init(params):
            return FractionalState(params, optax.tree.zeros_like(params))

        def update(grads, state, params, value):
            del value

            def step(p, g, c, m):
                m = ema(m, g, 0.9)
                scales = [jax.lax.rsqrt(jnp.mean(jnp.square(x)) + SMALLEST) for x in (g, p)]

                def of_elements(p, g, c, m):
                    (moved,) = network(theta["network"], _features(p - c, g, m, *scales))
                    a = jnp.clip(theta["order"] + moved, LEAST, 1.0)
                    return -rate * fractional_step(g, p - c, a, epsilon)

                return in_slices(of_elements, g.shape, p, g, c, m), ema(c, p, beta), m

            results = over_tensors(step, params, grads, *state)
            structure: Any = jax.tree.structure(params)
            updates, *kept = (
                jax.tree.unflatten(structure, each) for each in zip(*results, strict=True)
            )
            return updates, FractionalState(*kept)

        return transformation("fractional", init, update)

    return learned_optimizer("fractional", init_theta, optimizer)


def fractional_step(
    gradient: jax.Array, distance: jax.Array, order: jax.Array | float, epsilon: float
) -> jax.Array:
    """g (|x - c| + eps)^(1 - a) / Gamma(2 - a), element by element.

    Args:
      gradient: g.
      distance: x - c.
      order: a, between 0 and 1.
      epsilon: eps.

    Examples:
      >>> fractional_step(jnp.float32(2.0), jnp.float32(9.0), 1.0, 1e-3).tolist()
      2.0
      >>> round(float(fractional_step(jnp.float32(2.0), jnp.float32(9.0), 0.5, 0.0)), 4)
      6.7703
    """
    a = jnp.asarray(order, gradient.dtype)
    power = (jnp.abs(distance) + epsilon) ** (1 - a)
    factor = jnp.where(a == 1, 1.0, power * jnp.exp(-jax.lax.lgamma(2 - a)))  # 1 to the bit
    return gradient * factor


def _features(d: jax.Array, g: jax.Array, m: jax.Array, *scales: jax.Array) -> list[jax.Array]:
    """Planes between -1 and 1: how large the gradient is, how far the element has come, and whether
    gradients of late, and the way so far, agree with it."""
    of_g, of_p = scales
    g, m, d = (x / (1 + jnp.abs(x)) for x in (of_g * g, of_g * m, 10 * of_p * d))
    return [jnp.abs(g), jnp.abs(d), g * m, g * d]
