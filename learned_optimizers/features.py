"""Pieces that the rules share: moving averages, normalisers, time features, layers."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from metaopt import PyTree, Theta
from metaopt.learned_optimizers.slices import in_slices, piece_of

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


def over_elements(
    rule: Callable[[jax.Array], jax.Array],
    features: Callable[..., jax.Array],
    tensors: Sequence[PyTree],
    shared: Sequence[PyTree] = (),
) -> PyTree:
    """Applies a rule of single elements to all of a tree.

    The elements of all tensors of up to `SMALL` become rows of one matrix: a few large operations
    in place of many small ones, which compile and run faster for a small network. Larger tensors
    keep their axes, and so their sharding, and are worked on in slices.

    Args:
      rule: ``[..., F] -> [...]``, element by element.
      features: of one tensor's leaves, and of what its elements share: ``[..., F]``.
      tensors: trees of ``[...]`` or ``[..., N]``; their structure and shapes are the first one's.
      shared: trees of what holds for a whole tensor, of that structure.

    Returns:
      A tree of ``[...]``.

    Examples:
      >>> stack = lambda x, y: jnp.stack([x, y], -1)
      >>> tree = {"a": jnp.ones(2), "b": jnp.ones((1, 2))}
      >>> over_elements(lambda x: x.sum(-1), stack, [tree, tree])
      {'a': Array([2., 2.], dtype=float32), 'b': Array([[2., 2.]], dtype=float32)}
    """
    structure: Any = jax.tree.structure(tensors[0])
    every = [structure.flatten_up_to(tree) for tree in (*tensors, *shared)]
    bound = []
    for one in zip(*every, strict=True):
        leaves, own = one[: len(tensors)], one[len(tensors) :]
        bound.append((leaves, lambda *x, own=own: features(*x, *own)))
    rows = [of(*x).reshape(x[0].size, -1) for x, of in bound if x[0].size <= SMALL]
    together, start, steps = rule(jnp.concatenate(rows)) if rows else jnp.zeros(0), 0, []
    for x, of in bound:
        shape, size = x[0].shape, x[0].size
        if size > SMALL:
            steps.append(in_slices(lambda *x, of=of: rule(of(*x)), shape, *x))
        else:
            steps.append(piece_of(together, start, size).reshape(shape))
            start += size
    return jax.tree.unflatten(structure, steps)


def apply(rule: nn.Module, theta: Theta, *inputs: Any) -> Any:
    """A rule's outputs under its meta-parameters."""
    return rule.apply({"params": theta}, *inputs)


class FirstLayer(nn.Module):
    """A dense layer on [features, constants] that never builds that input.

    Inputs that are the same for all elements become part of the bias.

    ``(features [..., F], constants [C]) -> [..., width]``; parameters ``kernel [F + C, width]`` and
    ``bias [width]``.

    Attributes:
      width: outputs.
    """

    width: int

    @nn.compact
    def __call__(self, features: jax.Array, constants: jax.Array) -> jax.Array:
        varying, shared = features.shape[-1], constants.shape[-1]
        kernel = self.param("kernel", kernel_init, (varying + shared, self.width))
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        return features @ kernel[:varying] + (bias + constants @ kernel[varying:])


class LastLayer(nn.Module):
    """A dense layer with very few outputs, after a ReLU: ``[..., H] -> [..., width]``.

    A product with a vector for each output: as one with a matrix of so few columns it is the
    slowest part of a rule on a CPU, for 5% of its arithmetic. Parameters ``kernel [H, width]`` and
    ``bias [width]``.

    Attributes:
      width: outputs.
    """

    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", kernel_init, (x.shape[-1], self.width))
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        columns = [nn.relu(x) @ kernel[:, i] for i in range(self.width)]
        return jnp.stack(columns, axis=-1) + bias


def later_layers(x: jax.Array, hidden: tuple[int, ...], outputs: int) -> jax.Array:
    """What follows a rule's first layer, called in its module: ReLU and dense layers, `LastLayer`.

    Args:
      x: ``[..., hidden[0]]``, the first layer's result.
      hidden: widths of all hidden layers, the first one's among them.
      outputs: width of the last layer.

    Returns:
      ``[..., outputs]``. The module's parameters get ``layer_1`` and so on.
    """
    shape, x = x.shape[:-1], x.reshape(-1, x.shape[-1])
    for i, width in enumerate(hidden[1:], start=1):
        x = nn.Dense(width, kernel_init=kernel_init, name=f"layer_{i}")(nn.relu(x))
    x = LastLayer(outputs, name=f"layer_{len(hidden)}")(x)
    return x.reshape(*shape, outputs)


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
