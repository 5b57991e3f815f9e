"""Small classifiers trained on data sets that fit the device."""

from typing import Any

import jax.numpy as jnp

from metaopt import Task
from metaopt.tasks import datasets
from metaopt.tasks.fresh import fresh_parameters
from metaopt.tasks.layers import ACTIVATIONS, DenseNet
from metaopt.tasks.supervised import classifier, one_of, positive, positive_all


def digits_mlp(
    *,
    hidden: tuple[int, ...] = (32,),
    batch_size: int = 64,
    activation: str = "relu",
    stream_rows: int | None = None,
    stream_steps: int = 10,
) -> Task:
    """An MLP on the 8x8 digits, 64 -> hidden -> 10, softmax cross-entropy in nats.

    Pixels are divided by 16. Batches are drawn with replacement. Splits:
    `metaopt.tasks.datasets.digits`.

    Args:
      hidden: widths of the hidden layers.
      batch_size: images a batch.
      activation: ``"relu"``, ``"gelu"``, ``"silu"`` or ``"tanh"``.
      stream_rows: if given, meta-training has so many training images on the device at a time.
      stream_steps: outer steps after which the next ones take their place.

    Raises:
      ValueError: for a value out of its range.

    Examples:
      >>> import jax
      >>> task = digits_mlp(hidden=(8,))
      >>> params = task.init((), jax.random.key(0))
      >>> sum(leaf.size for leaf in jax.tree.leaves(params))
      610
    """
    hidden = tuple(hidden)
    positive_all(hidden=hidden)
    positive(batch_size=batch_size, stream_steps=stream_steps)
    one_of(ACTIVATIONS, activation=activation)
    if stream_rows is not None:
        positive(stream_rows=stream_rows)
    model = DenseNet((*hidden, 10), activation)
    init = fresh_parameters(model, 64)

    def predict(params, batch, key) -> Any:
        return model.apply({"params": params}, batch["image"].astype(jnp.float32) / 16)

    task = classifier(datasets.digits, init, predict, classes=10, batch_size=batch_size)
    if stream_rows is None:
        return task
    stream = lambda: datasets.digits_stream(rows=stream_rows, steps=stream_steps)
    return task._replace(data=lambda: stream().window(0), stream=stream)
