"""Accumulators of a gradient's statistics, factored as in Adafactor, and the features made of them.

    m   <- beta m + (1 - beta) g                  momenta
    v   <- beta v + (1 - beta) g^2                second moment
    row <- beta row + (1 - beta) mean_d0 g^2      d0 the largest axis, d1 the next
    col <- beta col + (1 - beta) mean_d1 g^2

Rows and columns (Shazeer and Stern 2018, arXiv 1804.04235) keep the axis that they are a mean over,
with length 1, so that they broadcast.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from metaopt.learned_optimizers.features import ema, zeros_like
from metaopt.learned_optimizers.planes import dense, later_layers, planes_of
from metaopt.learned_optimizers.slices import in_slices, mean_over_slices

MOMENTUM_DECAYS = FACTORED_DECAYS = (0.9, 0.99, 0.999)
GRADIENT_CLIP = 1000.0

WIDTHS = {
    "gradient": 1,
    "clipped_gradient": 1,
    "parameter": 1,
    "momentum": 3,
    "rms": 1,
    "normalised_momentum": 3,
    "inverse_rms": 1,
    "factored_gradient": 3,
    "normalised_gradient": 1,
    "row": 3,
    "column": 3,
    "inverse_row": 3,
    "inverse_column": 3,
    "factored_momentum": 3,
}
"""The features of `element_features` and how many numbers each has: 30 in all."""


class Accumulators(NamedTuple):
    """What is kept of a gradient's past; float32.

    Attributes:
      momentum: like the parameters, each ``[..., 3]`` with an axis of the decays at the end.
      rms: of the squares, ``[..., 1]``.
      row: of the squares' means over the largest axis, ``[..., 3]``, that axis kept with length 1;
        the second moment itself for tensors of fewer than two axes.
      column: of their means over the second largest axis, ``[..., 3]``, that axis kept with length
        1; None for tensors of fewer than two axes, since checkpoints hold no empty arrays.
    """

    momentum: optax.Updates
    rms: optax.Updates
    row: optax.Updates
    column: optax.Updates


class Decays(NamedTuple):
    """Decays of `Accumulators`: float32 ``[3]``, ``[1]`` and, of row and column, ``[3]``."""

    momentum: jax.Array
    rms: jax.Array
    factored: jax.Array


def fixed_decays(rms: float) -> Decays:
    """The published constants; the second moment's differs between optimizers."""
    constant = lambda *values: jnp.array(values, jnp.float32)
    return Decays(constant(*MOMENTUM_DECAYS), constant(rms), constant(*FACTORED_DECAYS))


