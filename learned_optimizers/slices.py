"""A rule of single elements on a tensor of any size: the memory that it takes does not grow.

A rule that writes 64 numbers for every element of a large matrix on the way to one step would take
256 bytes a parameter. Here it sees one slice of the tensor after the other.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from metaopt.learned_optimizers.backend import with_derivatives_of

AT_ONCE = 2**16
"""Elements of a tensor that are worked on at once."""


def in_slices(rule: Callable[..., jax.Array], shape: tuple[int, ...], *inputs: Any) -> jax.Array:
    """``rule(*inputs)``, in slices where the tensor is large.

    Args:
      rule: of single elements: arrays as the inputs' to ``[*shape, ...]``.
      shape: the tensor's.
      *inputs: trees of arrays ``[*axes, ...]``, each of the axes the tensor's or of length 1.

    Examples:
      >>> x, row = jnp.ones((2048, 256)), jnp.arange(2048.0)[:, None]
      >>> float(in_slices(lambda x, row: x + row, x.shape, x, row)[2047, 0])
      2048.0
    """
    if (cut := _cut(shape)) is None:
        return rule(*inputs)
    axis, count = cut
    slices = jax.lax.map(lambda i: rule(*_slice(inputs, axis, count, i)), jnp.arange(count))
    whole = jnp.moveaxis(slices, 0, axis + 1)
    return whole.reshape(*shape, *whole.shape[len(shape) + 1 :])


def mean_over_slices(means: Callable[..., Any], shape: tuple[int, ...], *inputs: Any) -> Any:
    """``means(*inputs)``, where means are taken over a tensor's elements, in slices if it is large.

    Args:
      means: of the inputs of some elements; a tree of arrays.
      shape: the tensor's.
      *inputs: as for `in_slices`.

    Examples:
      >>> float(mean_over_slices(jnp.mean, (2,), jnp.array([1.0, 3.0])))
      2.0
    """
    if (cut := _cut(shape)) is None:
        return means(*inputs)
    axis, count = cut
    slices = jax.lax.map(lambda i: means(*_slice(inputs, axis, count, i)), jnp.arange(count))
    return jax.tree.map(lambda mean: mean.mean(0), slices)


def _cut(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Along which axis a tensor is cut, and into how many equal slices; None for a small one."""
    needed = -(-math.prod(shape) // AT_ONCE)
    if needed <= 1:
        return None
    for axis, length in enumerate(shape):
        for count in range(needed, min(length, 16 * needed) + 1):
            if length % count == 0:
                return axis, count
    return None


def _slice(inputs: Any, axis: int, count: int, i: jax.Array) -> Any:
    """The i-th of every ``count`` along an axis, so that slices of a sharded axis are sharded."""

    def of(x):
        if x.shape[axis] == 1:
            return x
        apart = x.reshape(*x.shape[:axis], -1, count, *x.shape[axis + 1 :])
        return jax.lax.dynamic_index_in_dim(apart, i, axis + 1, keepdims=False)

    return jax.tree.map(of, inputs)


def piece_of(x: jax.Array, start: int, length: int | None = None) -> jax.Array:
    """``x[start]``, or ``x[start:start + length]``, by a kernel that is compiled once for all.

    As a constant the start would be part of a kernel's code, and there would be as many kernels as
    pieces. XLA folds a scalar, but keeps an array behind a barrier as an input. Derivatives are
    those of the plain expression.

    Examples:
      >>> float(piece_of(jnp.arange(5.0), 3)), piece_of(jnp.arange(5.0), 3, 2).tolist()
      (3.0, [3.0, 4.0])
    """

    def take(x):
        at = jax.lax.optimization_barrier(jnp.array([start, 0], jnp.int32))[0]
        piece = jax.lax.dynamic_slice_in_dim(x, at, length or 1)
        return piece if length else piece[0]

    plain = lambda x: x[start : start + length] if length else x[start]
    return with_derivatives_of(plain, take)(x)
