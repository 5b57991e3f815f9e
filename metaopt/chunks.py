"""A function of many entries, a chunk of them at a time: what is in work at once fits the cache.

On a CPU a large `vmap` sends every intermediate result through memory; entries of a few hundred
kilobytes run several times faster a few at a time. An accelerator takes all at once.
"""

from collections.abc import Callable
from typing import Any

import jax

from metaopt.types import PyTree

CACHE_BYTES = 2**21
"""Bytes of entries that are in work at once on a CPU, about: of the order of a core's cache."""


def in_chunks(function: Callable[[Any], PyTree], entries: PyTree, *, bytes_each: int) -> PyTree:
    """``vmap(function)(entries)``, the same up to rounding, in chunks where that is faster.

    Args:
      function: of one entry.
      entries: every leaf ``[n, ...]``.
      bytes_each: what an entry keeps in work.

    Example:
      >>> import jax.numpy as jnp
      >>> in_chunks(lambda x: x.sum(), jnp.ones((6, 2)), bytes_each=CACHE_BYTES // 2).tolist()
      [2.0, 2.0, 2.0, 2.0, 2.0, 2.0]
    """
    count = len(jax.tree.leaves(entries)[0])
    chunk = chunk_size(count, bytes_each) if jax.default_backend() == "cpu" else count
    if chunk == count:
        return jax.vmap(function)(entries)
    return jax.lax.map(function, entries, batch_size=chunk if chunk > 1 else None)


def chunk_size(count: int, bytes_each: int) -> int:
    """The largest divisor of ``count`` that keeps a chunk within `CACHE_BYTES`; 1 at least.

    Example:
      >>> chunk_size(100, CACHE_BYTES // 7), chunk_size(100, 10 * CACHE_BYTES)
      (5, 1)
    """
    most = max(1, CACHE_BYTES // max(1, bytes_each))
    return max(n for n in range(1, count + 1) if count % n == 0 and n <= most)


def bytes_of(tree: PyTree) -> int:
    """Bytes of a tree's arrays, or of their shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
