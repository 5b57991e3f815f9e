"""A run's state with another number of particles. Pure.

Particles that stay continue their episodes to the bit. New ones begin episodes of their own at the
present theta and are unrolled to phases that those there are leave free, so that the estimate is
unbiased at once. Their keys follow from the outer step and their index: done again from the same
checkpoint, it has the same outcome.
"""

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from metaopt.core.types import GradientEstimator, MetaState, PyTree

KEY_OF_NEW = 0x6E6577
"""Folded into the outer step's key, into which the estimate folds particles' indices."""


def resize(estimator: GradientEstimator, state: MetaState, data: PyTree) -> MetaState:
    """The state with as many particles as the estimator has.

    Args:
      estimator: with the new number.
      state: with another one.
      data: the problem's.

    Raises:
      ValueError: where the estimator cannot say how.

    Examples:
      >>> import optax
      >>> from metaopt import outer
      >>> from metaopt.estimators import nres
      >>> from metaopt.tasks import PROBLEMS
      >>> problem = PROBLEMS["linear_recursion"]()
      >>> few, more = (nres(problem, particles=n, horizon=8, window=2, sigma=0.1) for n in (4, 6))
      >>> theta = problem.init_theta(jax.random.key(0))
      >>> state = outer.init(few, optax.sgd(0.1), theta, (), jax.random.key(1))
      >>> particles_of(resize(more, state, ()))
      6
    """
    if estimator.resize is None:
        raise ValueError("the estimator has no resize: the number of particles cannot be changed.")
    key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), KEY_OF_NEW)
    return state._replace(estimator=estimator.resize(state.theta, state.estimator, data, key))


def particles_of(state: MetaState) -> int:
    """How many particles a state, or its shapes, has."""
    return jax.tree.leaves(state.estimator)[0].shape[0]


def like_with(like: MetaState, particles: int) -> MetaState:
    """Shapes and shardings of a state with another number of particles.

    Args:
      like: `jax.ShapeDtypeStruct`s with shardings over a mesh.
      particles: how many; where the devices do not divide them all are on every device.
    """

    def leaf(old):
        spread = old.sharding
        whole = NamedSharding(spread.mesh, P())
        return jax.ShapeDtypeStruct(
            (particles, *old.shape[1:]),
            old.dtype,
            sharding=whole if particles % spread.mesh.size else spread,
        )

    return like._replace(estimator=jax.tree.map(leaf, like.estimator))
