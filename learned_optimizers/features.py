"""Pieces that the rules share: accumulators, normalisers, time features, layers."""

import flax.linen as nn
import jax
import jax.numpy as jnp

TIME_SCALES = (1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4, 3e4, 1e5)
"""Inner steps at which `time_features` cross 0."""


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


def inverse_rms(features: jax.Array) -> jax.Array:
    """rsqrt(1e-5 + mean x^2) of each feature over all elements: ``[..., F]`` to ``[F]``.

    Example:
      >>> inverse_rms(2 * jnp.ones((3, 4, 1))).round(3).tolist()
      [0.5]
    """
    return jax.lax.rsqrt(1e-5 + jnp.mean(jnp.square(features), axis=range(features.ndim - 1)))


def kernel_init(key: jax.Array, shape: tuple[int, int], dtype=jnp.float32) -> jax.Array:
    """Normal of standard deviation 1/sqrt(fan_in), cut at two of them and not corrected for it."""
    return jax.random.truncated_normal(key, -2, 2, shape, dtype) / jnp.sqrt(
        jnp.asarray(shape[0], dtype)
    )


class FirstLayer(nn.Module):
    """A dense layer on [normalised features, constants] that never builds that input.

    The normaliser (`inverse_rms`) scales rows of the kernel instead of every element's features,
    and inputs that are the same for every element of a tensor become part of the bias. For the MLP
    rule this is less than half the arithmetic, for the same result up to rounding.

    ``(features [..., F] before normalisation, constants [C] not normalised) -> [..., width]``;
    parameters ``kernel [F + C, width]`` and ``bias [width]``.

    Attributes:
      width: outputs.
    """

    width: int

    @nn.compact
    def __call__(self, features: jax.Array, constants: jax.Array) -> jax.Array:
        per_element, shared = features.shape[-1], constants.shape[-1]
        kernel = self.param("kernel", kernel_init, (per_element + shared, self.width))
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        scaled = inverse_rms(features)[:, None] * kernel[:per_element]
        return features @ scaled + (bias + constants @ kernel[per_element:])


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
