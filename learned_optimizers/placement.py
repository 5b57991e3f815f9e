"""Where a rule's state lies, and what it keeps from one update to the next.

Explicit mesh axes (`jax.sharding.AxisType.Explicit`) make shardings a part of an array's type, and
operations such as a reshape have to spell them out. A rule runs as if they were automatic: its
updates are sharded as the gradients, its new state as the old one.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec


def own_buffers(state: Any, tensors: Any) -> Any:
    """A new state, every leaf a buffer of its own and of a strong dtype.

    On a mesh of the parameters' it lies as a whole, what is not sharded replicated; within
    `jax.shard_map` floats vary over the axes that the parameters vary over.

    Args:
      state: what a rule's init has made; it may hold one array twice, or one of theta's.
      tensors: what the rule was given.
    """
    mesh, axes = _mesh_of(tensors), _manual_axes(tensors)

    def own(leaf):
        leaf = jnp.array(leaf, getattr(leaf, "dtype", None), copy=True)
        leaf = leaf.astype(leaf.dtype)  # strong
        if mesh is not None and _mesh_of(leaf) is None:
            put = jax.sharding.reshard if isinstance(mesh, AbstractMesh) else jax.device_put
            leaf = put(leaf, NamedSharding(mesh, PartitionSpec()))
        floats = jnp.issubdtype(leaf.dtype, jnp.floating)
        missing = tuple(axes - _manual_axes(leaf)) if floats else ()
        return jax.lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(own, state)


def in_auto_mode(
    update: Callable[..., tuple[Any, Any]], grads: Any, state: Any, params: Any, value: Any
) -> tuple[Any, Any]:
    """``update(grads, state, params, value)``, with a new state of the old one's types."""

    def settled(grads, state, params, value):
        steps, after = update(grads, state, params, value)
        return steps, jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), after, state)

    arguments = (grads, state, params, value)
    meshes = {m for leaf in jax.tree.leaves(arguments) if (m := _explicit_mesh(leaf)) is not None}
    if not meshes:
        return settled(*arguments)
    mesh = meshes.pop()

    def sharding(leaf):
        own = jax.typeof(leaf).sharding
        return own if _explicit_mesh(leaf) is not None else NamedSharding(mesh, PartitionSpec())

    shardings = jax.tree.map(sharding, (grads, state))
    return jax.sharding.auto_axes(settled, out_sharding=shardings)(*arguments)


def _mesh_of(tree: Any) -> Any | None:
    """The mesh of several devices on which some leaf lies, as far as that is known."""
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, jax.core.Tracer):
            mesh = _explicit_mesh(leaf)
        else:
            mesh = getattr(leaf.sharding, "mesh", None)
        if mesh is not None and mesh.size > 1:
            return mesh
    return None


def _explicit_mesh(leaf: Any) -> Any | None:
    mesh = jax.typeof(leaf).sharding.mesh
    return mesh if AxisType.Explicit in (mesh.axis_types or ()) else None


def _manual_axes(tree: Any) -> frozenset[str]:
    """The axes of a `jax.shard_map` that some leaf varies over."""
    of = lambda leaf: jax.typeof(leaf).manual_axis_type.varying
    return frozenset().union(*(of(leaf) for leaf in jax.tree.leaves(tree)))
