"""The per-coordinate LSTM optimizer (Andrychowicz et al. 2016, arXiv 1606.04474).

A two-layer LSTM, shared by all elements of all tensors, with a state for each, reads an element's
gradient and writes its update. Gradients of all sizes are made readable first (appendix A):

    (log|g| / 10, sign g)   where |g| >= e^-10,   else   (-1, e^10 g)
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from metaopt import LearnedOptimizer
from metaopt.learned_optimizers.arguments import valid_number
from metaopt.learned_optimizers.features import (
    apply,
    kernel_init,
    validate_widths,
    zeros_like,
)
from metaopt.learned_optimizers.recurrent import Carry, LSTMCell
from metaopt.learned_optimizers.transformation import learned_optimizer, transformation

PREPROCESSING = 10.0


class LSTMRule(nn.Module):
    """``(carries, gradient [rows]) -> (carries, step [rows])``, elements as rows.

    Attributes:
      widths: of the layers.
    """

    widths: tuple[int, ...] = (20, 20)

    @nn.compact
    def __call__(self, carries: Sequence[Carry], gradient: jax.Array):
        x, after = log_and_sign(gradient), []
        for i, width in enumerate(self.widths):
            after.append(LSTMCell(width, name=f"lstm_{i}")(carries[i], x))
            x = after[-1].hidden
        step = nn.Dense(1, kernel_init=kernel_init, name="output")(x)[:, 0]
        return tuple(after), step


def lstm(*, hidden: tuple[int, ...] = (20, 20), output_scale: float = 0.1) -> LearnedOptimizer:
    """An LSTM for every coordinate, 2 -> 20 -> 20 -> 1: 5141 meta-parameters.

    Reads gradients alone: neither parameters, horizon nor loss. The state has a `Carry` for
    each layer, of trees like the parameters with leaves ``[*tensor, width]``.

    Args:
      hidden: widths of the LSTM layers.
      output_scale: what the last layer's output is multiplied by.

    Raises:
      ValueError: where a width is not a positive integer, or the scale not a finite number above 0.

    Examples:
      >>> optimizer = lstm()
      >>> theta = optimizer.init(jax.random.key(0))
      >>> sum(leaf.size for leaf in jax.tree.leaves(theta))
      5141
      >>> tx, params = optimizer.optimizer(theta), {"w": jnp.ones((3, 2))}
      >>> updates, state = tx.update(params, tx.init(params))
    """
    hidden = validate_widths(hidden)
    valid_number("output_scale", output_scale, above=0)
    rule = LSTMRule(hidden)

    def init_theta(key):
        carries = tuple(Carry(jnp.zeros((1, n)), jnp.zeros((1, n))) for n in hidden)
        return rule.init(key, carries, jnp.zeros(1))["params"]

    def optimizer(theta, num_steps):
        del num_steps  # the state is all that this rule knows of time

        def init(params):
            return tuple(Carry(zeros_like(params, n), zeros_like(params, n)) for n in hidden)

        def update(grads, state, params, value):
            del params, value

            def step(g, *leaves):  # of one tensor: hidden and cell of each layer
                rows = [leaf.reshape(-1, leaf.shape[-1]) for leaf in leaves]
                carries = [Carry(*pair) for pair in zip(rows[::2], rows[1::2], strict=True)]
                carries, step = apply(rule, theta, carries, g.reshape(-1))
                after = [leaf.reshape(*g.shape, -1) for carry in carries for leaf in carry]
                return -output_scale * step.reshape(g.shape), *after

            trees = [grads, *(tree for carry in state for tree in carry)]
            results = map(step, *map(jax.tree.leaves, trees))
            structure = jax.tree.structure(grads)
            columns = zip(*results, strict=True)
            updates, *after = (jax.tree.unflatten(structure, column) for column in columns)
            return updates, tuple(map(Carry, after[::2], after[1::2]))

        return transformation("lstm", init, update, reads=())

    return learned_optimizer("lstm", init_theta, optimizer)


def log_and_sign(gradient: jax.Array) -> jax.Array:
    """What the LSTM reads of a gradient: ``[rows]`` to ``[rows, 2]``.

    Examples:
      >>> log_and_sign(jnp.array([-1.0, 0.0])).tolist()
      [[0.0, -1.0], [-1.0, 0.0]]
    """
    magnitude = jnp.abs(gradient)
    large = magnitude >= jnp.exp(-PREPROCESSING)
    log = jnp.log(jnp.where(large, magnitude, 1.0)) / PREPROCESSING
    return jnp.stack(
        [
            jnp.where(large, log, -1.0),
            jnp.where(large, jnp.sign(gradient), jnp.exp(PREPROCESSING) * gradient),
        ],
        axis=-1,
    )