def factored_axes(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """The second largest axis and the largest; None below two axes.

    Of equal axes a later one counts as larger, as in the public implementation: a stable sort.

    Examples:
      >>> factored_axes((3, 3, 4, 6)), factored_axes((5,))
      ((2, 3), None)
    """
    if len(shape) < 2:
        return None
    second, largest = np.argsort(shape, kind="stable")[-2:]
    return int(second), int(largest)


def init_accumulators(params: optax.Params) -> Accumulators:
    """Zeros for float32 parameters.

    Examples:
      >>> jax.tree.map(jnp.shape, init_accumulators(jnp.ones((2, 5))))
      Accumulators(momentum=(2, 5, 3), rms=(2, 5, 1), row=(2, 1, 3), column=(1, 5, 3))
    """
    factored = len(FACTORED_DECAYS)

    def reduced(p, which):
        if (axes := factored_axes(p.shape)) is None:
            return zeros_like(p, factored) if which == 1 else None
        return zeros_like(p.sum(axes[which], keepdims=True), factored)

    return Accumulators(
        momentum=zeros_like(params, len(MOMENTUM_DECAYS)),
        rms=zeros_like(params, 1),
        row=jax.tree.map(lambda p: reduced(p, 1), params),
        column=jax.tree.map(lambda p: reduced(p, 0), params),
    )


def accumulate(old: Accumulators, grads: optax.Updates, decays: Decays) -> Accumulators:
    """The accumulators after one more gradient."""

    def reduced(g, v, which):
        square = jnp.square(g) + 1e-30
        if (axes := factored_axes(g.shape)) is not None:
            square = square.mean(axes[which], keepdims=True)
        elif which == 0:
            return None
        return ema(v, square[..., None], decays.factored)

    return Accumulators(
        momentum=jax.tree.map(
            lambda g, m: ema(m, g[..., None], decays.momentum), grads, old.momentum
        ),
        rms=jax.tree.map(lambda g, v: ema(v, jnp.square(g)[..., None], decays.rms), grads, old.rms),
        row=jax.tree.map(lambda g, v: reduced(g, v, 1), grads, old.row),
        column=jax.tree.map(lambda g, v: reduced(g, v, 0), grads, old.column),
    )


def element_inputs(
    gradient: jax.Array,
    parameter: jax.Array,
    momentum: jax.Array,
    rms: jax.Array,
    row: jax.Array,
    column: jax.Array | None,
) -> dict[str, jax.Array]:
    """What the features of one tensor's elements are made of, element by element.

    Each has the tensor's axes, those of rows and columns with length 1 where they do not vary, and
    all but gradient and parameter one more. The arguments are those two and leaves of
    `Accumulators`, after this step's update.
    """
    inputs = {"gradient": gradient, "parameter": parameter}
    inputs |= {"momentum": momentum, "rms": rms, "row": row}
    axes = factored_axes(gradient.shape)
    if axes is None or column is None:
        return inputs
    mean = row.mean(axes[0], keepdims=True)
    factors = {
        "row_factor": _safe_rsqrt(row / (mean + 1e-9)),
        "column_factor": _safe_rsqrt(column),
    }
    return inputs | {"column": column} | factors


def element_features(
    inputs: dict[str, jax.Array], *, rms_epsilon: float = 1e-6, vector_epsilon: float = 0.0
) -> dict[str, jax.Array]:
    """The features, not normalised, by the names of `WIDTHS`.

    Those of rows and columns stay at their own size, and broadcast.

    Args:
      inputs: `element_inputs` of a tensor, or a slice of each.
      rms_epsilon: added to the second moment before its root is taken.
      vector_epsilon: the same, in ``factored_momentum`` of tensors of fewer than two axes.
    """
    momentum, rms, row = (inputs[name] for name in ("momentum", "rms", "row"))
    g, p = inputs["gradient"][..., None], inputs["parameter"][..., None]
    inverse, column = jax.lax.rsqrt(rms + rms_epsilon), inputs.get("column", row)
    if "column" in inputs:
        factor = inputs["row_factor"] * inputs["column_factor"]
        factored_gradient, factored_momentum = g * factor, momentum * factor
    else:
        factored_gradient = g * _safe_rsqrt(row + 1e-9)
        # A gradient that was always 0 leaves 0 / sqrt(0): 0, and so are its derivatives.
        idle = momentum == 0
        factored_momentum = momentum * jax.lax.rsqrt(jnp.where(idle, 1.0, row + vector_epsilon))
    return {
        "gradient": g,
        "clipped_gradient": jnp.clip(g, -0.1, 0.1),
        "parameter": p,
        "momentum": momentum,
        "rms": rms,
        "normalised_momentum": momentum * inverse,
        "inverse_rms": inverse,
        "factored_gradient": factored_gradient,
        "normalised_gradient": g * inverse,
        "row": row,
        "column": column,
        "inverse_row": jax.lax.rsqrt(row + 1e-8),
        "inverse_column": jax.lax.rsqrt(column + 1e-8),
        "factored_momentum": factored_momentum,
    }


def on_features(
    rule: Callable[[list[jax.Array], jax.Array], jax.Array],
    inputs: dict[str, jax.Array],
    *,
    names: Iterable[str] = tuple(WIDTHS),
    epsilon: float = 1e-5,
    **epsilons: float,
) -> jax.Array:
    """A rule of a tensor's elements on their features: ``[*tensor]``.

    Args:
      rule: ``(planes, scales) -> [...]``: a plane for each of the F features, whose axes the
        tensor's are or of length 1, and the inverse of its RMS, ``[F]``.
      inputs: `element_inputs`.
      names: which features, in the rule's order.
      epsilon: added to the mean square before its root is taken.
      **epsilons: those of `element_features`.
    """

    def planes(inputs):
        made = element_features(inputs, **epsilons)
        return planes_of([made[name] for name in names])

    def squares(inputs):
        return jnp.stack([jnp.square(x).mean() for x in planes(inputs)])

    shape = inputs["gradient"].shape
    scales = jax.lax.rsqrt(epsilon + mean_over_slices(squares, shape, inputs))
    return in_slices(lambda inputs: rule(planes(inputs), scales), shape, inputs)


class FactoredLayer(nn.Module):
    """A first layer on scaled `element_features`, with a kernel for each of them.

    ``(planes, scales [30]) -> width planes``; parameters ``NAME [F, width]``, ``bias [width]``.

    Attributes:
      width: units.
    """

    width: int

    @nn.compact
    def __call__(self, planes: list[jax.Array], scales: jax.Array) -> list[jax.Array]:
        fan_in = sum(WIDTHS.values())
        init = nn.initializers.truncated_normal(fan_in**-0.5)
        kernels = [self.param(name, init, (n, self.width)) for name, n in WIDTHS.items()]
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        return dense(planes, scales[:, None] * jnp.concatenate(kernels), bias)


class FactoredRule(nn.Module):
    """The rule of VeLO and Celo: ``(planes, scales) -> used planes``, 30 -> hidden -> 3.

    Attributes:
      hidden: widths of the hidden layers, ReLU after each.
      used: how many outputs are computed: direction, log-magnitude, and one without a use.
    """

    hidden: tuple[int, ...] = (4, 4)
    used: int = 2

    @nn.compact
    def __call__(self, planes: list[jax.Array], scales: jax.Array) -> list[jax.Array]:
        planes = FactoredLayer(self.hidden[0], name="layer_0")(planes, scales)
        return later_layers(planes, self.hidden, outputs=3, used=self.used)


def rule_paths(hidden: tuple[int, ...], prefix: str = "") -> dict[str, str]:
    """Where public checkpoints keep a `FactoredRule`: ``{their path: our path}``.

    Examples:
      >>> rule_paths((4, 4))["ff_mod_stack/~/w0__3"]
      'layer_0/momentum'
    """
    paths = {f"w0__{i}": f"layer_0/{name}" for i, name in enumerate(WIDTHS)} | {
        "b0": "layer_0/bias"
    }
    for i in range(1, len(hidden) + 1):
        paths |= {f"w{i}": f"layer_{i}/kernel", f"b{i}": f"layer_{i}/bias"}
    return {f"ff_mod_stack/~/{theirs}": prefix + ours for theirs, ours in paths.items()}


def example_features(names: Iterable[str] = tuple(WIDTHS)) -> tuple[list[jax.Array], jax.Array]:
    """Features of a single element as planes and their scales, to initialise a rule with."""
    count = sum(WIDTHS[name] for name in names)
    return [jnp.zeros(())] * count, jnp.ones(count)


def _safe_rsqrt(x: jax.Array) -> jax.Array:
    return jax.lax.rsqrt(jnp.maximum(x, 1e-9))
