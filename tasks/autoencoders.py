"""Autoencoders of images, plain and variational."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from metaopt import Task
from metaopt.tasks.fresh import fresh_parameters
from metaopt.tasks.layers import ACTIVATIONS, DenseNet
from metaopt.tasks.pixels import pixels
from metaopt.tasks.supervised import batches, one_of, positive, positive_all


class _Variational(nn.Module):
    hidden: tuple[int, ...]
    latent: int
    outputs: int
    activation: str

    @nn.compact
    def __call__(self, x: jax.Array, noise: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        said = DenseNet((*self.hidden, 2 * self.latent), self.activation, name="encoder")(x)
        mean, log_deviation = jnp.split(said, 2, axis=-1)
        code = mean + jnp.exp(log_deviation) * noise
        widths = (*self.hidden[::-1], self.outputs)
        return mean, log_deviation, DenseNet(widths, self.activation, name="decoder")(code)


def autoencoder(
    *,
    dataset: str = "digits",
    side: int = 8,
    grey: bool = False,
    hidden: tuple[int, ...] = (32, 32, 32),
    activation: str = "relu",
    batch_size: int = 128,
) -> Task:
    """Compress images through a narrow layer: squared error, the mean over pixels.

    pixels -> hidden -> pixels; pixels are between 0 and 1. Splits and data sets: as `image_mlp`.

    Args:
      dataset, side, grey: whose images, as for `image_mlp`.
      hidden: widths of the layers between, the code's among them.
      activation: ``"relu"``, ``"gelu"``, ``"silu"`` or ``"tanh"``.
      batch_size: images a batch.

    Raises:
      ValueError: for a value out of its range.

    Examples:
      >>> params = autoencoder(hidden=(8,)).init((), jax.random.key(0))
      >>> sum(leaf.size for leaf in jax.tree.leaves(params))
      1096
    """
    hidden = tuple(hidden)
    positive_all(hidden=hidden)
    positive(batch_size=batch_size)
    one_of(ACTIVATIONS, activation=activation)
    source = pixels(dataset, side, grey)
    size = math.prod(source.shape)
    model = DenseNet((*hidden, size), activation)

    def loss(config, params, batch, key):
        x = source.of(batch).reshape(-1, size)
        output: Any = model.apply({"params": params}, x)
        return jnp.square(output - x).mean()

    return Task(source.data, fresh_parameters(model, size), batches(batch_size), loss)


def vae(
    *,
    dataset: str = "digits",
    side: int = 8,
    grey: bool = False,
    hidden: tuple[int, ...] = (64,),
    latent: int = 8,
    activation: str = "relu",
    batch_size: int = 128,
) -> Task:
    """A variational autoencoder of images: the negative evidence lower bound, in nats a pixel.

    The encoder gives mean and log deviation of a normal code, the decoder has the layers the other
    way round and gives a Bernoulli for each pixel, whose brightness counts as its probability
    (Kingma and Welling 2014, arXiv 1312.6114). The code is drawn anew whenever the loss is
    computed, in evaluations as well. Splits and data sets: as `image_mlp`.

    Args:
      dataset, side, grey: whose images, as for `image_mlp`.
      hidden: widths of the encoder's hidden layers.
      latent: width of the code.
      activation: ``"relu"``, ``"gelu"``, ``"silu"`` or ``"tanh"``.
      batch_size: images a batch.

    Raises:
      ValueError: for a value out of its range.

    Examples:
      >>> params = vae(hidden=(8,), latent=2).init((), jax.random.key(0))
      >>> sum(leaf.size for leaf in jax.tree.leaves(params))
      1156
    """
    hidden = tuple(hidden)
    positive_all(hidden=hidden)
    positive(latent=latent, batch_size=batch_size)
    one_of(ACTIVATIONS, activation=activation)
    source = pixels(dataset, side, grey)
    size = math.prod(source.shape)
    model = _Variational(hidden, latent, size, activation)

    def loss(config, params, batch, key):
        x = source.of(batch).reshape(-1, size)
        noise = jax.random.normal(key, (len(x), latent), jnp.float32)
        outputs: Any = model.apply({"params": params}, x, noise)
        mean, log_deviation, logits = outputs
        drawn = optax.sigmoid_binary_cross_entropy(logits, x).sum(axis=-1)
        spread = jnp.exp(2 * log_deviation)
        divergence = (jnp.square(mean) + spread - 1 - 2 * log_deviation).sum(axis=-1) / 2
        return (drawn + divergence).mean() / size

    init = fresh_parameters(model, (size,), (latent,))
    return Task(source.data, init, batches(batch_size), loss)
