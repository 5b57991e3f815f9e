"""Theta as one vector, outside of the problem's own functions.

A run draws noise, sums directions and updates theta as a whole: one array instead of one a tensor
makes a program with a quarter fewer kernels, and compiling goes by their number. Only the
problem's functions see the tree that theta is to its user.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from metaopt.core.running import is_statistics
from metaopt.core.types import Key, Theta, UnrolledProblem


class Vector(NamedTuple):
    """The way from theta to a vector ``[d]`` and back.

    Attributes:
      ravel: ``theta -> vector``.
      unravel: ``vector -> theta``.
    """

    ravel: Callable[[Theta], Theta]
    unravel: Callable[[Theta], Theta]


UNCHANGED = Vector(lambda theta: theta, lambda theta: theta)
"""Theta stays the tree that it is."""


def vector_of(init_theta: Callable[[Key], Theta]) -> Vector:
    """The vector of a theta like those that ``init_theta`` makes.

    Leaves of several dtypes share the one that they promote to, and get theirs back. A
    `RunningStatistics` is no parameter and stays beside the vector: ``(vector, statistics)``.

    Examples:
      >>> vector = vector_of(lambda key: {"a": jnp.ones(2), "b": jnp.zeros((1, 2))})
      >>> vector.unravel(jnp.arange(4.0))["b"].tolist()
      [[2.0, 3.0]]
    """
    shapes = jax.eval_shape(init_theta, jax.random.key(0))
    nodes, structure = jax.tree.flatten(shapes, is_leaf=is_statistics)
    zeros = lambda leaf: jnp.zeros(leaf.shape, leaf.dtype)
    unravel_leaves = ravel_pytree([zeros(leaf) for leaf in nodes if not is_statistics(leaf)])[1]

    def ravel(theta: Theta) -> Theta:
        given = jax.tree.leaves(theta, is_leaf=is_statistics)
        beside = [node for node in given if is_statistics(node)]
        vector = ravel_pytree([leaf for leaf in given if not is_statistics(leaf)])[0]
        return (vector, *beside) if beside else vector

    def unravel(vector: Theta) -> Theta:
        vector, *beside = vector if isinstance(vector, tuple) else (vector,)
        leaves, rest = iter(unravel_leaves(vector)), iter(beside)
        merged = [next(rest) if is_statistics(node) else next(leaves) for node in nodes]
        return jax.tree.unflatten(structure, merged)

    return Vector(ravel, unravel)


def on_vector(problem: UnrolledProblem, vector: Vector) -> UnrolledProblem:
    """The problem with the vector as its theta; what estimators need of it, and nothing else."""
    return problem._replace(
        init=lambda theta, *rest: problem.init(vector.unravel(theta), *rest),
        step=lambda theta, *rest: problem.step(vector.unravel(theta), *rest),
        init_theta=lambda key: vector.ravel(problem.init_theta(key)),
    )


def on_tree(tx: optax.GradientTransformation, vector: Vector) -> optax.GradientTransformation:
    """An outer optimizer that sees the tree: one that treats tensors or paths differently."""
    tx = optax.with_extra_args_support(tx)

    def update(updates, state, params=None, **extra):
        tree = None if params is None else vector.unravel(params)
        updates, state = tx.update(vector.unravel(updates), state, tree, **extra)
        return vector.ravel(updates), state

    return optax.GradientTransformationExtraArgs(
        lambda params: tx.init(vector.unravel(params)), update
    )
