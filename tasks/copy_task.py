"""An LSTM that learns to copy strings of bits online, from strings that grow as it succeeds.

    in      begin  b1     b2     ...  bL     repeat  blank  ...  blank
    out     blank  blank  blank  ...  blank  b1      b2     ...  end

theta is the LSTM. Every string that is copied at less than 0.15 bits a bit counts, and after so
many the length L grows by one, for all particles at once: the count is a `RunningStatistics` within
theta, measured and not learned. (Tallec and Ollivier 2017, arXiv 1702.05043; Vicol 2023, ES-Single,
arXiv 2304.11153, where a moving average of the bits decides and not a count.)
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from metaopt import Metric, Observations, PyTree, RunningStatistics, UnrolledProblem
from metaopt.tasks.supervised import positive

BEGIN, REPEAT, BLANK = 2, 3, 4
"""What can come in beside the bits 0 and 1."""
INPUTS, OUTPUTS = 5, 4
OUT_BLANK, OUT_END = 2, 3
SOLVED = 0.15
"""Bits a bit."""


class CopyState(NamedTuple):
    """A string in progress.

    Attributes:
      hidden, cell: float32 ``[units]``, of the LSTM.
      bits: float32 scalar, of the string so far.
      length: int32 scalar, of the string.
      step: int32 scalar, within the string.
      strings: int32 scalar, copied in this episode.
      key: the episode's.
      solved: the strings copied well.
    """

    hidden: jax.Array
    cell: jax.Array
    bits: jax.Array
    length: jax.Array
    step: jax.Array
    strings: jax.Array
    key: jax.Array
    solved: Observations


def copy_task(*, units: int = 100, longest: int = 100, strings: int = 1000) -> UnrolledProblem:
    """Copy bits through an LSTM; the loss of every step is cross-entropy in bits.

    With 100 units theta has 42,804 numbers. The test metric is the length that was reached.

    Args:
      units: of the LSTM.
      longest: the length at which growing ends.
      strings: so many have to be copied well at each length.

    Raises:
      ValueError: for a value that is not a positive integer.

    Examples:
      >>> problem = copy_task()
      >>> theta = problem.init_theta(jax.random.key(0))
      >>> sum(leaf.size for leaf in jax.tree.leaves(theta["lstm"]))
      42804
      >>> int(length_of(theta["solved"], longest=100, strings=1000))
      1
    """
    positive(units=units, longest=longest, strings=strings)

    def init_theta(key):
        gates, head = jax.random.split(key)
        bound = units**-0.5
        draw = lambda key, *shape: jax.random.uniform(
            key, shape, jnp.float32, minval=-bound, maxval=bound
        )
        bias = jnp.zeros(4 * units).at[units : 2 * units].set(1.0)  # forgets little at first
        lstm = {
            "gates": {"kernel": draw(gates, INPUTS + units, 4 * units), "bias": bias},
            "head": {"kernel": draw(head, units, OUTPUTS), "bias": jnp.zeros(OUTPUTS)},
        }
        return {"lstm": lstm, "solved": RunningStatistics.fresh(())}

    def length(theta):
        return length_of(theta["solved"], longest=longest, strings=strings)

    def init(theta, data, horizon, key):
        nothing = jnp.zeros(units)
        return CopyState(
            nothing, nothing, jnp.float32(0), length(theta), jnp.int32(0), jnp.int32(0), key,
            Observations.none(()),
        )  # fmt: skip

    def step(theta, state, data):
        string_key = jax.random.fold_in(state.key, state.strings)
        symbol, wanted, is_bit = tokens(string_key, state.length, state.step)
        hidden, cell, logits = lstm_step(theta["lstm"], state.hidden, state.cell, symbol)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, wanted) / jnp.log(2.0)
        bits = state.bits + jnp.where(is_bit, loss, 0.0)

        ends = state.step == 2 * state.length + 1
        of_length = state.length == length(theta)  # none that began before it grew
        is_solved = ends & of_length & (bits / state.length.astype(jnp.float32) < SOLVED)
        seen = state.solved.add(theta["solved"], jnp.float32(1))
        solved = jax.tree.map(lambda a, b: jnp.where(is_solved, a, b), seen, state.solved)
        fresh = lambda new, old: jnp.where(ends, new, old)
        state = CopyState(
            hidden=fresh(0.0, hidden),
            cell=fresh(0.0, cell),
            bits=fresh(0.0, bits),
            length=fresh(length(theta), state.length),
            step=fresh(0, state.step + 1),
            strings=state.strings + ends.astype(jnp.int32),
            key=state.key,
            solved=solved,
        )
        return state, loss

    return UnrolledProblem(
        init,
        step,
        init_theta=init_theta,
        test_loss=lambda theta, data, key: length(theta).astype(jnp.float32),
        test_metric=Metric("length", higher_is_better=True),
    )


def length_of(solved: RunningStatistics, *, longest: int, strings: int) -> jax.Array:
    """The length of strings after so many were solved: int32 scalar."""
    grown = jnp.floor(solved.samples / strings).astype(jnp.int32)
    return jnp.minimum(1 + grown, longest)


def tokens(
    key: jax.Array, length: jax.Array, step: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """A string's input and output at a step, int32 scalars; and whether that output is a bit.

    Examples:
      >>> at = lambda t: [int(x) for x in tokens(jax.random.key(0), jnp.int32(2), jnp.int32(t))]
      >>> [at(t)[0] in (0, 1) for t in range(6)], [at(t)[2] for t in range(6)]
      ([False, True, True, False, False, False], [0, 0, 0, 1, 1, 0])
      >>> at(1)[0] == at(3)[1] and at(2)[0] == at(4)[1]
      True
    """
    bit = lambda i: jax.random.bernoulli(jax.random.fold_in(key, i)).astype(jnp.int32)
    reads = (step >= 1) & (step <= length)
    writes = (step > length) & (step <= 2 * length)
    sign = jnp.where(step == 0, BEGIN, jnp.where(step == length + 1, REPEAT, BLANK))
    symbol = jnp.where(reads, bit(step), sign)
    other = jnp.where(step == 2 * length + 1, OUT_END, OUT_BLANK)
    return symbol, jnp.where(writes, bit(step - length), other), writes


def lstm_step(
    theta: PyTree, hidden: jax.Array, cell: jax.Array, symbol: jax.Array
) -> tuple[Any, Any, Any]:
    """One step of an LSTM (Hochreiter and Schmidhuber 1997) and its logits."""
    x = jnp.concatenate([jax.nn.one_hot(symbol, INPUTS, dtype=jnp.float32), hidden])
    gates = x @ theta["gates"]["kernel"] + theta["gates"]["bias"]
    i, f, g, o = jnp.split(gates, 4)
    cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
    hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
    return hidden, cell, hidden @ theta["head"]["kernel"] + theta["head"]["bias"]
