"""Particles over devices: one mesh axis, one all-reduce of sums an outer step."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from metaopt.core.errors import UserError
from metaopt.core.types import MetaState, PyTree

AXIS = "particles"


def particle_mesh(devices: int) -> Mesh:
    """A mesh of ``devices`` devices along the axis ``"particles"``, the first ones of each process.

    Raises:
      UserError: where there are fewer devices, or not as many of each process.

    Examples:
      >>> particle_mesh(1).shape["particles"]
      1
    """
    processes = jax.process_count()
    if not 1 <= devices <= jax.device_count() or devices % processes:
        multiple = f"a multiple of {processes} processes, " if processes > 1 else ""
        raise UserError(f"devices must be {multiple}1 to {jax.device_count()}, got {devices}.")
    local = [jax.local_devices(process_index=process) for process in range(processes)]
    available = [device for own in local for device in own[: devices // processes]]
    return jax.make_mesh((devices,), (AXIS,), axis_types=(AxisType.Auto,), devices=available)


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """Puts a tree whole on every device of the mesh; every process has to have the same one."""
    everywhere = NamedSharding(mesh, P())

    def put(leaf):
        if jax.dtypes.issubdtype(getattr(leaf, "dtype", None), jax.dtypes.prng_key):
            data = put(jax.random.key_data(leaf))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        array = np.asarray(jnp.asarray(leaf))
        return jax.make_array_from_callback(array.shape, everywhere, lambda index: array[index])

    return jax.tree.map(put, tree)


def state_shardings(state: MetaState, mesh: Mesh) -> MetaState:
    """Where each leaf of a run's state lives: particles spread, everything else on every device.

    Args:
      state: a `MetaState`, or its shapes.
      mesh: the mesh.
    """
    whole, spread = NamedSharding(mesh, P()), NamedSharding(mesh, P(AXIS))
    everywhere = jax.tree.map(lambda leaf: whole, state)
    return everywhere._replace(estimator=jax.tree.map(lambda leaf: spread, state.estimator))


def over_particles(local: Callable[..., tuple[PyTree, PyTree]], mesh: Mesh | None) -> Callable:
    """Runs a function of some particles on every device's share of them.

    Args:
      local: ``(replicated, particles) -> (sums, particles)``. Every leaf of ``particles`` has them
        as axis 0; ``sums`` are sums over them.
      mesh: a mesh with the axis ``"particles"``, whose size divides their number; ``None``, or one
        of a single device, for whatever device the arrays are on.

    Returns:
      The same function of all particles: the shares' ``sums`` added up, the particles in place.
    """
    if mesh is None or mesh.size == 1:  # other people's code may not work within jax.shard_map
        return local

    def share(replicated, particles):
        sums, particles = local(replicated, particles)
        return jax.lax.psum(sums, AXIS), particles

    # Unchecked, because a problem's state may begin as a constant, the same on every device, and
    # differ afterwards, which the check refuses as a scan's carry; and because a gradient with
    # respect to theta taken in here is each particle's own, which the check would sum over devices.
    specs = (P(), P(AXIS))
    return jax.shard_map(share, mesh=mesh, in_specs=specs, out_specs=specs, check_vma=False)


def gather_particles(tree: PyTree, mesh: Mesh | None) -> PyTree:
    """Inside a share of `over_particles`: the leaves of all particles ``[N, ...]``, in order."""
    if mesh is None or mesh.size == 1:
        return tree
    return jax.lax.all_gather(tree, AXIS, axis=0, tiled=True)
