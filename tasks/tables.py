"""Small networks on the tables that scikit-learn carries."""

from typing import Any

import jax.numpy as jnp

from metaopt import Task
from metaopt.tasks import datasets
from metaopt.tasks.fresh import fresh_parameters
from metaopt.tasks.layers import ACTIVATIONS, NORMS, DenseNet
from metaopt.tasks.supervised import batches, classifier, one_of, positive, positive_all

SIZES = {"breast_cancer": (30, 2), "diabetes": (10, 1), "iris": (4, 3), "wine": (13, 3)}
"""Features, and classes; a single one is a real number to predict."""


def table_mlp(
    *,
    dataset: str = "wine",
    hidden: tuple[int, ...] = (32,),
    activation: str = "relu",
    norm: str | None = None,
    batch_size: int = 32,
) -> Task:
    """An MLP on a small table: cross-entropy in nats, or the squared error of a standardised label.

    Features are standardised. Splits: `metaopt.tasks.datasets.tabular`.

    Args:
      dataset: ``"wine"``, ``"iris"``, ``"breast_cancer"``, or ``"diabetes"``, whose label is real:
        the mean of the labels has loss 1.
      hidden: widths of the hidden layers.
      activation: ``"relu"``, ``"gelu"``, ``"silu"`` or ``"tanh"``.
      norm: ``"layer"``, ``"batch"`` (by the statistics of the batch at hand) or ``None``.
      batch_size: rows a batch.

    Raises:
      ValueError: for a value out of its range.

    Examples:
      >>> import jax
      >>> params = table_mlp(hidden=(8,)).init((), jax.random.key(0))
      >>> sum(leaf.size for leaf in jax.tree.leaves(params))
      139
    """
    hidden = tuple(hidden)
    one_of(SIZES, dataset=dataset)
    positive_all(hidden=hidden)
    positive(batch_size=batch_size)
    one_of(ACTIVATIONS, activation=activation)
    one_of(NORMS, norm=norm)
    features, classes = SIZES[dataset]
    model = DenseNet((*hidden, classes), activation, norm)
    init = fresh_parameters(model, features)
    data = lambda: datasets.tabular(dataset)

    def predict(params, batch, key) -> Any:
        return model.apply({"params": params}, batch["features"])

    def loss(config, params, batch, key):
        return jnp.square(predict(params, batch, key)[:, 0] - batch["label"]).mean()

    if classes == 1:
        return Task(data, init, batches(batch_size), loss)
    return classifier(data, init, predict, classes=classes, batch_size=batch_size)
