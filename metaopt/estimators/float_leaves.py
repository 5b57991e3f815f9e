"""What can be differentiated: the float leaves of a state that also holds counters and keys."""

import jax
import jax.numpy as jnp

from metaopt.core.errors import UserError
from metaopt.core.types import PyTree, UnrolledProblem

FloatLeaves = list[jax.Array]
"""The float leaves of a state, in the order of its leaves; their tangents look the same."""


def float_leaves(state: PyTree) -> FloatLeaves:
    """The float leaves of a state.

    Examples:
      >>> float_leaves({"key": jax.random.key(0), "step": jnp.int32(3), "x": jnp.ones(2)})
      [Array([1., 1.], dtype=float32)]
    """
    return [leaf for leaf in jax.tree.leaves(state) if _is_float(leaf)]


def with_float_leaves(state: PyTree, leaves: FloatLeaves) -> PyTree:
    """A state with other float leaves.

    Examples:
      >>> with_float_leaves({"step": jnp.int32(3), "x": jnp.ones(2)}, [jnp.zeros(2)])["x"].tolist()
      [0.0, 0.0]
    """
    new = iter(leaves)
    return jax.tree.map(lambda leaf: next(new) if _is_float(leaf) else leaf, state)


def require_differentiable(problem: UnrolledProblem, estimator: str) -> None:
    """Refuses a problem without a useful derivative.

    Raises:
      ValueError: where it says ``differentiable=False``.
      UserError: where its episodes can end early: when they do is a step function of theta.
    """
    if problem.done is not None:
        raise UserError(
            f"{estimator} differentiates the problem, and derivatives do not see that theta moves "
            "the end of an episode (the problem has done): use an ES estimator, such as nres."
        )
    if not problem.differentiable:
        raise ValueError(
            f"{estimator} differentiates the problem, and this one says differentiable=False: "
            "use an ES estimator, such as nres."
        )


def _is_float(leaf: jax.Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating)
