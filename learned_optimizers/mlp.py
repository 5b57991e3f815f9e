"""The per-parameter MLP optimizer (Metz et al. 2019, arXiv 1810.10180).

A small network, shared by all elements of all tensors, reads the gradient, the parameter and six
momenta and writes a direction and a log-magnitude:

    p <- p - dir * exp(1e-3 * mag) * 1e-3
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from metaopt import LearnedOptimizer
from metaopt.learned_optimizers.backend import choose_fused, with_derivatives_of
from metaopt.learned_optimizers.features import (
    FirstLayer,
    apply,
    ema,
    inverse_rms,
    later_layers,
    over_elements,
    time_features,
    validate_widths,
    zeros_like,
)
from metaopt.learned_optimizers.transformation import learned_optimizer, transformation

MOMENTUM_DECAYS = (0.1, 0.5, 0.9, 0.99, 0.999, 0.9999)
EXP_MULT = STEP_MULT = 1e-3


class MLPState(NamedTuple):
    """What the MLP optimizer carries.

    Attributes:
      step: int32 scalar, updates done.
      momenta: like the parameters, each with an axis of the 6 decays at the end; float32.
    """

    step: jax.Array
    momenta: optax.Updates


class MLPRule(nn.Module):
    """``(normalised features [..., 8], time features [11]) -> step [...]``, element by element.

    Attributes:
      hidden: widths of the hidden layers, ReLU after each.
    """

    hidden: tuple[int, ...] = (32, 32)

    @nn.compact
    def __call__(self, features: jax.Array, time: jax.Array) -> jax.Array:
        x = FirstLayer(self.hidden[0], name="layer_0")(features, time)
        x = later_layers(x, self.hidden, outputs=2)
        return _step(x[..., 0], x[..., 1])


def mlp(*, hidden: tuple[int, ...] = (32, 32), fused: bool | None = False) -> LearnedOptimizer:
    """The MLP optimizer, 19 -> 32 -> 32 -> 2: 1762 meta-parameters.

    Inputs in order: gradient, parameter, momenta for decays .1, .5, .9, .99, .999, .9999, each
    normalised over its tensor; then the 11 time features. Ignores the horizon and the loss.

    Args:
      hidden: widths of the hidden layers.
      fused: run one kernel a tensor (`metaopt.learned_optimizers.fused`), forward only; a
        derivative takes the plain path, whose results these are up to rounding. None: on a GPU. On
        a CPU True runs its interpreter, which is for tests. The kernel has not been run on a GPU
        yet, so it is not the default there. It does not split a tensor sharded over devices.

    An element costs the kernel 15 numbers, 60 bytes: the gradient, the parameter and 6 momenta are
    read, 6 momenta and the update written. The RMS that normalises them reads the first 8 once more
    before it, 32 bytes. The plain path also writes and reads its activations: 32 numbers for each
    hidden layer and 8 features, unless the compiler keeps them from memory.

    Raises:
      ValueError: where a width is not a positive integer, or for another ``fused``.

    Examples:
      >>> optimizer = mlp()
      >>> theta = optimizer.init(jax.random.key(0))
      >>> sum(leaf.size for leaf in jax.tree.leaves(theta))
      1762
      >>> tx = optimizer.optimizer(theta)
      >>> params = {"w": jnp.ones((3, 2))}
      >>> updates, state = tx.update(params, tx.init(params), params)
    """
    hidden = validate_widths(hidden)
    rule = MLPRule(hidden)
    decays = jnp.array(MOMENTUM_DECAYS, jnp.float32)

    def plain(theta, time, grads, momenta, params):
        momenta = jax.tree.map(lambda g, m: ema(m, g[..., None], decays), grads, momenta)

        def features(g, p, m, *scales):  # [..., 8]
            parts = (g[..., None], p[..., None], m)
            scaled = [x * scale for x, scale in zip(parts, scales, strict=True)]
            return jnp.concatenate(scaled, axis=-1)

        scales = [
            jax.tree.map(lambda g: inverse_rms(g[..., None]), grads),
            jax.tree.map(lambda p: inverse_rms(p[..., None]), params),
            jax.tree.map(inverse_rms, momenta),
        ]
        rule_of = lambda x: apply(rule, theta, x, time)
        steps = over_elements(rule_of, features, (grads, params, momenta), scales)
        return steps, momenta

    def in_one_kernel(theta, time, grads, momenta, params):
        tensor = lambda g, m, p: _fused(theta, time, decays, g, m, p)
        both = jax.tree.map(tensor, grads, momenta, params)
        return jax.tree.transpose(jax.tree.structure(grads), jax.tree.structure((0, 0)), both)

    step_of_all = with_derivatives_of(plain, in_one_kernel) if choose_fused(fused) else plain

    def init_theta(key):
        features = jnp.zeros((1, 2 + len(MOMENTUM_DECAYS)))
        return rule.init(key, features, time_features(jnp.int32(0)))["params"]

    def optimizer(theta, num_steps):
        del num_steps  # this rule reads the step, not the horizon

        def init(params):
            return MLPState(jnp.int32(0), zeros_like(params, len(MOMENTUM_DECAYS)))

        def update(grads, state, params, value):
            del value
            time = time_features(state.step)
            steps, momenta = step_of_all(theta, time, grads, state.momenta, params)
            return jax.tree.map(jnp.negative, steps), MLPState(state.step + 1, momenta)

        return transformation("mlp", init, update)

    return learned_optimizer("mlp", init_theta, optimizer, _public_paths(len(hidden) + 1))


def _step(direction, magnitude):
    return direction * jnp.exp(magnitude * EXP_MULT) * STEP_MULT


def _fused(theta, time, decays, g, m, p):
    """One tensor's step and momenta, as the plain path's."""
    from metaopt.learned_optimizers.fused import fused_rule  # Pallas is slow to import

    layers = [theta[f"layer_{i}"] for i in range(len(theta))]
    (kernel, bias), *later = [(layer["kernel"], layer["bias"]) for layer in layers]
    g, p = g[..., None], p[..., None]

    def block(g, p, m, decays):
        m = ema(m, g, decays)
        return (g, p, m), (m,)

    # The compiler makes sums of squares of this without ever writing the momenta.
    scales = [inverse_rms(x) for x in (g, p, ema(m, g, decays))]
    varying = sum(scale.size for scale in scales)
    scaled = jnp.concatenate(scales)[:, None] * kernel[:varying]
    at_once = lambda x: x.reshape(*[1] * (g.ndim - 1), -1)
    step, (m,) = fused_rule(
        block,
        _step,
        shape=g.shape[:-1],
        inputs=[g, p, m, at_once(decays)],
        kernels=[scaled[:1], scaled[1:2], scaled[2:]],
        added=[at_once(bias + time @ kernel[varying:])],
        layers=later,
        kept=[m.shape[-1]],
    )
    return step, m


def _public_paths(layers):
    leaves = {"w": "kernel", "b": "bias"}
    return {
        f"mlp/~/linear_{i}/{public}": f"layer_{i}/{ours}"
        for i in range(layers)
        for public, ours in leaves.items()
    }
