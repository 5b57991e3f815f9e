"""For training loops on Linen's `TrainState`, which hands optimizers no loss."""

from typing import Any, TypeVar

import jax
import optax

State = TypeVar("State")


def apply_gradients(state: State, *, grads: Any, value: jax.Array, **changes: Any) -> State:
    """`TrainState.apply_gradients` for optimizers that read the loss, as velo and celo do.

    Args:
      state: a `flax.training.train_state.TrainState`, or anything with its ``step``, ``params``,
        ``tx``, ``opt_state`` and ``replace``.
      grads: like ``state.params``.
      value: the loss that the gradients are of, a scalar.
      **changes: other fields to replace, such as ``batch_stats``.

    Examples:
      >>> import jax.numpy as jnp
      >>> from flax.training.train_state import TrainState
      >>> from metaopt.learned_optimizers import celo
      >>> tx = celo().optimizer(celo().init(jax.random.key(0)), num_steps=100)
      >>> state = TrainState.create(apply_fn=None, params={"w": jnp.ones(2)}, tx=tx)
      >>> state = apply_gradients(state, grads={"w": jnp.ones(2)}, value=jnp.float32(1.0))
      >>> int(state.step)
      1
    """
    train: Any = state
    updates, opt_state = train.tx.update(grads, train.opt_state, train.params, value=value)
    params = optax.apply_updates(train.params, updates)
    return train.replace(step=train.step + 1, params=params, opt_state=opt_state, **changes)
