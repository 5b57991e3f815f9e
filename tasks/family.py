"""A family of small classifiers: what a general learned optimizer is meta-trained over.

A member is an MLP on one of four data sets, of its own width, depth, activation, initial scale and
batch size. All members have the same shapes, so that a population of them runs as one program: what
a member lacks is there, and is masked out.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metaopt import PyTree, Task
from metaopt.tasks import datasets

INPUTS = 64
CLASSES = 10
SETS = {"breast_cancer": (30, 2), "digits": (64, 10), "iris": (4, 3), "wine": (13, 3)}
"""The data sets, each with its features and classes."""

ACTIVATIONS = (jax.nn.relu, jnp.tanh, jax.nn.gelu)
SCALES = (0.5, 2.0)
ABSENT = -1e9
"""The logit of a class that the member's data set does not have."""


class Member(NamedTuple):
    """One task of the family; every leaf is a scalar.

    Attributes:
      dataset: int32, which of `SETS`.
      width: int32, units of each hidden layer.
      depth: int32, hidden layers.
      activation: int32, which of `ACTIVATIONS`.
      scale: float32, of the initial kernels, in units of 1 / sqrt(inputs of the layer).
      batch_size: int32, rows a batch.
    """

    dataset: jax.Array
    width: jax.Array
    depth: jax.Array
    activation: jax.Array
    scale: jax.Array
    batch_size: jax.Array


class Batch(NamedTuple):
    """Rows of one data set.

    Attributes:
      x: float32 ``[rows, 64]``, zero beyond the set's features.
      label: int32 ``[rows]``.
      weight: float32 ``[rows]``, the mean's weights: zero for the rows that do not count.
    """

    x: jax.Array
    label: jax.Array
    weight: jax.Array


