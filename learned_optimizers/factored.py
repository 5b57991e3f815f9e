"""Accumulators of a gradient's statistics, factored as in Adafactor, and the features made of them.

    m   <- beta m + (1 - beta) g                  momenta
    v   <- beta v + (1 - beta) g^2                second moment
    row <- beta row + (1 - beta) mean_d0 g^2      d0 the largest axis, d1 the next
    col <- beta col + (1 - beta) mean_d1 g^2

Rows and columns (Shazeer and Stern 2018, arXiv 1804.04235) keep the axis that they are a mean over,
with length 1, so that they broadcast.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from metaopt.learned_optimizers.features import (
    ema,
    later_layers,
    normalised_product,
    zeros_like,
)

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


def collected(
    results: list[tuple[jax.Array, Accumulators]], like: optax.Updates
) -> tuple[optax.Updates, Accumulators]:
    """Steps and accumulators as trees, from those of single tensors in the order of the leaves."""
    tree = lambda leaves: jax.tree.unflatten(jax.tree.structure(like), list(leaves))
    steps, new = zip(*results, strict=True) if results else ((), ())
    fields = (tree(getattr(one, name) for one in new) for name in Accumulators._fields)
    return tree(steps), Accumulators(*fields)


def element_features(
    gradient: jax.Array,
    parameter: jax.Array,
    momentum: jax.Array,
    rms: jax.Array,
    row: jax.Array,
    column: jax.Array | None,
    *,
    rms_epsilon: float = 1e-6,
    vector_epsilon: float = 0.0,
) -> dict[str, jax.Array]:
    """The features of one tensor, not normalised, by the names of `WIDTHS`.

    Those of rows and columns stay at their own size, and broadcast.

    Args:
      gradient: the tensor's, as the parameter ``[...]``; the rest are leaves of `Accumulators`,
        after this step's update.
      parameter: see there.
      momentum: see there.
      rms: see there.
      row: see there.
      column: see there.
      rms_epsilon: added to the second moment before its root is taken.
      vector_epsilon: the same, in ``factored_momentum`` of tensors of fewer than two axes.
    """
    g, inverse = gradient[..., None], jax.lax.rsqrt(rms + rms_epsilon)
    axes = factored_axes(gradient.shape)
    if axes is None or column is None:
        column = row
        factored_gradient = g * _safe_rsqrt(row + 1e-9)
        # A gradient that was always 0 leaves 0 / sqrt(0): 0, and so are its derivatives.
        idle = momentum == 0
        factored_momentum = momentum * jax.lax.rsqrt(jnp.where(idle, 1.0, row + vector_epsilon))
    else:
        mean = row.mean(axes[0], keepdims=True)
        factor = _safe_rsqrt(row / (mean + 1e-9)) * _safe_rsqrt(column)
        factored_gradient, factored_momentum = g * factor, momentum * factor
    return {
        "gradient": g,
        "clipped_gradient": jnp.clip(g, -0.1, 0.1),
        "parameter": parameter[..., None],
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


class FactoredLayer(nn.Module):
    """A first layer on normalised `element_features`, with a kernel for each of them.

    ``features -> [*tensor, width]``; parameters ``NAME [F, width]`` and ``bias [width]``.

    Attributes:
      width: outputs.
      epsilon: of the normaliser.
    """

    width: int
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, features: dict[str, jax.Array]) -> jax.Array:
        fan_in = sum(WIDTHS.values())
        init = nn.initializers.truncated_normal(fan_in**-0.5)
        kernels = [self.param(name, init, (n, self.width)) for name, n in WIDTHS.items()]
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        groups = [features[name] for name in WIDTHS]
        return normalised_product(groups, jnp.concatenate(kernels), self.epsilon) + bias


class FactoredRule(nn.Module):
    """The rule of VeLO and Celo: ``element_features -> outputs [..., used]``, 30 -> hidden -> 3.

    Attributes:
      hidden: widths of the hidden layers, ReLU after each.
      used: how many outputs are computed: direction, log-magnitude, and one without a use.
      epsilon: of the normaliser.
    """

    hidden: tuple[int, ...] = (4, 4)
    used: int = 2
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, features: dict[str, jax.Array]) -> jax.Array:
        x = FactoredLayer(self.hidden[0], self.epsilon, name="layer_0")(features)
        return later_layers(x, self.hidden, outputs=3, used=self.used)


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


def example_features() -> dict[str, jax.Array]:
    """Features of a tensor of one element, to initialise a rule with."""
    return {name: jnp.zeros((1, width)) for name, width in WIDTHS.items()}


def _safe_rsqrt(x: jax.Array) -> jax.Array:
    return jax.lax.rsqrt(jnp.maximum(x, 1e-9))
