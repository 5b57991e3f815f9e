"""From a rule on float32 tensors to a citizen of optax: what a rule owes its surroundings.

A rule sees a tree of float32 tensors that have elements, JAX's default settings and meshes whose
axes are automatic, whatever the program around it has set: parameters of other dtypes, shardings as
part of types (`jax.sharding.AxisType.Explicit`), ``jax_enable_x64``. Its state has buffers, dtypes,
shardings and a structure of its own, which an update keeps. Rules are in the other modules; here
nothing is known of them.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import optax

from metaopt import Key, LearnedOptimizer, Theta
from metaopt.learned_optimizers.arguments import valid_num_steps, valid_value
from metaopt.learned_optimizers.leaves import pair_leaves, restored, tensors_of
from metaopt.learned_optimizers.placement import in_auto_mode, own_buffers

Init = Callable[[Any], Any]
Update = Callable[[Any, Any, Any, Any], tuple[Any, Any]]


@contextmanager
def jax_defaults() -> Iterator[None]:
    """JAX as it is set by default where it decides about dtypes and shapes.

    A rule of float32 stays one: ``jax_enable_x64`` does not reach the arrays that it makes, and no
    strict promotion refuses what it does with them.

    Examples:
      >>> with jax.enable_x64(True), jax_defaults():
      ...     print(jnp.zeros(2).dtype)
      float32
    """
    with (
        jax.enable_x64(False),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        yield


def learned_optimizer(
    name: str,
    init: Callable[[Key], Theta],
    optimizer: Callable[[Theta, Any], optax.GradientTransformationExtraArgs],
    public_paths: Mapping[str, str] = MappingProxyType({}),
    *,
    needs_num_steps: bool = False,
) -> LearnedOptimizer:
    """A `LearnedOptimizer` whose theta and horizon are float32 and valid.

    Args:
      name: the optimizer's, for messages.
      init: ``key -> theta``.
      optimizer: ``(theta, num_steps) -> transformation``; the horizon is a float32 scalar or, if
        it is not given and not needed, None.
      public_paths: as in `LearnedOptimizer`.
      needs_num_steps: whether the optimizer cannot do without the horizon.

    Raises:
      ValueError: from the record's own ``optimizer``, for a ``num_steps`` that is missing where it
        is needed, or that is no whole number of at least 1.

    Examples:
      >>> descent = lambda theta, num_steps: optax.sgd(theta)
      >>> made = learned_optimizer("descent", lambda key: jnp.zeros(()), descent)
      >>> made.init(jax.random.key(0))
      Array(0., dtype=float32)
    """

    def init_theta(key):
        with jax_defaults():
            return init(key)

    def make(theta, num_steps=None):
        horizon = valid_num_steps(name, num_steps, is_needed=needs_num_steps)
        theta = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), theta)
        with jax_defaults():
            return optimizer(theta, horizon)

    return LearnedOptimizer(init_theta, make, public_paths)


def transformation(
    name: str, init: Init, update: Update, *, reads: tuple[str, ...] = ("params",)
) -> optax.GradientTransformationExtraArgs:
    """An optax transformation from functions of float32 trees.

    Parameters of any float dtype keep it. A complex tensor is two real ones to the rule, its real
    and its imaginary part. Integers, bools and tensors without elements do not move. Python floats
    are scalars.

    Args:
      name: the optimizer's, for messages.
      init: ``params -> state``. Zeros that are made by `jnp.zeros_like` are sharded as the
        parameters.
      update: ``(grads, state, params, value) -> (updates, state)``, updates to be added.
      reads: which of ``"params"`` and ``"value"`` (the loss, a scalar) the rule cannot do without.
        What is not named here may be ``None``.

    Raises:
      ValueError: from the transformation's own functions: where ``update`` is called without these,
        the value is no real scalar, the gradients do not fit the parameters, or a leaf is of a
        dtype that cannot be updated.

    Examples:
      >>> sign = lambda grads, state, params, value: (jax.tree.map(jnp.sign, grads), state)
      >>> tx = transformation("sign", lambda params: (), sign)
      >>> params = jnp.ones(2, jnp.bfloat16)
      >>> tx.update(3 * params, tx.init(params), params)[0]
      Array([1, 1], dtype=bfloat16)
    """
    call = "update(grads, state, params" + (", value=loss)" if "value" in reads else ")")

    def full_init(params):
        tensors = tensors_of(name, params)
        with jax_defaults():
            return own_buffers(init(tensors), tensors)

    def full_update(updates, state, params=None, *, value=None, **extra_args):
        del extra_args
        given = {"params": params, "value": value}
        if missing := [argument for argument in reads if given[argument] is None]:
            raise ValueError(f"{name} needs {' and '.join(missing)}: call {call}.")
        value = valid_value(name, value) if "value" in reads else None
        like, grads, tensors = pair_leaves(name, updates, params)
        if not jax.tree.leaves(grads):
            return restored(like, grads), state
        with jax_defaults():
            steps, state = in_auto_mode(update, grads, state, tensors, value)
        return restored(like, steps), state

    return optax.GradientTransformationExtraArgs(full_init, full_update)
