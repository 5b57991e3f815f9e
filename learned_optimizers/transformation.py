"""From a rule on float32 tensors to a citizen of optax.

What every learned optimizer owes its surroundings is here, once: parameters of any float dtype keep
it while the rule and its state are in float32, a tensor without elements changes nothing, and a
missing argument is an error that shows the right call.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

Init = Callable[[Any], Any]
Update = Callable[[Any, Any, Any, Any], tuple[Any, Any]]


def transformation(
    name: str, init: Init, update: Update, *, reads: tuple[str, ...] = ("params",)
) -> optax.GradientTransformationExtraArgs:
    """An optax transformation from functions of float32 trees.

    Args:
      name: the optimizer's, for messages.
      init: ``params -> state``.
      update: ``(grads, state, params, value) -> (updates, state)``, updates to be added.
      reads: which of ``"params"`` and ``"value"`` (the loss, a scalar) the rule cannot do without.
        What is not named here may be ``None``.

    Raises:
      ValueError: from the transformation's own ``update``, where it is called without these.

    Examples:
      >>> sign = lambda grads, state, params, value: (jax.tree.map(jnp.sign, grads), state)
      >>> tx = transformation("sign", lambda params: (), sign)
      >>> params = jnp.ones(2, jnp.bfloat16)
      >>> tx.update(3 * params, tx.init(params), params)[0]
      Array([1, 1], dtype=bfloat16)
    """
    call = "update(grads, state, params" + (", value=loss)" if "value" in reads else ")")

    def full_init(params):
        return init(_prepared(params))

    def full_update(updates, state, params=None, *, value=None, **extra_args):
        del extra_args
        given = {"params": params, "value": value}
        if missing := [argument for argument in reads if given[argument] is None]:
            raise ValueError(f"{name} needs {' and '.join(missing)}: call {call}.")
        like = updates if params is None else params
        grads = _prepared(updates)
        if not jax.tree.leaves(grads):
            return updates, state
        if value is not None:
            value = jnp.asarray(value, jnp.float32)
        steps, state = update(grads, state, None if params is None else _prepared(params), value)
        restore = lambda p, step: jnp.zeros_like(p) if step is None else jnp.asarray(step, p.dtype)
        return jax.tree.map(restore, like, steps), state

    return optax.GradientTransformationExtraArgs(full_init, full_update)


def require_num_steps(name: str, num_steps: jax.Array | int | None) -> jax.Array:
    """The horizon as a float32 scalar.

    Raises:
      ValueError: where it is missing or below 1.

    Examples:
      >>> require_num_steps("velo", 100)
      Array(100., dtype=float32)
    """
    call = f"optimizer(theta, num_steps) of {name}, or metaopt.load(path, num_steps=...)"
    if num_steps is None:
        raise ValueError(f"{name} needs to know how many steps it is used for: call {call}.")
    if isinstance(num_steps, int) and num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}: call {call}.")
    return jnp.asarray(num_steps, jnp.float32)


def _prepared(tree):
    """In float32, and None where there are no elements, which trees then pass over."""
    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf, jnp.float32) if jnp.size(leaf) else None, tree
    )
