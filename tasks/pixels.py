"""Images of any source for the tasks that take one: the embedded digits, or a larger data set."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from metaopt import Key, PyTree, Task
from metaopt.tasks import datasets, image_sets
from metaopt.tasks.fresh import fresh_parameters
from metaopt.tasks.image_sources import IMAGE_SOURCES
from metaopt.tasks.supervised import classifier, positive

DATASETS = ("digits", *IMAGE_SOURCES)


class Pixels(NamedTuple):
    """Where images come from.

    Attributes:
      data: ``() -> {split: {"image": uint8 [n, side, side, channels], "label": int32 [n]}}``.
      shape: of an image, ``(side, side, channels)``.
      classes: how many.
      scale: what the brightest pixel is stored as.
    """

    data: Callable[[], PyTree]
    shape: tuple[int, int, int]
    classes: int
    scale: float

    def of(self, batch: PyTree) -> jax.Array:
        """A batch's images as float32 between 0 and 1, ``[n, side, side, channels]``."""
        return batch["image"].astype(jnp.float32) / self.scale


def pixels(dataset: str, side: int, grey: bool = False) -> Pixels:
    """The images of a data set, resized.

    Args:
      dataset: ``"digits"``, which is embedded, or one of `metaopt.tasks.image_sets`.
      side: height and width.
      grey: the mean of the colours in place of the colours.

    Raises:
      ValueError: for another data set, or a side that is not a positive integer.
    """
    if not isinstance(side, int) or side < 1:
        raise ValueError(f"side must be an integer of at least 1, got {side!r}.")
    if dataset == "digits":
        return Pixels(lambda: _digits(side), (side, side, 1), 10, 16.0)
    if dataset not in DATASETS:
        raise ValueError(f"dataset must be one of {', '.join(DATASETS)}, got {dataset!r}.")
    source = image_sets.source_of(dataset)
    channels = 1 if grey else source.shape[-1]
    load = lambda: _greyed(image_sets.images(dataset, side=side), grey)
    return Pixels(load, (side, side, channels), source.classes, 255.0)


def image_classifier(source: Pixels, model: nn.Module, batch_size: int) -> Task:
    """A network on images as they are, ``[n, side, side, channels]``: cross-entropy in nats.

    Args:
      source: of the images.
      model: gives logits ``[n, classes]``.
      batch_size: images a batch.

    Raises:
      ValueError: for a batch size that is not a positive integer.
    """
    positive(batch_size=batch_size)

    def predict(params: PyTree, batch: PyTree, key: Key) -> Any:
        return model.apply({"params": params}, source.of(batch))

    init = fresh_parameters(model, source.shape)
    return classifier(source.data, init, predict, classes=source.classes, batch_size=batch_size)


def _digits(side: int) -> PyTree:
    return {
        split: {
            "image": image_sets.resize(rows["image"].reshape(-1, 8, 8, 1), side),
            "label": rows["label"],
        }
        for split, rows in datasets.digits().items()
    }


def _greyed(splits: PyTree, grey: bool) -> PyTree:
    if not grey:
        return splits
    mean = lambda images: np.rint(images.mean(axis=-1, keepdims=True)).astype(np.uint8)
    return {split: rows | {"image": mean(rows["image"])} for split, rows in splits.items()}
