"""What tasks of examples and labels share: batches, losses, and checks of their sizes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from metaopt import Key, PyTree, Task
from metaopt.tasks import datasets

Predict = Callable[[PyTree, PyTree, Key], jax.Array]
"""``(params, batch, key) -> outputs``; the key is for what is random in the model."""


def positive(**sizes: Any) -> None:
    """Refuses a value that is not a positive integer, by its name.

    Raises:
      ValueError: naming it.
    """
    for name, value in sizes.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be an integer of at least 1, got {value!r}.")


def positive_all(**widths: Any) -> None:
    """The same for each of several tuples."""
    for name, values in widths.items():
        if not all(isinstance(value, int) and value > 0 for value in values):
            raise ValueError(f"{name} must hold positive integers, got {values!r}.")


def one_of(options: Any, **chosen: Any) -> None:
    """Refuses a value that is none of the options, by its name.

    Raises:
      ValueError: naming it and them.
    """
    for name, value in chosen.items():
        if value not in options:
            listed = ", ".join(map(repr, options))
            raise ValueError(f"{name} must be one of {listed}, got {value!r}.")


def batches(size: int) -> Callable[[PyTree, PyTree, str, Key | None], PyTree]:
    """A task's ``batch``: so many rows with replacement, or the whole split."""

    def batch(data: PyTree, config: PyTree, split: str, key: Key | None) -> PyTree:
        rows = data[split]
        return rows if key is None else datasets.random_rows(rows, size, key)

    return batch


def classifier(
    data: Callable[[], PyTree],
    init: Callable[[PyTree, Key], PyTree],
    predict: Predict,
    *,
    classes: int,
    batch_size: int,
    objective: str = "cross_entropy",
) -> Task:
    """A task of images, signals or rows with a label each.

    Args:
      data: as a task's, with ``"label"`` int32 ``[n]`` in every split.
      init: as a task's.
      predict: logits ``[n, classes]``.
      classes: how many.
      batch_size: rows a batch.
      objective: ``"cross_entropy"`` of the softmax, in nats; or ``"mse"``, the squared distance to
        the label's unit vector, summed over classes.

    Raises:
      ValueError: for another objective.
    """
    one_of(("cross_entropy", "mse"), objective=objective)

    def losses(outputs, label):
        if objective == "cross_entropy":
            return optax.softmax_cross_entropy_with_integer_labels(outputs, label)
        return jnp.square(outputs - jax.nn.one_hot(label, classes, dtype=jnp.float32)).sum(axis=-1)

    def loss(config, params, batch, key):
        return losses(predict(params, batch, key), batch["label"]).mean()

    def accuracy(config, params, batch, key):
        return (predict(params, batch, key).argmax(axis=-1) == batch["label"]).mean()

    return Task(data, init, batches(batch_size), loss, accuracy=accuracy)
