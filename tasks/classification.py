"""Small classifiers trained on data sets that fit the device."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from metaopt import Task
from metaopt.tasks import datasets
from metaopt.tasks.fresh import fresh_parameters

ACTIVATIONS = {"gelu": nn.gelu, "relu": nn.relu, "tanh": nn.tanh}


class MLP(nn.Module):
    """Dense layers, an activation between them: ``[batch, inputs] -> [batch, widths[-1]]``."""

    widths: tuple[int, ...]
    activation: Callable[[jax.Array], jax.Array]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i, width in enumerate(self.widths):
            x = nn.Dense(width)(x if i == 0 else self.activation(x))
        return x


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
      activation: ``"relu"``, ``"gelu"`` or ``"tanh"``.
      stream_rows: if given, meta-training has so many training images on the device at a time.
      stream_steps: outer steps after which the next ones take their place.

    Raises:
      ValueError: for a value out of its range.

    Examples:
      >>> task = digits_mlp(hidden=(8,))
      >>> params = task.init((), jax.random.key(0))
      >>> sum(leaf.size for leaf in jax.tree.leaves(params))
      610
    """
    hidden = tuple(hidden)
    if not all(isinstance(width, int) and width > 0 for width in hidden):
        raise ValueError(f"hidden must hold positive integers, got {hidden!r}.")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size must be an integer of at least 1, got {batch_size!r}.")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {sorted(ACTIVATIONS)}, got {activation!r}.")
    if not isinstance(stream_steps, int) or stream_steps < 1:
        raise ValueError(f"stream_steps must be an integer of at least 1, got {stream_steps!r}.")
    if stream_rows is not None and (not isinstance(stream_rows, int) or stream_rows < 1):
        raise ValueError(f"stream_rows must be an integer of at least 1, got {stream_rows!r}.")
    model = MLP((*hidden, 10), ACTIVATIONS[activation])

    init = fresh_parameters(model, 64)

    def batch(data, config, split, key):
        rows = data[split]
        if key is None:
            return rows
        return datasets.random_rows(rows, batch_size, key)

    def logits(params, batch):
        return model.apply({"params": params}, batch["image"].astype(jnp.float32) / 16)

    def loss(config, params, batch, key):
        return optax.softmax_cross_entropy_with_integer_labels(
            logits(params, batch), batch["label"]
        ).mean()

    def accuracy(config, params, batch, key):
        return (logits(params, batch).argmax(axis=-1) == batch["label"]).mean()

    if stream_rows is None:
        return Task(data=datasets.digits, init=init, batch=batch, loss=loss, accuracy=accuracy)
    stream = lambda: datasets.digits_stream(rows=stream_rows, steps=stream_steps)
    first = lambda: stream().window(0)
    return Task(first, init, batch, loss, stream=stream, accuracy=accuracy)
