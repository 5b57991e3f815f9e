"""How much arithmetic a function does, counted in its jaxpr: nothing is compiled or run."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from metaopt.core.types import Task

REDUCTIONS = ("argmax", "argmin", "cumsum", "cumlogsumexp", "cummax", "reduce")
MOVES = (
    "broadcast_in_dim", "concatenate", "convert_element_type", "copy", "dynamic_slice",
    "dynamic_update_slice", "gather", "iota", "pad", "reshape", "rev", "select_n", "slice",
    "squeeze", "stop_gradient", "transpose",
)  # fmt: skip
"""What moves numbers and computes none."""


def flops_in(function: Callable[..., Any], *args: Any) -> float:
    """FLOPs of a function: two for each term of a matrix product, one for each other result.

    The body of a scan counts as often as it runs; that of a loop whose length is not known, once;
    of the branches of a condition the dearest counts. Functions such as exp count as one.

    Args:
      function: what can be traced.
      *args: arrays, or `jax.ShapeDtypeStruct`s, as it takes them.

    Examples:
      >>> a = jax.ShapeDtypeStruct((2, 3), jnp.float32)
      >>> flops_in(lambda a: a @ a.T, a)
      24.0
      >>> flops_in(lambda a: jax.lax.scan(lambda c, _: (c * c, None), a, length=5)[0], a)
      30.0
    """
    return _flops(jax.make_jaxpr(function)(*args).jaxpr)


def flops_of(task: Task) -> float:
    """FLOPs of one training step of a task, loss and gradient; see `flops_in`.

    Public as `metaopt.flops_of`.

    Examples:
      >>> from metaopt.tasks import digits_mlp
      >>> one, two = (flops_of(digits_mlp(batch_size=size)) for size in (100, 200))
      >>> 1.9 < two / one < 2.1
      True
    """
    key, loaded = jax.random.key(0), task.data()  # not traced: it may compute, and read files
    data = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, loaded))
    config = jax.eval_shape(task.sample, key)
    params = jax.eval_shape(task.init, config, key)

    def loss_and_grad(data, config, params, key):
        batch = task.batch(data, config, "train", key)
        return jax.value_and_grad(task.loss, argnums=1)(config, params, batch, key)

    return flops_in(loss_and_grad, data, config, params, key)


def _flops(jaxpr: core.Jaxpr) -> float:
    return sum(_equation(equation) for equation in jaxpr.eqns)


def _equation(equation: core.JaxprEqn) -> float:
    name, params = equation.primitive.name, equation.params
    inner = [_flops(jaxpr) for jaxpr in _jaxprs(list(params.values()))]
    if name == "scan":
        return params["length"] * sum(inner)
    if inner:
        return max(inner) if name == "cond" else sum(inner)
    ins: list[Any] = [variable.aval for variable in equation.invars]
    outs: list[Any] = [variable.aval for variable in equation.outvars]
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        return 2.0 * math.prod(ins[0].shape[i] for i in contracted) * _size(outs[0])
    if name == "conv_general_dilated":
        kernel = ins[1].shape
        out_channels = kernel[params["dimension_numbers"].rhs_spec[0]]
        return 2.0 * math.prod(kernel) / out_channels * _size(outs[0])
    if name in MOVES or not any(jnp.issubdtype(out.dtype, jnp.inexact) for out in outs):
        return 0.0
    return float(_size(ins[0] if name.startswith(REDUCTIONS) else outs[0]))


def _size(aval: Any) -> int:
    return math.prod(aval.shape)


def _jaxprs(values: Any) -> list[core.Jaxpr]:
    """The jaxprs among an equation's parameters."""
    found = []
    for value in values:
        if isinstance(value, core.ClosedJaxpr):
            found.append(value.jaxpr)
        elif isinstance(value, core.Jaxpr):
            found.append(value)
        elif isinstance(value, tuple | list):
            found += _jaxprs(value)
    return found
