"""A small network on every element of a tensor, a plane for each of its units.

A plane is one number for each element, of the tensor's shape. A layer of four units on 30 features
is too narrow for a matrix product, which would write the features side by side first. As sums of
planes it is one loop over the elements that keeps all in registers: two to three times as fast on a
CPU.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import flax.linen as nn
import jax
import jax.numpy as jnp

from metaopt import Key, Theta
from metaopt.learned_optimizers.features import kernel_init

NARROW = 16
"""Units of the widest layer that is computed as planes."""


def planes_of(features: Sequence[jax.Array]) -> list[jax.Array]:
    """The numbers in the last axis of each, one after the other.

    Examples:
      >>> [x.shape for x in planes_of([jnp.ones((3, 4, 2)), jnp.ones((3, 1, 1))])]
      [(3, 4), (3, 4), (3, 1)]
    """
    return [x[..., i] for x in features for i in range(x.shape[-1])]


def dense(planes: Sequence[jax.Array], kernel: jax.Array, bias: jax.Array) -> list[jax.Array]:
    """A dense layer: sum_i kernel_ij plane_i + bias_j for all j.

    Planes that vary along the same axes are added at their own size, and broadcast after it.

    Args:
      planes: of shapes that broadcast to the tensor's.
      kernel: ``[planes, units]``.
      bias: ``[units]``.

    Examples:
      >>> dense([jnp.ones((2, 1)), jnp.ones((1, 3))], jnp.ones((2, 1)), jnp.ones(1))[0].tolist()
      [[3.0, 3.0, 3.0], [3.0, 3.0, 3.0]]
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, plane in enumerate(planes):
        groups.setdefault(plane.shape, []).append(i)
    alike = list(groups.values())
    if kernel.shape[1] > NARROW:
        products = [
            jnp.stack([planes[i] for i in group], -1) @ kernel[jnp.array(group)] for group in alike
        ]
        return planes_of([sum(products[1:], products[0]) + bias])

    def unit(j):
        sums = []
        for first, *others in alike:
            total = planes[first] * kernel[first, j]
            for i in others:
                total += planes[i] * kernel[i, j]
            sums.append(total)
        return sum(sums[1:], sums[0]) + bias[j]

    return [unit(j) for j in range(kernel.shape[1])]


class DenseAfterReLU(nn.Module):
    """A dense layer on the ReLU of planes: parameters ``kernel [planes, width]``, ``bias [width]``.

    Attributes:
      width: units.
      used: how many of them are computed; all where None.
    """

    width: int
    used: int | None = None

    @nn.compact
    def __call__(self, planes: Sequence[jax.Array]) -> list[jax.Array]:
        kernel = self.param("kernel", kernel_init, (len(planes), self.width))
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        return dense([nn.relu(x) for x in planes], kernel[:, : self.used], bias[: self.used])


def later_layers(
    planes: Sequence[jax.Array], hidden: tuple[int, ...], outputs: int, used: int | None = None
) -> list[jax.Array]:
    """What follows a rule's first layer, called in its module: a `DenseAfterReLU` for each width.

    Args:
      planes: ``hidden[0]`` of them, the first layer's result.
      hidden: widths of all hidden layers, the first one's among them.
      outputs: width of the last layer.
      used: how many of its outputs are computed, the first ones; all where None.

    Returns:
      The planes of the outputs. The module's parameters get ``layer_1`` and so on.
    """
    for i, width in enumerate(hidden[1:], start=1):
        planes = DenseAfterReLU(width, name=f"layer_{i}")(planes)
    return DenseAfterReLU(outputs, used, name=f"layer_{len(hidden)}")(planes)


def init_network(key: Key, widths: Sequence[int]) -> Theta:
    """Where a `network` starts: its outputs are 0, its hidden units are not.

    Examples:
      >>> sorted(init_network(jax.random.key(0), (6, 8, 3)))
      ['bias_0', 'bias_1', 'kernel_0', 'kernel_1']
    """
    theta: dict[str, jax.Array] = {}
    for i, shape in enumerate(pairwise(widths)):
        kernel = jax.random.normal(jax.random.fold_in(key, i), shape, jnp.float32)
        theta[f"kernel_{i}"] = kernel if i < len(widths) - 2 else 0.0 * kernel
        theta[f"bias_{i}"] = jnp.zeros(shape[1])
    return theta


def network(theta: Theta, planes: Sequence[jax.Array]) -> list[jax.Array]:
    """The planes that a multilayer perceptron with relu makes of others.

    Weights are of standard deviation 1 and divided here, so that one sigma of the perturbation
    suits all of theta.

    Args:
      theta: as of `init_network`.
      planes: one for each of the first layer's inputs.
    """
    for i in range(len(theta) // 2):
        kernel = theta[f"kernel_{i}"]
        active = planes if i == 0 else [jax.nn.relu(x) for x in planes]
        planes = dense(active, kernel / math.sqrt(kernel.shape[0]), theta[f"bias_{i}"])
    return list(planes)
