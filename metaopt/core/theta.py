"""Theta as a flat dict: how it is written to files and checked when it is read."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metaopt.core.errors import UserError
from metaopt.core.types import Theta


def flatten_theta(theta: Theta) -> dict[str, np.ndarray]:
    """Theta's leaves by path, ``"layer_0/kernel"``; ``"theta"`` where it is a single array.

    Examples:
      >>> flatten_theta({"layer_0": {"bias": jnp.zeros(2)}})
      {'layer_0/bias': array([0., 0.], dtype=float32)}
    """
    leaves, _ = jax.tree.flatten_with_path(theta)
    return {_path(keys): np.asarray(leaf) for keys, leaf in leaves}


def theta_paths(theta: Theta) -> list[str]:
    """The paths of theta's leaves, or of its `jax.ShapeDtypeStruct`s, in their order.

    Examples:
      >>> theta_paths({"layer_0": {"bias": jnp.zeros(2)}})
      ['layer_0/bias']
    """
    return [_path(keys) for keys, _ in jax.tree.flatten_with_path(theta)[0]]


def unflatten_theta(flat: Mapping[str, jax.Array | np.ndarray], target: Theta) -> Theta:
    """The tree that ``target`` describes, with the values of ``flat``.

    Args:
      flat: ``{path: array}``.
      target: theta or its `jax.ShapeDtypeStruct`s, as `jax.eval_shape` gives them.

    Raises:
      UserError: naming every missing, extra or misshapen entry.

    Examples:
      >>> unflatten_theta({"a": np.zeros(2)}, {"b": jnp.zeros(2)})
      Traceback (most recent call last):
      ...
      metaopt.core.errors.UserError: theta does not fit its optimizer: b is missing; ...
    """
    leaves, structure = jax.tree.flatten_with_path(target)
    expected = {_path(keys): leaf for keys, leaf in leaves}
    faults = [f"{path} is missing" for path in expected if path not in flat]
    faults += [f"{path} is not one of its leaves" for path in flat if path not in expected]
    faults += [
        f"{path} has shape {np.shape(flat[path])} where {leaf.shape} belongs"
        for path, leaf in expected.items()
        if path in flat and np.shape(flat[path]) != leaf.shape
    ]
    if faults:
        raise UserError(f"theta does not fit its optimizer: {'; '.join(faults)}.")
    values = [jnp.asarray(flat[path], leaf.dtype) for path, leaf in expected.items()]
    return jax.tree.unflatten(structure, values)


def nested_theta(flat: Mapping[str, np.ndarray]) -> Theta:
    """Nested dicts from a flat one, where it is not known what tree it came from.

    Examples:
      >>> nested_theta({"layer_0/bias": np.zeros(2, np.float32)})
      {'layer_0': {'bias': Array([0., 0.], dtype=float32)}}
    """
    if list(flat) == ["theta"]:
        return jnp.asarray(flat["theta"])
    tree: dict[str, Any] = {}
    for path, array in flat.items():
        *outer, last = path.split("/")
        branch = tree
        for name in outer:
            branch = branch.setdefault(name, {})
        branch[last] = jnp.asarray(array, array.dtype)
    return tree


def _path(keys) -> str:
    return jax.tree_util.keystr(keys, simple=True, separator="/") or "theta"
