"""How large trees are: of arrays, or of their `jax.ShapeDtypeStruct`s."""

import math

import jax

from metaopt.core.types import PyTree


def count_of(tree: PyTree) -> int:
    """Numbers in a tree's arrays, such as the d of a theta.

    Examples:
      >>> import jax.numpy as jnp
      >>> count_of({"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)})
      9
    """
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def bytes_of(tree: PyTree) -> int:
    """Bytes of a tree's arrays; a random key counts as the numbers that it is made of.

    Examples:
      >>> import jax.numpy as jnp
      >>> bytes_of(jnp.zeros((2, 3)))
      24
    """
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
