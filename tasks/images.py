"""Classifiers of images, at the size at which the paper trains learned optimizers on them.

Li et al. 2023, arXiv 2304.12180, section 5.2 and appendix D.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from metaopt import Task
from metaopt.tasks import image_sets
from metaopt.tasks.fresh import fresh_parameters
from metaopt.tasks.layers import Conv, DenseNet
from metaopt.tasks.supervised import batches, positive, positive_all

CLIP = 1.5 * math.log(10)
"""A blind guess of ten classes costs log 10 nats."""


class _ConvNet(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for _ in range(4):
            x = _halved(nn.relu(Conv(32, (3, 3))(x)))
        return nn.Dense(self.classes)(x.reshape(*x.shape[:-3], -1))


def _halved(x: jax.Array) -> jax.Array:
    """Means over 2x2 pixels, without a last odd row or column."""
    n, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    return x.reshape(n, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


class _FlatMLP(nn.Module):
    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return DenseNet(self.widths, "gelu", name="mlp")(x.reshape(*x.shape[:-3], -1))


def fashion_mlp(
    *,
    dataset: str = "fashion_mnist",
    side: int = 8,
    hidden: tuple[int, ...] = (32, 32, 32),
    batch_size: int = 128,
    single_sequence: bool = False,
) -> Task:
    """An MLP with GELU on small images of clothes, 64 -> hidden -> 10: cross-entropy in nats.

    Pixels are divided by 255. Splits and data sets: `metaopt.tasks.image_sets.images`.

    Args:
      dataset: what is classified.
      side: height and width of the images.
      hidden: widths of the hidden layers.
      batch_size: images a batch.
      single_sequence: train one and the same network on one and the same sequence of batches in
        every episode, as the paper does it.

    Raises:
      ValueError: for a value out of its range.

    Examples:
      >>> params = fashion_mlp().init((), jax.random.key(0))
      >>> sum(leaf.size for leaf in jax.tree.leaves(params))
      4522
    """
    hidden = tuple(hidden)
    positive_all(hidden=hidden)
    widths = (*hidden, image_sets.source_of(dataset).classes)
    return _classifier(_FlatMLP(widths), dataset, side, batch_size, single_sequence)


def cifar_cnn(
    *,
    dataset: str = "cifar10",
    side: int = 32,
    batch_size: int = 32,
    clip: float | None = CLIP,
    single_sequence: bool = False,
) -> Task:
    """Four convolutions on photographs: cross-entropy in nats, clipped in the meta-loss.

    Four times a 3x3 convolution of 32 channels, ReLU and 2x2 mean pooling, then one dense layer.
    Pixels are divided by 255. Splits and data sets: `metaopt.tasks.image_sets.images`.

    Args:
      dataset: what is classified; ``"fashion_mnist"`` where CIFAR-10 is not at hand.
      side: height and width of the images, at least 16.
      batch_size: images a batch.
      clip: the largest loss of an image that counts in the meta-loss; ``None``: as it is.
      single_sequence: as for `fashion_mlp`.

    Raises:
      ValueError: for a value out of its range.

    Examples:
      >>> params = cifar_cnn().init((), jax.random.key(0))
      >>> sum(leaf.size for leaf in jax.tree.leaves(params))
      29930
    """
    if not isinstance(side, int) or side < 16:
        raise ValueError(f"side must be an integer of at least 16, got {side!r}.")
    if clip is not None and not clip > 0:
        raise ValueError(f"clip must be above 0 or None, got {clip!r}.")
    model = _ConvNet(image_sets.source_of(dataset).classes)
    most = math.inf if clip is None else clip
    return _classifier(model, dataset, side, batch_size, single_sequence, most)


def _classifier(
    model: nn.Module,
    dataset: str,
    side: int,
    batch_size: int,
    single_sequence: bool,
    clip: float = math.inf,
) -> Task:
    positive(side=side, batch_size=batch_size)
    channels = image_sets.source_of(dataset).shape[-1]

    init = fresh_parameters(model, side, side, channels)

    def logits(params, batch):
        return model.apply({"params": params}, batch["image"].astype(jnp.float32) / 255)

    def losses(params, batch):
        return optax.softmax_cross_entropy_with_integer_labels(
            logits(params, batch), batch["label"]
        )

    def loss(config, params, batch, key):
        return losses(params, batch).mean()

    def clipped(config, params, batch, key):
        each = losses(params, batch)
        return jnp.where(each < clip, each, clip).mean()  # NaN counts as the largest

    def accuracy(config, params, batch, key):
        return (logits(params, batch).argmax(axis=-1) == batch["label"]).mean()

    return Task(
        data=lambda: image_sets.images(dataset, side=side),
        init=init,
        batch=batches(batch_size),
        loss=loss,
        accuracy=accuracy,
        outer_loss=clipped if clip < math.inf else None,
        sequence=0 if single_sequence else None,
    )
