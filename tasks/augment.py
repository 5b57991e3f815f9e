"""Any task made harder: what decides whether a learned optimizer carries over to others.

Rescaled weights, as Celo (arXiv 2501.12670) has them; less data, smaller batches, wrong labels,
coarser numbers.
"""

import sys
from functools import partial
from numbers import Real
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from metaopt import PyTree, Task, UserError, make_task
from metaopt.tasks.supervised import one_of

DTYPES = {"bfloat16": jnp.bfloat16, "float16": jnp.float16}


class Augmented(NamedTuple):
    """A member of an augmented task; what an augmentation has no use for is ``()``.

    Attributes:
      member: the task's own.
      scale: like the parameters, or a scalar for each tensor, or one: what they are multiplied by
        before the task sees them.
      batches: key of the batches that there are.
      kept: float32, the part of a batch whose rows are its own.
    """

    member: PyTree
    scale: PyTree
    batches: PyTree
    kept: PyTree


def augment(
    *,
    task: str | Task = "digits_mlp",
    rescale: Literal["tensor", "global", "parameter"] | None = None,
    scale_range: float | None = None,
    data_fraction: float = 1.0,
    batch_fraction: float = 1.0,
    label_noise: float = 0.0,
    dtype: Literal["bfloat16", "float16"] | None = None,
) -> Task:
    """A task with its weights rescaled, or less data, smaller batches, wrong labels, other numbers.

    What is random in it is drawn for each episode and stays. With everything at its default it is
    the task itself.

    Args:
      task: its name, also with arguments, as ``"digits_mlp:hidden=[64]"``; in Python also a task.
      rescale: the task computes with its parameters times s, and begins with its own start divided
        by s: the same function of the same true parameters, whose gradient is s times as large. s
        is one number for each ``"tensor"`` or ``"parameter"``, or one for all (``"global"``).
      scale_range: s is log-uniform from 1 / ``scale_range`` to ``scale_range``; 1000 if not given.
      data_fraction: training sees only so much data: as many different batches as hold that
        fraction of the rows, drawn for the episode.
      batch_fraction: the part of a training batch whose rows are its own, log-uniform from here to
        1; they are repeated in place of the others, so that shapes and costs stay.
      label_noise: the fraction of training labels (a leaf called ``label``, of a regression, too)
        that are those of some row of their batch.
      dtype: ``"bfloat16"`` or ``"float16"``: parameters, batches and gradients are rounded to it;
        they are stored, and sums are computed, in float32.

    Raises:
      ValueError: for a value out of its range, or a ``scale_range`` without ``rescale``.
      UserError: for a task that there is not; and from ``batch`` for an option that has nothing to
        change: data where the task has none, labels where its batches have none; from ``loss``
        where it does not read them.

    Examples:
      >>> plain, wild = augment(task="quadratic"), augment(task="quadratic", rescale="global")
      >>> config = wild.sample(jax.random.key(0))
      >>> ours = wild.init(config, jax.random.key(1))
      >>> theirs = plain.init(plain.sample(jax.random.key(0)), jax.random.key(1))
      >>> bool(jnp.allclose(ours * config.scale, theirs, rtol=1e-5))
      True
    """
    one_of((None, "tensor", "global", "parameter"), rescale=rescale)
    one_of((None, *DTYPES), dtype=dtype)
    if scale_range is not None and rescale is None:
        raise ValueError(f"scale_range is that of rescale, got {scale_range!r} without it.")
    scale_range = 1000.0 if scale_range is None else scale_range
    _in_range(scale_range, data_fraction, batch_fraction, label_noise)
    plain = make_task(task) if isinstance(task, str) else task
    if not isinstance(plain, Task):
        raise ValueError(f"task must be a task's name or a metaopt.Task, got {plain!r}.")
    narrow, require = DTYPES[dtype] if dtype else None, partial(_require, task)

    def sample(key):
        member = plain.sample(key)
        keys = [jax.random.fold_in(key, i) for i in range(3)]
        scale: PyTree = ()
        if rescale is not None:
            params = jax.eval_shape(plain.init, member, key)
            scale = _scales(params, rescale, scale_range, keys[0])
        u = jax.random.uniform(keys[2], (), jnp.float32)
        return Augmented(
            member,
            scale,
            keys[1] if data_fraction < 1 else (),
            jnp.float32(batch_fraction) ** u if batch_fraction < 1 else (),
        )

    def scaled(config, params, sign):
        """The parameters times the scales, or divided by them."""
        if rescale is None:
            return params
        if rescale == "global":
            return jax.tree.map(lambda leaf: leaf * config.scale**sign, params)
        return jax.tree.map(lambda leaf, s: leaf * s**sign, params, config.scale)

    def init(config, key):
        return scaled(config, plain.init(config.member, key), -1)

    def batch(data, config, split, key):
        if key is None or split != "train":
            return plain.batch(data, config.member, split, key)
        data = jax.tree.map(jnp.asarray, data)
        if data_fraction < 1:
            require("data_fraction", jax.tree.leaves(data), "data")
        if data_fraction < 1:
            drawn = jax.eval_shape(lambda: plain.batch(data, config.member, split, key))
            few = max(1, round(data_fraction * _rows(data[split]) / max(1, _rows(drawn))))
            key = jax.random.fold_in(config.batches, jax.random.randint(key, (), 0, few, jnp.int32))
        rows = plain.batch(data, config.member, split, key)
        if label_noise:
            require("label_noise", _labels(rows), "leaf called 'label' in its batches")
            rows = _mislabelled(rows, label_noise, jax.random.fold_in(key, 1))
        if batch_fraction < 1:
            require("batch_fraction", jax.tree.leaves(data), "data")
            count = _rows(rows)
            own = jnp.maximum(1, jnp.round(config.kept * count)).astype(jnp.int32)
            index = jnp.arange(count) % own
            is_by_row = lambda leaf: leaf.ndim > 0 and leaf.shape[0] == count
            rows = jax.tree.map(lambda leaf: leaf[index] if is_by_row(leaf) else leaf, rows)
        return rows

    def measured(measure):
        def of(config, params, batch, key):
            if label_noise and measure is plain.loss:
                read = _reads_labels(measure, config.member, params, batch, key)
                require("label_noise", read, "loss that depends on its labels")
            params = scaled(config, params, 1)
            if narrow is not None:
                params, batch = _rounded(params, narrow), _rounded(batch, narrow)
            return measure(config.member, params, batch, key).astype(jnp.float32)

        return measure and of

    return plain._replace(
        init=init,
        batch=batch,
        sample=sample,
        loss=measured(plain.loss),
        accuracy=measured(plain.accuracy),
        outer_loss=measured(plain.outer_loss),
    )


