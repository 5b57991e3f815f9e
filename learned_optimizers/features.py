"""Pieces that the rules share: moving averages, normalisers, time features, layers."""

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from metaopt import PyTree, Theta

TIME_SCALES = (1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4, 3e4, 1e5)
"""Inner steps at which `time_features` cross 0."""

SPIKE = 100.0
"""A gradient this many times larger than those before it is taken for an accident."""

SMALL = 2**16
"""Elements of the largest tensor that `over_elements` puts together with others."""


def time_features(step: jax.Array) -> jax.Array:
    """tanh(t / s - 1) for s in `TIME_SCALES` (arXiv 1810.10180): float32 ``[11]``.

    Args:
      step: int32 scalar t, the iteration before it is counted.

    Examples:
      >>> time_features(jnp.int32(0)).shape
      (11,)
    """
    return jnp.tanh(step.astype(jnp.float32) / jnp.array(TIME_SCALES, jnp.float32) - 1)


def ema(old: jax.Array, new: jax.Array, decay: jax.Array | float) -> jax.Array:
    """Exponential moving average, decay * old + (1 - decay) * new, without bias correction.

    Examples:
      >>> float(ema(1.0, 3.0, 0.5))
      2.0
    """
    return decay * old + (1 - decay) * new


def without_spikes(gradient: jax.Array, second_moment: jax.Array, total: jax.Array) -> jax.Array:
    """The gradient, clipped at `SPIKE` times the largest of its tensor's past.

    Beyond, its square would fill the second moment for many times its memory. The first gradient
    is as it was.

    Args:
      gradient: ``[...]``.
      second_moment: EMA of the squares of those before it ``[...]``, not bias-corrected.
      total: the EMA's bias correction, what its weights sum to.

    Examples:
      >>> past = jnp.array([1.0, 0.0])
      >>> without_spikes(jnp.array([1e20, 2.0]), past, 1.0).tolist()
      [100.0, 2.0]
    """
    largest = jax.lax.stop_gradient(jnp.max(second_moment))
    has_past = largest > 0
    root = jnp.sqrt(jnp.where(has_past, largest, 1.0) / jnp.where(has_past, total, 1.0))
    limit = jnp.where(has_past, SPIKE * root, jnp.inf)
    return jnp.clip(gradient, -limit, limit)


def zeros_like(params: PyTree, width: int) -> PyTree:
    """Zeros for several numbers an element, sharded as the tensors: leaves ``[..., width]``.

    Examples:
      >>> zeros_like(jnp.ones(2), 3).shape
      (2, 3)
    """
    spread = lambda p: jnp.broadcast_to(jnp.zeros_like(p)[..., None], (*p.shape, width))
    return jax.tree.map(spread, params)


def inverse_rms(features: jax.Array, epsilon: float = 1e-5) -> jax.Array:
    """rsqrt(epsilon + mean x^2) of each feature over all elements: ``[..., F]`` to ``[F]``.

    Examples:
      >>> inverse_rms(2 * jnp.ones((3, 4, 1))).round(3).tolist()
      [0.5]
    """
    return jax.lax.rsqrt(epsilon + jnp.mean(jnp.square(features), axis=range(features.ndim - 1)))


