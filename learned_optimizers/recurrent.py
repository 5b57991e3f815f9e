"""The LSTM cell of the recurrent rules, in the convention of public checkpoints."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from metaopt.learned_optimizers.features import kernel_init


class Carry(NamedTuple):
    """What an LSTM carries: ``hidden`` and ``cell``, each ``[rows, width]`` float32."""

    hidden: jax.Array
    cell: jax.Array


class LSTMCell(nn.Module):
    """One step of an LSTM, ``(carry, inputs [rows, F]) -> carry``; its output is ``carry.hidden``.

        i, g, f, o = [inputs, hidden] @ kernel + bias
        cell   <- sigmoid(f + 1) cell + sigmoid(i) tanh(g)
        hidden <- sigmoid(o) tanh(cell)

    Parameters ``kernel [F + width, 4 width]`` and ``bias [4 width]``.

    Attributes:
      width: of the hidden state.
    """

    width: int

    @nn.compact
    def __call__(self, carry: Carry, inputs: jax.Array) -> Carry:
        joined = jnp.concatenate([inputs, carry.hidden], axis=-1)
        gates = nn.Dense(4 * self.width, kernel_init=kernel_init, name="gates")(joined)
        i, g, f, o = jnp.split(gates, 4, axis=-1)
        cell = nn.sigmoid(f + 1) * carry.cell + nn.sigmoid(i) * jnp.tanh(g)
        return Carry(nn.sigmoid(o) * jnp.tanh(cell), cell)


def zero_start(width: int) -> dict[str, jax.Array]:
    """Where a meta-learned initial state starts: ``hidden`` and ``cell``, each ``[1, width]``."""
    return {"hidden": jnp.zeros((1, width)), "cell": jnp.zeros((1, width))}


def start_carry(start: dict[str, jax.Array], rows: int) -> Carry:
    """The same initial state for every row.

    Examples:
      >>> start_carry(zero_start(8), 3).hidden.shape
      (3, 8)
    """
    repeat = lambda state: jnp.broadcast_to(state, (rows, state.shape[1]))
    return Carry(repeat(start["hidden"]), repeat(start["cell"]))


def log_magnitude(x: jax.Array) -> jax.Array:
    """log(1e-8 + |x|), clipped to ±5 and halved: a feature of a number of any scale.

    Examples:
      >>> float(log_magnitude(jnp.float32(0.0)))
      -2.5
    """
    return 0.5 * jnp.clip(jnp.log(1e-8 + jnp.abs(x)), -5, 5)
