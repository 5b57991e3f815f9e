"""A rule of one tensor over a tree: tensors of equal shape as one, with a further axis.

A network of many layers repeats a few shapes. A rule is then compiled once for each of them and not
once for each tensor, which is most of the time to the first step.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metaopt.learned_optimizers.slices import AT_ONCE, piece_of

TOGETHER = 2**22
"""Elements that are put together, unless a tensor is larger: bounds the memory that it takes."""

MANY = 8
"""Tensors of equal shape that a network trained in a moment does not have."""


def over_tensors(rule: Callable[..., Any], *trees: Any, rows: Any = ()) -> list[Any]:
    """The rule's results, in the order of the leaves.

    Args:
      rule: of one tensor: a leaf, or a subtree, of each of the trees, and its own of the rows.
      *trees: their structure is the first one's. Tensors whose leaves are all of equal shapes count
        as equal.
      rows: a tree of ``[tensors, ...]``.

    Examples:
      >>> tree = {"a": jnp.ones((2, 3)), "b": jnp.ones(2), "c": jnp.zeros((2, 3))}
      >>> [float(x) for x in over_tensors(lambda x, i: x.sum() + i, tree, rows=jnp.arange(3.0))]
      [6.0, 3.0, 2.0]
    """
    results = {}
    for members, result in _together(rule, trees, rows):
        if len(members) == 1:
            results[members[0]] = jax.tree.map(lambda x: x[0], result)
        else:
            results |= {
                m: jax.tree.map(lambda x, i=i: piece_of(x, i), result)
                for i, m in enumerate(members)
            }
    return [results[i] for i in range(len(results))]


def rows_of_tensors(rule: Callable[..., jax.Array], *trees: Any, rows: Any = ()) -> jax.Array:
    """The rule's results for all tensors as one array, ``[tensors, ...]``.

    Args:
      rule: of one tensor, to an array whose shape is the same for all.
      *trees: as for `over_tensors`.
      rows: as for `over_tensors`.

    Examples:
      >>> tree = {"a": jnp.ones((2, 3)), "b": jnp.ones(2), "c": jnp.zeros((2, 3))}
      >>> rows_of_tensors(jnp.sum, tree).tolist()
      [6.0, 2.0, 0.0]
    """
    order, results = zip(*_together(rule, trees, rows), strict=True)
    every = [result[: len(members)] for members, result in zip(order, results, strict=True)]
    return jnp.concatenate(every)[np.argsort(np.concatenate(order), kind="stable")]


def _together(rule, trees, rows) -> Iterator[tuple[list[int], Any]]:
    """Which tensors, and the rule's result for each of them, ``[tensors or more, ...]``."""
    structure: Any = jax.tree.structure(trees[0])
    tensors = list(zip(*(structure.flatten_up_to(tree) for tree in trees), strict=True))
    groups: dict[Any, list[list[int]]] = {}
    for i, tensor in enumerate(tensors):
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves(tensor))
        parts = groups.setdefault((jax.tree.structure(tensor), shapes), [[]])
        if parts[-1] and (len(parts[-1]) + 1) * math.prod(shapes[0]) > TOGETHER:
            parts.append([])
        parts[-1].append(i)
    own = rows if type(rows) is tuple else (rows,)
    at = lambda index: jax.tree.map(lambda row: row[index], own)
    apply = lambda one: rule(*one[0], *one[1])
    for (_, shapes), parts in groups.items():
        for members in parts:
            if len(members) == 1:
                result = apply((tensors[members[0]], at(members[0])))
                yield members, jax.tree.map(lambda x: x[None], result)
                continue
            batch = _batch(len(members), math.prod(shapes[0]))
            padded = members + members[-1:] * (-len(members) % batch)
            stacked = jax.tree.map(lambda *x: jnp.stack(x), *(tensors[i] for i in padded))
            given, of_batch = (stacked, at(np.array(padded, np.int32))), jax.vmap(apply)
            if len(padded) == batch:
                yield members, of_batch(given)
                continue
            batches = jax.tree.map(lambda x, n=batch: x.reshape(-1, n, *x.shape[1:]), given)
            results = jax.lax.map(of_batch, batches)
            yield members, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), results)


def _batch(count: int, size: int) -> int:
    """How many tensors of this size to work on at once.

    Of `MANY` at most half of them, in a loop: XLA would fuse the whole rule into each of the
    kernels that take one result out of all.
    """
    most = max(1, AT_ONCE // max(size, 1))
    return min(most, -(-count // 2) if count >= MANY else count)
