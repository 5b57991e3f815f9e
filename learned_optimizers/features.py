"""Pieces that the rules share: accumulators, normalisers, time features, layers."""

import math
from collections.abc import Callable
from itertools import accumulate

import flax.linen as nn
import jax
import jax.numpy as jnp

from metaopt import PyTree

TIME_SCALES = (1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4, 3e4, 1e5)
"""Inner steps at which `time_features` cross 0."""

SMALL = 2**16
"""Elements of the largest tensor that `over_elements` puts together with others."""


def time_features(step: jax.Array) -> jax.Array:
    """tanh(t / s - 1) for s in `TIME_SCALES` (arXiv 1810.10180): float32 ``[11]``.

    Args:
      step: int32 scalar t, the iteration before it is counted.

    Example:
      >>> time_features(jnp.int32(0)).shape
      (11,)
    """
    return jnp.tanh(step.astype(jnp.float32) / jnp.array(TIME_SCALES, jnp.float32) - 1)


def ema(old: jax.Array, new: jax.Array, decay: jax.Array | float) -> jax.Array:
    """Exponential moving average, decay * old + (1 - decay) * new, without bias correction.

    Example:
      >>> float(ema(1.0, 3.0, 0.5))
      2.0
    """
    return decay * old + (1 - decay) * new


def normalise(features: jax.Array) -> jax.Array:
    """x * rsqrt(1e-5 + mean x^2) of each feature over all elements of a tensor: ``[..., F]``.

    Example:
      >>> normalise(2 * jnp.ones((3, 1))).round(3).tolist()
      [[1.0], [1.0], [1.0]]
    """
    square = jnp.mean(jnp.square(features), axis=range(features.ndim - 1))
    return features * jax.lax.rsqrt(1e-5 + square)


def over_elements(rule: Callable[[jax.Array], jax.Array], features: PyTree) -> PyTree:
    """Applies a rule of single elements to all of a tree.

    The elements of all tensors of up to `SMALL` become rows of one matrix: a few large operations
    where there were many small ones, at half the time to compile and run for a small network
    (measured on a CPU). Larger tensors keep their axes, and so their sharding.

    Args:
      rule: ``[..., F] -> [...]``, element by element.
      features: a tree of ``[..., F]``.

    Returns:
      A tree of ``[...]``.

    Example:
      >>> over_elements(lambda x: x.sum(-1), {"a": jnp.ones((2, 3)), "b": jnp.ones((1, 2, 3))})
      {'a': Array([3., 3.], dtype=float32), 'b': Array([[3., 3.]], dtype=float32)}
    """
    leaves, structure = jax.tree.flatten(features)
    small = [leaf.reshape(-1, leaf.shape[-1]) for leaf in leaves if _is_small(leaf)]
    sizes = [len(rows) for rows in small]
    pieces = iter(
        jnp.split(rule(jnp.concatenate(small)), [*accumulate(sizes)][:-1]) if small else []
    )
    apply = lambda leaf: next(pieces) if _is_small(leaf) else rule(leaf)
    return jax.tree.unflatten(structure, [apply(leaf).reshape(leaf.shape[:-1]) for leaf in leaves])


def kernel_init(key: jax.Array, shape: tuple[int, int], dtype=jnp.float32) -> jax.Array:
    """Normal of standard deviation 1/sqrt(fan_in), cut at two of them and not corrected for it."""
    return jax.random.truncated_normal(key, -2, 2, shape, dtype) / jnp.sqrt(
        jnp.asarray(shape[0], dtype)
    )


class FirstLayer(nn.Module):
    """A dense layer on [features, constants] that never builds that input.

    Inputs that are the same for every element become part of the bias. For the MLP rule this is
    less than half the arithmetic, for the same result up to rounding.

    ``(features [..., F], constants [C]) -> [..., width]``; parameters ``kernel [F + C, width]`` and
    ``bias [width]``.

    Attributes:
      width: outputs.
    """

    width: int

    @nn.compact
    def __call__(self, features: jax.Array, constants: jax.Array) -> jax.Array:
        per_element, shared = features.shape[-1], constants.shape[-1]
        kernel = self.param("kernel", kernel_init, (per_element + shared, self.width))
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        return features @ kernel[:per_element] + (bias + constants @ kernel[per_element:])


class LastLayer(nn.Module):
    """A dense layer with very few outputs, after a ReLU: ``[..., H] -> [..., width]``.

    Written as a multiplication and a sum, which fuses with what surrounds it; as a matrix product
    with so few columns it is the slowest part of a rule (measured: twice as slow on a CPU).
    Parameters ``kernel [H, width]`` and ``bias [width]``.

    Attributes:
      width: outputs.
    """

    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", kernel_init, (x.shape[-1], self.width))
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        return (nn.relu(x)[..., None] * kernel).sum(-2) + bias


def _is_small(features: jax.Array) -> bool:
    return math.prod(features.shape[:-1]) <= SMALL