def kernel_init(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    """Normal of standard deviation 1/sqrt(fan_in), cut at two of them and not corrected for it."""
    return jax.random.truncated_normal(key, -2, 2, shape, dtype) / jnp.sqrt(
        jnp.asarray(shape[0], dtype)
    )


def over_elements(rule: Callable[[jax.Array], jax.Array], features: PyTree) -> PyTree:
    """Applies a rule of single elements to all of a tree.

    The elements of all tensors of up to `SMALL` become rows of one matrix: a few large operations
    in place of many small ones, which compile and run faster for a small network. Larger tensors
    keep their axes, and so their sharding.

    Args:
      rule: ``[..., F] -> [...]``, element by element.
      features: a tree of ``[..., F]``.

    Returns:
      A tree of ``[...]``.

    Examples:
      >>> over_elements(lambda x: x.sum(-1), {"a": jnp.ones((2, 3)), "b": jnp.ones((1, 2, 3))})
      {'a': Array([3., 3.], dtype=float32), 'b': Array([[3., 3.]], dtype=float32)}
    """
    leaves, structure = jax.tree.flatten(features)
    is_small = lambda leaf: math.prod(leaf.shape[:-1]) <= SMALL
    rows = [leaf.reshape(-1, leaf.shape[-1]) for leaf in leaves if is_small(leaf)]
    ends = [*accumulate(len(part) for part in rows)]
    pieces = iter(jnp.split(rule(jnp.concatenate(rows)), ends[:-1]) if rows else [])
    apply = lambda leaf: next(pieces) if is_small(leaf) else rule(leaf)
    return jax.tree.unflatten(structure, [apply(leaf).reshape(leaf.shape[:-1]) for leaf in leaves])


def apply(rule: nn.Module, theta: Theta, *inputs: Any) -> Any:
    """A rule's outputs under its meta-parameters."""
    return rule.apply({"params": theta}, *inputs)


def normalised_product(
    features: Sequence[jax.Array], kernel: jax.Array, epsilon: float = 1e-5
) -> jax.Array:
    """N(features) @ kernel, N the division of each feature by its RMS over the tensor.

    Neither the normalised features nor those of rows and columns at full size are ever built: the
    normaliser scales rows of the kernel, and features that vary along some axes only are multiplied
    at their own size and broadcast as ``width`` sums, after it.

    Args:
      features: groups ``[..., F_i]``; their leading axes broadcast to the tensor's.
      kernel: ``[sum of F_i, width]``, rows in the order of the groups.
      epsilon: added to the mean square.

    Returns:
      ``[*tensor, width]``.

    Examples:
      >>> per_element, per_row = jnp.ones((3, 4, 2)), jnp.ones((3, 1, 5))
      >>> normalised_product([per_element, per_row], jnp.ones((7, 6))).shape
      (3, 4, 6)
    """
    groups: dict[tuple[int, ...], list[tuple[jax.Array, jax.Array]]] = {}
    start = 0
    for part in features:
        rows = kernel[start : start + part.shape[-1]]
        groups.setdefault(part.shape[:-1], []).append((part, rows))
        start += part.shape[-1]
    products = []
    for shape, group in groups.items():
        parts, kernels = zip(*group, strict=True)
        x, weights = jnp.concatenate(parts, axis=-1), jnp.concatenate(kernels)
        scaled = inverse_rms(x, epsilon)[:, None] * weights
        # Elements as rows: on a CPU twice as fast as keeping the tensor's own axes.
        product = x.reshape(-1, x.shape[-1]) @ scaled
        products.append(product.reshape(*shape, kernel.shape[1]))
    return sum(products[1:], products[0])


class FirstLayer(nn.Module):
    """A dense layer on [normalised features, constants] that never builds that input.

    As `normalised_product`; inputs that are the same for every element of a tensor become part of
    the bias. For the MLP rule this is less than half the arithmetic, for the same result up to
    rounding.

    ``(groups of features, constants [C] not normalised) -> [*tensor, width]``; parameters
    ``kernel [F + C, width]`` and ``bias [width]``.

    Attributes:
      width: outputs.
      normalise: whether to; features that come normalised may be of any elements.
    """

    width: int
    normalise: bool = True

    @nn.compact
    def __call__(self, features: Sequence[jax.Array], constants: jax.Array) -> jax.Array:
        varying, shared = sum(part.shape[-1] for part in features), constants.shape[-1]
        kernel = self.param("kernel", kernel_init, (varying + shared, self.width))
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        if self.normalise:
            product = normalised_product(features, kernel[:varying])
        else:
            product = jnp.concatenate(features, axis=-1) @ kernel[:varying]
        return product + (bias + constants @ kernel[varying:])


class LastLayer(nn.Module):
    """A dense layer with very few outputs, after a ReLU: ``[..., H] -> [..., used]``.

    A product with a vector for each output: as one with a matrix of so few columns it is the
    slowest part of a rule on a CPU, for 5% of its arithmetic. Parameters ``kernel [H, width]`` and
    ``bias [width]``.

    Attributes:
      width: outputs that there are parameters for.
      used: how many of them are computed, the first ones; all where None.
    """

    width: int
    used: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", kernel_init, (x.shape[-1], self.width))
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        columns = [nn.relu(x) @ kernel[:, i] for i in range(self.width)[: self.used]]
        return jnp.stack(columns, axis=-1) + bias[: self.used]


def later_layers(
    x: jax.Array, hidden: tuple[int, ...], outputs: int, used: int | None = None
) -> jax.Array:
    """What follows a rule's first layer, called in its module: ReLU and dense layers, `LastLayer`.

    Args:
      x: ``[..., hidden[0]]``, the first layer's result.
      hidden: widths of all hidden layers, the first one's among them.
      outputs: width of the last layer.
      used: as in `LastLayer`.

    Returns:
      ``[..., used]``. The module's parameters get ``layer_1`` and so on.
    """
    shape, x = x.shape[:-1], x.reshape(-1, x.shape[-1])
    for i, width in enumerate(hidden[1:], start=1):
        x = nn.Dense(width, kernel_init=kernel_init, name=f"layer_{i}")(nn.relu(x))
    x = LastLayer(outputs, used, name=f"layer_{len(hidden)}")(x)
    return x.reshape(*shape, x.shape[-1])


def validate_widths(hidden: Sequence[int]) -> tuple[int, ...]:
    """The widths as a tuple.

    Raises:
      ValueError: if there is none, or one is not a positive integer.

    Examples:
      >>> validate_widths([4, 4])
      (4, 4)
    """
    hidden = tuple(hidden)
    if not hidden or not all(isinstance(width, int) and width > 0 for width in hidden):
        raise ValueError(f"hidden must be one or more positive integers, got {hidden!r}.")
    return hidden