def small_mlps(*, max_width: int = 32, max_depth: int = 3, max_batch_size: int = 64) -> Task:
    """MLPs of 1 to 3 hidden layers on digits, breast cancer, iris and wine, one drawn an episode.

    A member's data set, activation (ReLU, tanh or GELU) and depth are drawn evenly; width (from 4),
    batch size (from 16) and initial scale (0.5 to 2) log-uniformly. Digits' pixels are divided by
    16, the other sets standardised; batches are drawn with replacement; splits:
    `metaopt.tasks.datasets`. The loss is the cross-entropy divided by log(classes), so that a blind
    guess is 1 for every member; it counts up to 3.

    A network has room for ``max_depth`` layers of ``max_width`` units and for 64 features and 10
    classes. Parameters that a member does not use start at zero and have gradient zero. A learned
    optimizer may move them, which changes no loss, and sees the zeros in its averages over a
    tensor: to it the gradient of a narrow member is a sparse one.

    Args:
      max_width: the widest hidden layer, at least 4.
      max_depth: the most hidden layers.
      max_batch_size: the largest batch, at least 16.

    Raises:
      ValueError: for a value out of its range.

    Examples:
      >>> task = small_mlps(max_width=8)
      >>> member = task.sample(jax.random.key(0))
      >>> params = task.init(member, jax.random.key(1))
      >>> sum(leaf.size for leaf in jax.tree.leaves(params))
      754
    """
    for name, value, least in (
        ("max_width", max_width, 4),
        ("max_depth", max_depth, 1),
        ("max_batch_size", max_batch_size, 16),
    ):
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}.")
    sizes = [INPUTS, *[max_width] * max_depth, CLASSES]
    features, classes = jnp.array(list(SETS.values())).T

    def sample(key):
        u = jax.random.uniform(key, (6,), jnp.float32)  # each draw compiles a generator of its own
        return Member(
            dataset=_integer(u[0], 0, len(SETS) - 1),
            width=_log_integer(u[1], 4, max_width),
            depth=_integer(u[2], 1, max_depth),
            activation=_integer(u[3], 0, len(ACTIVATIONS) - 1),
            scale=_log_uniform(u[4], *SCALES),
            batch_size=_log_integer(u[5], 16, max_batch_size),
        )

    def units(member, layer):
        """Which of its inputs a layer uses, ``[sizes[layer]]``; past the last one, the classes."""
        count = member.width
        if layer == 0:
            count = features[member.dataset]
        elif layer == max_depth + 1:
            count = classes[member.dataset]
        return jnp.arange(sizes[layer]) < count

    def init(member, key):
        shapes = [(sizes[i], sizes[i + 1]) for i in range(max_depth + 1)]
        ends = np.cumsum([math.prod(shape) for shape in shapes])
        noise = jnp.split(jax.random.normal(key, (int(ends[-1]),), jnp.float32), ends[:-1])

        def layer(i):
            rows, columns = units(member, i), units(member, i + 1)
            used = (rows[:, None] & columns) & present(member, i)
            spread = member.scale / jnp.sqrt(rows.sum().astype(jnp.float32))
            kernel = jnp.where(used, noise[i].reshape(shapes[i]) * spread, 0.0)
            return {"kernel": kernel, "bias": jnp.zeros(shapes[i][1])}

        return {f"layer_{i}": layer(i) for i in range(max_depth + 1)}

    def present(member, layer):
        """The first hidden layers and the last layer are there; those between are skipped."""
        return (layer < member.depth) | (layer == max_depth)

    def batch(data, member, split, key):
        rows = data[split]
        start, count = rows["start"][member.dataset], rows["count"][member.dataset]
        if key is None:
            index = jnp.arange(rows["most"].shape[0])
            index, weight = start + jnp.minimum(index, count - 1), index < count
        else:
            drawn = jax.random.uniform(key, (max_batch_size,)) * count.astype(jnp.float32)
            index = start + drawn.astype(jnp.int32)
            weight = jnp.arange(max_batch_size) < member.batch_size
        weight = weight.astype(jnp.float32) / weight.sum().astype(jnp.float32)
        return Batch(rows["x"][index], rows["label"][index], weight)

    def logits(member, params, batch):
        h = batch.x
        for i in range(max_depth):
            after = h @ params[f"layer_{i}"]["kernel"] + params[f"layer_{i}"]["bias"]
            after = jax.lax.select_n(member.activation, *(f(after) for f in ACTIVATIONS))
            after = jnp.where(units(member, i + 1), after, 0.0)
            h = after if i == 0 else jnp.where(present(member, i), after, h)
        last = params[f"layer_{max_depth}"]
        return jnp.where(units(member, max_depth + 1), h @ last["kernel"] + last["bias"], ABSENT)

    def loss(member, params, batch, key):
        log_p = jax.nn.log_softmax(logits(member, params, batch))
        log_p = jnp.take_along_axis(log_p, batch.label[:, None], axis=1)[:, 0]
        return -(batch.weight @ log_p) / jnp.log(classes[member.dataset].astype(jnp.float32))

    def accuracy(member, params, batch, key):
        right = logits(member, params, batch).argmax(axis=-1) == batch.label
        return batch.weight @ right.astype(jnp.float32)

    return Task(_load, init, batch, loss, sample, loss_cap=3.0, accuracy=accuracy)


def _load() -> PyTree:
    """Every split's rows, set after set.

    ``x`` float32 ``[N, 64]``, ``label`` int32 ``[N]``; ``start`` and ``count`` int32 ``[sets]``,
    where a set starts and how many rows it has; ``most``, as long as the largest set.
    """
    sets = [datasets.digits() if name == "digits" else datasets.tabular(name) for name in SETS]

    def split(name):
        rows = [splits[name] for splits in sets]
        inputs = [r["image"] / np.float32(16) if "image" in r else r["features"] for r in rows]
        counts = np.array([len(x) for x in inputs], np.int32)
        padded = [np.pad(x, ((0, 0), (0, INPUTS - x.shape[1]))) for x in inputs]
        return {
            "x": np.concatenate(padded),
            "label": np.concatenate([r["label"] for r in rows]),
            "start": np.cumsum(counts, dtype=np.int32) - counts,
            "count": counts,
            "most": np.zeros(counts.max(), np.int8),
        }

    return {name: split(name) for name in ("train", "valid", "test")}


def _integer(u: jax.Array, low: int, high: int) -> jax.Array:
    """An integer from low to high, both included, as u goes from 0 to 1."""
    return jnp.minimum(low + (u * (high + 1 - low)).astype(jnp.int32), high)


def _log_uniform(u: jax.Array, low: float, high: float) -> jax.Array:
    return low * (high / low) ** u


def _log_integer(u: jax.Array, low: int, high: int) -> jax.Array:
    """The same with its logarithm uniform."""
    return jnp.minimum(_log_uniform(u, low, high + 1).astype(jnp.int32), high)
