"""The MLP optimizer on factored statistics, "small_fc_lopt" (Metz et al. 2022, arXiv 2203.11860).

Four hidden units read a gradient's moments, Adafactor's rows and columns among them, and write

    p <- p - dir * exp(1e-3 * mag) * 1e-3

The moments' decays are meta-learned: beta = 1 - exp(10 (log(1 - beta0) / 10 + delta)).
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from metaopt import LearnedOptimizer
from metaopt.learned_optimizers.equal_shapes import over_tensors
from metaopt.learned_optimizers.factored import (
    FACTORED_DECAYS,
    MOMENTUM_DECAYS,
    WIDTHS,
    Accumulators,
    Decays,
    accumulate,
    element_inputs,
    example_features,
    init_accumulators,
    on_features,
)
from metaopt.learned_optimizers.features import (
    apply,
    kernel_init,
    time_features,
    validate_widths,
)
from metaopt.learned_optimizers.planes import dense, later_layers
from metaopt.learned_optimizers.transformation import learned_optimizer, transformation

RMS_DECAYS = (0.999,)
FEATURES = tuple(name for name in WIDTHS if name not in ("clipped_gradient", "normalised_gradient"))
EXP_MULT = STEP_MULT = 1e-3


class AdafacMLPState(NamedTuple):
    """What the optimizer carries.

    Attributes:
      step: int32 scalar, updates done.
      accumulators: of the gradients.
    """

    step: jax.Array
    accumulators: Accumulators


class AdafacMLPRule(nn.Module):
    """``(planes, scales, time features [11]) -> step [...]`` for one tensor, 39 -> hidden -> 2.

    Attributes:
      hidden: widths of the hidden layers, ReLU after each.
    """

    hidden: tuple[int, ...] = (4, 4)

    @nn.compact
    def __call__(self, planes: list[jax.Array], scales: jax.Array, time: jax.Array) -> jax.Array:
        x = FirstLayer(self.hidden[0], name="layer_0")(planes, scales, time)
        direction, magnitude = later_layers(x, self.hidden, outputs=2)
        return direction * jnp.exp(magnitude * EXP_MULT) * STEP_MULT


class FirstLayer(nn.Module):
    """A layer on scaled features, and on inputs that are the same for all elements.

    Attributes:
      width: units.
    """

    width: int

    @nn.compact
    def __call__(
        self, planes: list[jax.Array], scales: jax.Array, shared: jax.Array
    ) -> list[jax.Array]:
        kernel = self.param("kernel", kernel_init, (len(planes) + shared.size, self.width))
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        own, others = kernel[: len(planes)], kernel[len(planes) :]
        return dense(planes, scales[:, None] * own, bias + shared @ others)


def adafac_mlp(*, hidden: tuple[int, ...] = (4, 4)) -> LearnedOptimizer:
    """The factored MLP optimizer, 39 -> 4 -> 4 -> 2 and 7 decays: 197 meta-parameters.

    Ignores the horizon and the loss.

    Args:
      hidden: widths of the hidden layers.

    Raises:
      ValueError: where a width is not a positive integer.

    Examples:
      >>> optimizer = adafac_mlp()
      >>> theta = optimizer.init(jax.random.key(0))
      >>> sum(leaf.size for leaf in jax.tree.leaves(theta))
      197
      >>> tx = optimizer.optimizer(theta)
      >>> params = {"w": jnp.ones((3, 2))}
      >>> updates, state = tx.update(params, tx.init(params), params)
    """
    hidden = validate_widths(hidden)
    rule = AdafacMLPRule(hidden)

    def init_theta(key):
        start = time_features(jnp.int32(0))
        return {
            "momentum_decays": jnp.zeros(len(MOMENTUM_DECAYS)),
            "rms_decays": jnp.zeros(len(RMS_DECAYS)),
            "factored_decays": jnp.zeros(len(FACTORED_DECAYS)),
            "rule": rule.init(key, *example_features(FEATURES), start)["params"],
        }

    def optimizer(theta, num_steps):
        del num_steps  # this rule reads the step, not the horizon

        def init(params):
            return AdafacMLPState(jnp.int32(0), init_accumulators(params))

        def update(grads, state, params, value):
            del value
            time = time_features(state.step)
            decays = _decays(theta)

            def step(*tensor):
                on = lambda planes, scales: apply(rule, theta["rule"], planes, scales, time)
                inputs = element_inputs(*tensor)
                return -on_features(on, inputs, names=FEATURES, vector_epsilon=1e-6)

            accumulators = accumulate(state.accumulators, grads, decays)
            steps = over_tensors(step, grads, params, *accumulators)
            updates = jax.tree.unflatten(jax.tree.structure(grads), steps)
            return updates, AdafacMLPState(state.step + 1, accumulators)

        return transformation("adafac_mlp", init, update)

    return learned_optimizer("adafac_mlp", init_theta, optimizer, _public_paths(len(hidden) + 1))


def _decays(theta) -> Decays:
    def moved(initial, offset):
        return 1 - jnp.exp(10 * (jnp.log(1 - jnp.array(initial)) / 10 + offset))

    return Decays(
        moved(MOMENTUM_DECAYS, theta["momentum_decays"]),
        jnp.clip(moved(RMS_DECAYS, theta["rms_decays"]), 0, 1),
        jnp.clip(moved(FACTORED_DECAYS, theta["factored_decays"]), 0, 1),
    )


def _public_paths(layers: int) -> dict[str, str]:
    decays = {name: name for name in ("momentum_decays", "rms_decays")}
    return {
        **decays,
        "adafactor_decays": "factored_decays",
        **{f"nn/~/w{i}": f"rule/layer_{i}/kernel" for i in range(layers)},
        **{f"nn/~/b{i}": f"rule/layer_{i}/bias" for i in range(layers)},
    }
