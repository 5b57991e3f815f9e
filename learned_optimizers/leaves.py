"""Leaves of all kinds that programs keep among their parameters, and what of them a rule sees.

| leaf | to the rule | its update |
| --- | --- | --- |
| float of any width, NumPy's, Python's | a float32 tensor | of the parameter's dtype |
| complex | two tensors, `Complex` | complex |
| without elements, integer, bool | nothing | zeros of the parameter's dtype |

A gradient's elements are clipped at ±1e15, so that their squares and sums of many are finite.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

LARGEST = 1e15


class Complex(NamedTuple):
    """The parts of a complex tensor, each updated as a real one."""

    real: Any
    imag: Any


def tensors_of(name: str, tree: Any) -> Any:
    """The tree with float32 tensors, and with None where a rule sees nothing.

    Args:
      name: the optimizer's, for messages.
      tree: parameters, or gradients.

    Raises:
      ValueError: naming a leaf that holds no numbers.

    Examples:
      >>> tensors_of("sgd", {"a": 0.5, "b": np.ones(2, np.int32)})
      {'a': Array(0.5, dtype=float32), 'b': None}
    """
    see = lambda path, leaf: _seen(leaf, _dtype(name, path, leaf))
    return jax.tree_util.tree_map_with_path(see, tree)


def pair_leaves(name: str, grads: Any, params: Any | None) -> tuple[Any, Any, Any]:
    """The tree that updates are to be like, and what a rule sees of gradients and parameters.

    Without parameters the gradients say what a rule sees.

    Args:
      name: the optimizer's, for messages.
      grads: as they were given.
      params: as they were given, or None.

    Raises:
      ValueError: naming a leaf of which there is only one, or two that do not fit.

    Examples:
      >>> pair_leaves("sgd", {"a": 1e20}, {"a": np.float16(0.5)})[1:]
      ({'a': Array(1.e+15, dtype=float32)}, {'a': Array(0.5, dtype=float32)})
    """
    if params is None:
        return grads, _clipped(tensors_of(name, grads)), None
    structure: Any = jax.tree.structure(grads)
    if structure != jax.tree.structure(params):
        raise ValueError(f"{name}: {_difference(grads, params)}.")

    def gradient(path, p, g):
        dtype, own = _dtype(name, path, p), _dtype(name, path, g)
        if _seen(p, dtype) is None:
            return None
        is_complex = lambda kind: jnp.issubdtype(kind, jnp.complexfloating)
        if (
            own == jax.dtypes.float0
            or np.shape(g) != np.shape(p)
            or is_complex(own) > is_complex(dtype)
        ):
            raise ValueError(
                f"{name}: the gradient of params{jax.tree_util.keystr(path)} has shape "
                f"{np.shape(g)} and dtype {own}, where the parameter has {np.shape(p)} and {dtype}."
            )
        return _seen(g, dtype)

    seen = jax.tree_util.tree_map_with_path(gradient, params, grads)
    return params, _clipped(seen), tensors_of(name, params)


def restored(like: Any, steps: Any) -> Any:
    """Updates of the parameters' dtypes: zeros for what the rule has not seen.

    Examples:
      >>> restored({"a": jnp.ones(1, jnp.bfloat16), "b": 3}, {"a": jnp.ones(1), "b": None})
      {'a': Array([1], dtype=bfloat16), 'b': Array(0, dtype=int32)}
    """

    def restore(leaf, step):
        if getattr(leaf, "dtype", None) == jax.dtypes.float0:
            return leaf
        dtype = jnp.asarray(leaf).dtype
        if step is None:
            return jnp.zeros(np.shape(leaf), dtype)
        if isinstance(step, Complex):
            return jax.lax.complex(*step).astype(dtype)
        largest = float(jnp.finfo(dtype).max) / 2
        if largest < LARGEST:  # float16: a step that it cannot hold would be infinite
            step = jnp.clip(step, -largest, largest)
        return step.astype(dtype)

    return jax.tree.map(restore, like, steps)


def _seen(leaf: Any, dtype: Any) -> Any:
    """A leaf as a rule sees it where the parameter is of this dtype."""
    if not np.size(leaf) or not jnp.issubdtype(dtype, jnp.inexact):
        return None
    array = jnp.asarray(leaf)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return Complex(array.real.astype(jnp.float32), array.imag.astype(jnp.float32))
    return array.astype(jnp.float32)


def _dtype(name: str, path: Any, leaf: Any) -> Any:
    dtype = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
    numbers = (jnp.number, jnp.bool_)
    if dtype != jax.dtypes.float0 and not any(jnp.issubdtype(dtype, kind) for kind in numbers):
        raise ValueError(
            f"{name} cannot update params{jax.tree_util.keystr(path)} of dtype {dtype}: keep it "
            "out of the parameters, or put optax.masked around the optimizer."
        )
    return dtype


def _clipped(grads: Any) -> Any:
    return jax.tree.map(lambda g: jnp.clip(g, -LARGEST, LARGEST), grads)


def _difference(grads: Any, params: Any) -> str:
    """Where two trees differ, in words."""
    ours, theirs = (
        {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(t)}
        for t in (params, grads)
    )
    for path, leaf in ours.items():
        if path not in theirs:
            return f"there is no gradient of params{path}, which has shape {np.shape(leaf)}"
    for path in theirs:
        if path not in ours:
            return f"there is a gradient for {path}, which the parameters do not have"
    return "gradients and parameters are in different containers"
