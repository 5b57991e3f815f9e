"""What people hand over beside trees, checked: the horizon, the loss, rates.

A number may be Python's, NumPy's or a JAX scalar. Of a traced one the shape and the kind of number
are checked, since its value is not known.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Number = int | float | np.number | np.ndarray | jax.Array
"""A real scalar of any library."""


def valid_num_steps(name: str, num_steps: Any, *, is_needed: bool) -> jax.Array | None:
    """The horizon as a float32 scalar; None where it is neither given nor needed.

    Raises:
      ValueError: where it is missing, or no whole number of at least 1.

    Examples:
      >>> valid_num_steps("velo", 100, is_needed=True)
      Array(100., dtype=float32)
    """
    call = f"optimizer(theta, num_steps) of {name}, or metaopt.load(path, num_steps=...)"
    if num_steps is None:
        if is_needed:
            raise ValueError(f"{name} needs to know how many steps it is used for: call {call}.")
        return None
    known = _known(num_steps)
    if not _is_real_scalar(num_steps) or (
        known is not None and not (math.isfinite(known) and known >= 1 and known == int(known))
    ):
        raise ValueError(
            f"num_steps must be a whole number of at least 1, got {_shown(num_steps)}: call {call}."
        )
    return _float32(num_steps)


def valid_value(name: str, value: Any) -> jax.Array:
    """The loss as a float32 scalar, finite or not.

    Raises:
      ValueError: where it is no real scalar.

    Examples:
      >>> valid_value("velo", 2)
      Array(2., dtype=float32)
    """
    if not _is_real_scalar(value):
        raise ValueError(
            f"{name} reads the loss, a real scalar: pass value=loss, or value=losses.mean() of "
            f"several; got {_shown(value)}."
        )
    return _float32(value)


def valid_number(name: str, value: Any, *, above: float | None = None, least: float = 0.0) -> Any:
    """The value itself, where it is a finite real scalar in range, or traced.

    Args:
      name: the argument's, for messages.
      value: what was given.
      above: what it has to be larger than.
      least: if ``above`` is not given, the smallest that it may be.

    Raises:
      ValueError: where it is something else.

    Examples:
      >>> valid_number("learning_rate", np.float32(0.5), above=0)
      np.float32(0.5)
    """
    known = _known(value)
    fits = lambda x: math.isfinite(x) and (x >= least if above is None else x > above)
    if not _is_real_scalar(value) or (known is not None and not fits(known)):
        where = f"of at least {least:g}" if above is None else f"above {above:g}"
        raise ValueError(f"{name} must be a finite number {where}, got {_shown(value)}.")
    return value


def _is_real_scalar(x: Any) -> bool:
    if isinstance(x, (bool, np.bool_)) or not isinstance(x, Number):
        return False
    if np.shape(x) != ():
        return False
    dtype = getattr(x, "dtype", None)
    kinds = (jnp.floating, jnp.integer)
    return dtype is None or any(jnp.issubdtype(dtype, kind) for kind in kinds)


def _known(x: Any) -> float | None:
    """The number where it is one, and known."""
    if not _is_real_scalar(x) or isinstance(x, jax.core.Tracer):
        return None
    return float(x)


def _float32(x: Any) -> jax.Array:
    # An int of Python's may be too large for one of JAX'.
    return jnp.asarray(float(x) if isinstance(x, int) else x).astype(jnp.float32)


def _shown(x: Any) -> str:
    if isinstance(x, (jax.Array, np.ndarray)) and np.ndim(x):
        return f"an array {jnp.dtype(x.dtype).name}{list(x.shape)}"
    if isinstance(x, jax.core.Tracer):
        return f"{x.dtype}{list(x.shape)}"
    return f"a tuple of {len(x)}" if isinstance(x, tuple) else repr(x)
