"""Whether a rule runs as one kernel here, and what its derivatives are then."""

from collections.abc import Callable
from typing import Any

import jax


def with_derivatives_of(plain: Callable[..., Any], fused: Callable[..., Any]) -> Callable[..., Any]:
    """``fused``, and where it is differentiated ``plain``, values included.

    Args:
      plain: any function of trees of float arrays.
      fused: the same function, which need not be differentiable.

    Examples:
      >>> square = with_derivatives_of(lambda x: x * x, lambda x: jax.lax.stop_gradient(x * x))
      >>> float(square(3.0)), float(jax.grad(square)(3.0))
      (9.0, 6.0)
    """
    function = jax.custom_jvp(fused)
    function.defjvp(lambda primals, tangents: jax.jvp(plain, primals, tangents))
    return function


def on_gpu() -> bool:
    """Whether JAX computes on a GPU here."""
    return jax.default_backend() == "gpu"


def choose_fused(fused: bool | None) -> bool:
    """Whether to run the kernel: as told or, where None, on a GPU.

    Raises:
      ValueError: for anything but True, False and None.

    Examples:
      >>> choose_fused(True)
      True
    """
    if not (fused is None or isinstance(fused, bool)):
        raise ValueError(
            "fused must be True (one kernel), False (plain JAX) or None (one kernel on a GPU), "
            f"got {fused!r}."
        )
    return on_gpu() if fused is None else fused
