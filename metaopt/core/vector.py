"""Theta as one vector, outside of the problem's own functions.

A run draws noise, sums directions and updates theta as a whole: one array instead of one a tensor
makes a program with half the kernels, which compiles in half the time. Only the problem's functions
see the tree that theta is to its user.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
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

    Leaves of several dtypes share the one that they promote to, and get theirs back. With a
    `metaopt.RunningStatistics` in theta it is a pair: the vector of all else, and the statistics.

    Examples:
      >>> import jax.numpy as jnp
      >>> vector = vector_of(lambda key: {"a": jnp.ones(2), "b": jnp.zeros((1, 2))})
      >>> vector.unravel(jnp.arange(4.0))["b"].tolist()
      [[2.0, 3.0]]
    """
    shapes = jax.eval_shape(init_theta, jax.random.key(0))
    zeros = jax.tree.map(lambda leaf: jax.numpy.zeros(leaf.shape, leaf.dtype), shapes)
    nodes, structure = jax.tree.flatten(zeros, is_leaf=is_statistics)
    places = [i for i, node in enumerate(nodes) if is_statistics(node)]
    if not places:
        return Vector(lambda theta: ravel_pytree(theta)[0], ravel_pytree(zeros)[1])
    learned = lambda nodes: [node for node in nodes if not is_statistics(node)]
    unravel_learned = ravel_pytree(learned(nodes))[1]

    def ravel(theta: Theta) -> Theta:
        nodes = jax.tree.leaves(theta, is_leaf=is_statistics)
        return ravel_pytree(learned(nodes))[0], *(nodes[i] for i in places)

    def unravel(parts: Theta) -> Theta:
        vector, *statistics = parts
        nodes = unravel_learned(vector)
        for i, node in zip(places, statistics, strict=True):
            nodes.insert(i, node)
        return jax.tree.unflatten(structure, nodes)

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
