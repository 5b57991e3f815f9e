"""Tasks that no optimizer in `checkpoints/` was meta-trained on: what they are tried on.

Each is different in kind from the classifiers of meta-training: convolutions and mean pooling, an
autoencoder with its narrow middle, a regression on a real label.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from metaopt import Task
from metaopt.tasks import datasets
from metaopt.tasks.fresh import fresh_parameters
from metaopt.tasks.layers import Conv, DenseNet
from metaopt.tasks.supervised import batches, classifier, positive

PIXEL_VARIANCE = 0.1414


class _ConvNet(nn.Module):
    channels: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for _ in range(2):
            x = nn.relu(Conv(self.channels, (3, 3), strides=2)(x))
        return nn.Dense(10)(x.mean(axis=(-3, -2)))


def digits_cnn(*, channels: int = 16, batch_size: int = 64) -> Task:
    """A small convolutional network on the 8x8 digits, softmax cross-entropy in nats.

    Two 3x3 convolutions of stride 2 with ReLU, the mean over the image, one dense layer. Pixels are
    divided by 16; splits: `metaopt.tasks.datasets.digits`.

    Args:
      channels: of each convolution.
      batch_size: images a batch.

    Raises:
      ValueError: for a value that is not a positive integer.

    Examples:
      >>> params = digits_cnn().init((), jax.random.key(0))
      >>> sum(leaf.size for leaf in jax.tree.leaves(params))
      2650
    """
    positive(channels=channels, batch_size=batch_size)
    model = _ConvNet(channels)
    images = lambda rows: rows["image"].astype(jnp.float32).reshape(-1, 8, 8, 1) / 16

    def predict(params, batch, key) -> Any:
        return model.apply({"params": params}, images(batch))

    init = fresh_parameters(model, 8, 8, 1)
    return classifier(datasets.digits, init, predict, classes=10, batch_size=batch_size)


def digits_autoencoder(*, code: int = 16, batch_size: int = 64) -> Task:
    """Compress the 8x8 digits, 64 -> code -> 64 with tanh: squared error a pixel over its variance.

    The variance is that of a pixel of the whole data set, 0.1414 where pixels go from 0 to 1, so
    that the best constant over all pixels has loss 1. Splits: `metaopt.tasks.datasets.digits`.

    Args:
      code: width of the layer between.
      batch_size: images a batch.

    Raises:
      ValueError: for a value that is not a positive integer.

    Examples:
      >>> params = digits_autoencoder().init((), jax.random.key(0))
      >>> sum(leaf.size for leaf in jax.tree.leaves(params))
      2128
    """
    positive(code=code, batch_size=batch_size)
    model = DenseNet((code, 64), "tanh")

    def loss(config, params, batch, key):
        x = batch["image"].astype(jnp.float32) / 16
        return jnp.square(model.apply({"params": params}, x) - x).mean() / PIXEL_VARIANCE

    init = fresh_parameters(model, 64)
    return Task(datasets.digits, init, batches(batch_size), loss)


def diabetes_mlp(*, hidden: int = 32, batch_size: int = 32) -> Task:
    """Predict the progression of diabetes, 10 -> hidden -> 1 with tanh: squared error.

    Features and label are standardised, so that the mean of the labels has loss 1. Splits:
    `metaopt.tasks.datasets.tabular`.

    Args:
      hidden: width of the hidden layer.
      batch_size: patients a batch.

    Raises:
      ValueError: for a value that is not a positive integer.

    Examples:
      >>> params = diabetes_mlp().init((), jax.random.key(0))
      >>> sum(leaf.size for leaf in jax.tree.leaves(params))
      385
    """
    positive(hidden=hidden, batch_size=batch_size)
    model = DenseNet((hidden, 1), "tanh")

    def loss(config, params, batch, key):
        predicted: Any = model.apply({"params": params}, batch["features"])
        return jnp.square(predicted[:, 0] - batch["label"]).mean()

    init = fresh_parameters(model, 10)
    return Task(lambda: datasets.tabular("diabetes"), init, batches(batch_size), loss)
