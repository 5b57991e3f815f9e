"""A function of many entries, a chunk of them at a time: what is in work at once fits the cache.

On a CPU a large `vmap` sends every intermediate result through memory; entries of a few hundred
kilobytes run several times faster a few at a time. An accelerator takes what its memory holds.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from metaopt.core.sizes import bytes_of
from metaopt.core.types import PyTree

CACHE_BYTES = 2**21
"""Bytes of entries that are in work at once on a CPU, about: of the order of a core's cache."""

REREAD = 10
"""Bytes that XLA counts as accessed, before it fuses anything, for each that is in work at once: an
estimate, by sweeps of five networks (perceptrons, convolutions, recurrent, attention), one core."""

MEMORY_SHARE = 0.7
"""Of an accelerator's free memory that entries in work may take."""


def in_chunks(
    function: Callable[[Any], PyTree],
    entries: PyTree,
    *,
    bytes_each: int,
    at_once: int | None = None,
) -> PyTree:
    """``vmap(function)(entries)``, the same up to rounding, in chunks where that is faster.

    Args:
      function: of one entry.
      entries: every leaf ``[n, ...]``.
      bytes_each: what an entry keeps in work.
      at_once: entries in a chunk, at most; what fits the cache on a CPU, all elsewhere if ``None``.

    Examples:
      >>> in_chunks(lambda x: x.sum(), jnp.ones((6, 2)), bytes_each=CACHE_BYTES // 2).tolist()
      [2.0, 2.0, 2.0, 2.0, 2.0, 2.0]
    """
    count = len(jax.tree.leaves(entries)[0])
    at_once = _at_once(count, bytes_each, at_once)
    if at_once >= count:
        return jax.vmap(function)(entries)
    return jax.lax.map(function, entries, batch_size=at_once if at_once > 1 else None)


def advance_in_chunks(
    function: Callable[[Any], tuple[PyTree, PyTree]],
    entries: PyTree,
    *,
    bytes_each: int,
    at_once: int | None = None,
) -> tuple[PyTree, PyTree]:
    """`in_chunks` of a function that returns its entry's successor and something beside.

    Successors are written where the entries were, while these are still in the cache.

    Examples:
      >>> double = lambda x: (2 * x, x)
      >>> advance_in_chunks(double, jnp.arange(3.0), bytes_each=CACHE_BYTES)
      (Array([0., 2., 4.], dtype=float32), Array([0., 1., 2.], dtype=float32))
    """
    count = len(jax.tree.leaves(entries)[0])
    at_once = _at_once(count, bytes_each, at_once)
    if at_once >= count:
        return jax.vmap(function)(entries)

    def chunk(entries, start, size=at_once):
        take = lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, size)
        put = lambda leaf, new: jax.lax.dynamic_update_slice_in_dim(leaf, new, start, 0)
        successors, beside = jax.vmap(function)(jax.tree.map(take, entries))
        return jax.tree.map(put, entries, successors), beside

    rest = count % at_once
    entries, beside = jax.lax.scan(chunk, entries, jnp.arange(0, count - rest, at_once))
    beside = jax.tree.map(lambda leaf: leaf.reshape(count - rest, *leaf.shape[2:]), beside)
    if rest:
        entries, last = chunk(entries, count - rest, rest)
        beside = jax.tree.map(lambda *parts: jnp.concatenate(parts), beside, last)
    return entries, beside


def _at_once(count: int, bytes_each: int, at_once: int | None) -> int:
    if at_once is not None:
        return at_once
    return chunk_size(count, bytes_each) if jax.default_backend() == "cpu" else count


def affordable(
    function: Callable[..., PyTree], shared: tuple, entries: PyTree, free: int | None = None
) -> int | None:
    """How many entries an accelerator's free memory holds in work, measured on one.

    Args:
      function: ``(*shared, entry) -> result``.
      shared: its first arguments, arrays or tracers.
      entries: every leaf ``[n, ...]``.
      free: bytes; what the device says it has where it is ``None``.

    Returns:
      A number, 1 at least; ``None`` where the device does not say what it has, or all surely fit.

    Examples:
      >>> affordable(lambda x: jnp.outer(x, x) @ x[:, None], (), jnp.ones((8, 300)), free=900_000)
      1
    """
    free = _free_memory() if free is None else free
    count = len(jax.tree.leaves(entries)[0])
    if free is None or 100 * bytes_of(entries) < free:
        return None
    shape = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    entry = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), entries)
    one = jax.jit(function).lower(*jax.tree.map(shape, shared), entry).compile()
    used: Any = one.memory_analysis()
    each = used.temp_size_in_bytes + used.output_size_in_bytes
    return min(count, max(1, int(MEMORY_SHARE * free / max(1, each))))


def bytes_in_work(function: Callable[..., PyTree], *arguments: PyTree) -> int:
    """About what a function's intermediate results take at once, by XLA's count of its accesses.

    Args:
      function: of these arguments.
      arguments: arrays, tracers or their shapes.

    Examples:
      >>> bytes_in_work(lambda x: x @ x, jnp.ones((256, 256))) == 3 * 256**2 * 4 // REREAD
      True
    """
    shape = lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf))
    lowered = jax.jit(function).lower(*jax.tree.map(shape, arguments))
    return int((lowered.cost_analysis() or {}).get("bytes accessed", 0)) // REREAD


def _free_memory() -> int | None:
    """Bytes that the device's allocator may still hand out; ``None`` where it does not say."""
    stats = jax.local_devices()[0].memory_stats() or {}
    limit, used = stats.get("bytes_limit"), stats.get("bytes_in_use", 0)
    return None if limit is None else limit - used


def chunk_size(count: int, bytes_each: int) -> int:
    """The largest divisor of ``count`` that keeps a chunk within `CACHE_BYTES`; 1 at least.

    Examples:
      >>> chunk_size(100, CACHE_BYTES // 7), chunk_size(100, 10 * CACHE_BYTES)
      (5, 1)
    """
    most = max(1, CACHE_BYTES // max(1, bytes_each))
    return max(n for n in range(1, count + 1) if count % n == 0 and n <= most)
