"""A rule of one tensor over a tree: tensors of equal shape as one, with a further axis.

A network of many layers repeats a few shapes. A rule is then compiled once for each of them and not
once for each tensor, which is most of the time to the first step.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

AT_ONCE = 2**18
"""Elements that are worked on at once, unless a tensor is larger: bounds temporary memory."""


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
    structure: Any = jax.tree.structure(trees[0])
    tensors = list(zip(*(structure.flatten_up_to(tree) for tree in trees), strict=True))
    groups: dict[Any, list[int]] = {}
    for i, tensor in enumerate(tensors):
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves(tensor))
        groups.setdefault((jax.tree.structure(tensor), shapes), []).append(i)
    results: list[Any] = [None] * len(tensors)
    own = rows if type(rows) is tuple else (rows,)
    apply = lambda one: rule(*one[0], *one[1])
    for (_, shapes), members in groups.items():
        if len(members) == 1:
            i = members[0]
            results[i] = apply((tensors[i], _rows_at(own, i)))
            continue
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(tensors[i] for i in members))
        given = stacked, _rows_at(own, np.array(members, np.int32))
        at_once = _at_once(len(members), math.prod(shapes[0]))
        if at_once == len(members):
            result = jax.vmap(apply)(given)
        else:
            result = jax.lax.map(apply, given, batch_size=at_once)
        for place, i in enumerate(members):
            results[i] = jax.tree.map(lambda leaf, at=place: leaf[at], result)
    return results


def _rows_at(rows: Any, index: Any) -> Any:
    return jax.tree.map(lambda row: row[index], rows)


def _at_once(count: int, size: int) -> int:
    """The largest divisor of the count that keeps to `AT_ONCE`, or 1."""
    divisors = [n for n in range(1, count + 1) if count % n == 0]
    return max(n for n in divisors if n == 1 or n * size <= AT_ONCE)
