"""These estimators in other people's outer loops: thetas to be measured, losses to learn from."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from metaopt.config.registry import find
from metaopt.core import outer
from metaopt.core.types import Key, MetaState, PyTree, Theta, UnrolledProblem
from metaopt.estimators.options import Options


class AskTell(NamedTuple):
    """Pure functions, jitted. Losses are minimised.

    Attributes:
      init: ``key -> state``.
      ask: ``state -> (thetas, starts)``: 2N thetas, leaves ``[2N, ...]``, and bool ``[2N]``,
        whether a candidate's episode begins here; otherwise candidate i resumes its last state.
      tell: ``(state, losses [2N]) -> state``, of the thetas that `ask` gave for this state.
      theta: ``state -> theta``, where the outer loop stands.
    """

    init: Callable[[Key], MetaState]
    ask: Callable[[MetaState], tuple[Theta, jax.Array]]
    tell: Callable[[MetaState, jax.Array], MetaState]
    theta: Callable[[MetaState], Theta]


class Asked(NamedTuple):
    """The state of a problem that only notes what it is asked.

    Attributes:
      vector: float32 ``[d]``, the theta that it was unrolled under last.
      asked: int32 scalar, how often since the episode began.
    """

    vector: jax.Array
    asked: jax.Array


def as_ask_tell(
    options: Options, theta: Theta, tx: optax.GradientTransformation | None = None
) -> AskTell:
    """An evolution strategy for a loop of your own, which measures thetas itself.

    Public as `metaopt.as_ask_tell`. A window is one ask: ``NRES(particles=8, horizon=10, window=1,
    sigma=0.1)`` asks each of 16 candidates for 10 losses of consecutive pieces of an episode, all
    under one noise, while theta moves after each; the caller keeps the candidates' states. With
    ``FullES(horizon=1)`` a loss is that of a whole episode.

    Args:
      options: of a strategy in antithetic pairs: `NRES`, `PES`, `GPES`, `ESSingle` or `FullES`,
        with a window of 1.
      theta: where to start, float arrays.
      tx: the outer optimizer; ``optax.adam(0.01)`` if not given.

    Raises:
      ValueError: for options of another estimator, or a window other than 1; for a theta that is
        no float arrays, or a tx that is no transformation. `AskTell.tell` raises it for losses
        of another shape.

    Examples:
      >>> from metaopt.estimators import FullES
      >>> loop = as_ask_tell(FullES(particles=8, horizon=1, sigma=0.1), jnp.ones(2), optax.sgd(0.1))
      >>> state = loop.init(jax.random.key(0))
      >>> for _ in range(100):
      ...     thetas, starts = loop.ask(state)
      ...     state = loop.tell(state, (thetas**2).sum(axis=1))
      >>> bool((jnp.abs(loop.theta(state)) < 0.1).all())
      True
    """
    if not isinstance(options, Options):
        raise ValueError(f"options must be those of an estimator, such as NRES(), got {options!r}.")
    if options.name == "truncated_es" or not options.antithetic or options.depth != 1:
        raise ValueError(
            "as_ask_tell takes an evolution strategy that keeps both states of a pair, with a "
            f"window of one ask, such as NRES(horizon=10, window=1), got {options!r}."
        )
    vector, unravel = ravel_pytree(theta)
    if not vector.size or not jnp.issubdtype(vector.dtype, jnp.floating):
        raise ValueError(f"theta must be float arrays, at least one number of them, got {theta!r}.")
    tx = optax.adam(0.01) if tx is None else tx
    if not isinstance(tx, optax.GradientTransformation):
        raise ValueError(f"tx must be an optax transformation, such as adam(0.01), got {tx!r}.")

    def begin(vector: Theta, data: PyTree, horizon: Any, key: Key) -> Asked:
        return Asked(vector, jnp.int32(0))

    def answer(vector: Theta, state: Asked, data: PyTree) -> tuple[Asked, jax.Array]:
        """The loss that was told for this theta, which another program may round otherwise."""
        vectors, losses = data
        nearest = jnp.abs(vectors - vector).max(axis=1).argmin()
        return Asked(vector, state.asked + 1), losses[nearest]

    problem = UnrolledProblem(begin, answer, differentiable=False)
    estimator = find("estimator", options.name)(problem, **options.arguments())
    advance = outer.make_step(estimator, tx)
    nothing, count = (jnp.zeros((1, vector.size)), jnp.zeros(1)), 2 * options.particles

    def init(key: Key) -> MetaState:
        return outer.init(estimator, tx, vector, nothing, key)

    def asked(state: MetaState) -> Asked:
        """What a step from here would ask: the notes of a step that is not taken."""
        key = jax.random.fold_in(state.key, state.step)
        after = estimator.estimate(state.theta, state.estimator, nothing, key)[1]
        found = jax.tree.leaves(after, is_leaf=lambda node: isinstance(node, Asked))
        (notes,) = (node for node in found if isinstance(node, Asked))
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), notes)

    def ask(state: MetaState) -> tuple[Theta, jax.Array]:
        notes = asked(state)
        return jax.vmap(unravel)(notes.vector), notes.asked == 1

    def tell(state: MetaState, losses: jax.Array) -> MetaState:
        if jnp.shape(losses) != (count,):
            raise ValueError(
                f"losses must be [{count}], one for each theta, got {jnp.shape(losses)}."
            )
        return advance(state, (asked(state).vector, losses))[0]

    jitted, standing = jax.jit(tell), lambda state: unravel(state.theta)
    told = lambda state, losses: jitted(state, jnp.asarray(losses, jnp.float32))  # also a list
    return AskTell(jax.jit(init), jax.jit(ask), told, standing)