def _require(task: str | Task, option: str, found: Any, what: str) -> None:
    if not found:
        raise UserError(f"{option} has nothing to change in {task!r}, which has no {what}.")


def _in_range(
    scale_range: float, data_fraction: float, batch_fraction: float, label_noise: float
) -> None:
    for name, value, least, most, said in (
        ("scale_range", scale_range, 1, 1e18, "from 1 to 1e18"),
        ("data_fraction", data_fraction, sys.float_info.min, 1, "above 0 and at most 1"),
        ("batch_fraction", batch_fraction, sys.float_info.min, 1, "above 0 and at most 1"),
        ("label_noise", label_noise, 0, 1, "from 0 to 1"),
    ):
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if not (is_number and least <= value <= most):
            raise ValueError(f"{name} must be {said}, got {value!r}.")


def _scales(params: PyTree, rescale: str, most: float, key: jax.Array) -> PyTree:
    """Log-uniform numbers between 1 / most and most: one, one a tensor, or one a parameter."""
    draw = lambda key, shape: (
        jnp.float32(most) ** jax.random.uniform(key, shape, jnp.float32, -1.0, 1.0)
    )
    if rescale == "global":
        return draw(key, ())
    leaves, structure = jax.tree.flatten(params)
    shape_of = lambda leaf: leaf.shape if rescale == "parameter" else ()
    return jax.tree.unflatten(
        structure,
        [draw(jax.random.fold_in(key, i), shape_of(leaf)) for i, leaf in enumerate(leaves)],
    )


def _is_label(path) -> bool:
    return bool(path) and getattr(path[-1], "key", getattr(path[-1], "name", "")) == "label"


def _reads_labels(measure, member: PyTree, params: PyTree, batch: PyTree, key: jax.Array) -> bool:
    """Whether a loss computes anything with the labels that it is given."""
    arguments = (member, params, batch, key)
    jaxpr = jax.make_jaxpr(measure)(*arguments).jaxpr
    read = {id(variable) for equation in jaxpr.eqns for variable in equation.invars}
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(arguments)]
    return any(
        id(variable) in read
        for path, variable in zip(paths, jaxpr.invars, strict=True)
        if _is_label(path)
    )


def _labels(rows: PyTree) -> list[Any]:
    return [leaf for path, leaf in jax.tree.leaves_with_path(rows) if _is_label(path)]


def _mislabelled(rows: PyTree, fraction: float, key: jax.Array) -> PyTree:
    """A batch in which that fraction of the labels are those of other rows."""

    def leaf(path, value):
        if not _is_label(path):
            return value
        u = jax.random.uniform(key, (2, len(value)), jnp.float32)
        others = value[(u[0] * len(value)).astype(jnp.int32)]
        return jnp.where(u[1] < fraction, others, value)

    return jax.tree.map_with_path(leaf, rows)


def _rounded(tree: PyTree, narrow: Any) -> PyTree:
    """Floats as the narrow type has them, gradients, too."""
    is_float = lambda leaf: jnp.issubdtype(leaf.dtype, jnp.floating)
    cut = lambda leaf: leaf.astype(narrow).astype(leaf.dtype) if is_float(leaf) else leaf
    return jax.tree.map(cut, tree)


def _rows(tree: PyTree) -> int:
    """How many rows there are: the longest first axis."""
    return max((leaf.shape[0] for leaf in jax.tree.leaves(tree) if leaf.ndim), default=0)
