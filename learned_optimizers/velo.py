"""VeLO, a hypernetwork optimizer (Metz et al. 2022, arXiv 2211.09760).

For each tensor an LSTM reads how far training is, how the loss goes and the moments of the tensor's
gradient, and writes controls c and a step size. The controls mix the weights of a small network,
W = 100 mean_k(c_k W_k), which then writes each element's direction:

    p <- p - size * dir * exp(1e-3 * mag) * sqrt(mean p^2 + 1e-9) * 1e-3

Two oddities are kept since the published weights depend on them: the variance of the second moment
is taken about the mean of the momenta, and the "released" loss features are constant.
"""

from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from metaopt import LearnedOptimizer
from metaopt.learned_optimizers.equal_shapes import over_tensors, rows_of_tensors
from metaopt.learned_optimizers.factored import (
    GRADIENT_CLIP,
    Accumulators,
    FactoredRule,
    accumulate,
    element_inputs,
    example_features,
    fixed_decays,
    init_accumulators,
    on_features,
    rule_paths,
)
from metaopt.learned_optimizers.features import apply, validate_widths
from metaopt.learned_optimizers.recurrent import Carry, log_magnitude, start_carry
from metaopt.learned_optimizers.scheduler import (
    SHORTEST_HALF_LIFE,
    LossBuffer,
    Scheduler,
    fraction_features,
    init_losses,
    init_scheduler,
    scheduler_paths,
    update_losses,
    validate_sizes,
)
from metaopt.learned_optimizers.slices import mean_over_slices
from metaopt.learned_optimizers.transformation import learned_optimizer, transformation

LossFeatures = Literal["corrected", "released"]

RMS_DECAY = 0.999
MIX_MULT = 100.0
EXP_MULT = STEP_MULT = 1e-3
RANKS = 5
TENSOR_FEATURES = 30


class VeLOState(NamedTuple):
    """What VeLO carries.

    Attributes:
      step: int32 scalar, updates done.
      accumulators: of the gradients.
      losses: moving averages of the loss.
      carry: the LSTM's, a row for each tensor that has elements, in the order of the leaves.
    """

    step: jax.Array
    accumulators: Accumulators
    losses: LossBuffer
    carry: Carry


def velo(
    *,
    lstm_hidden_size: int = 128,
    param_inits: int = 64,
    hidden: tuple[int, ...] = (4, 4),
    loss_features: LossFeatures = "corrected",
) -> LearnedOptimizer:
    """VeLO's hypernetwork: an LSTM for each tensor mixes the weights of a 30 -> 4 -> 4 -> 3 MLP.

    The published weights are of ``lstm_hidden_size=512, param_inits=256,
    loss_features="released"``. Needs the horizon, and the loss at every update.

    Args:
      lstm_hidden_size: width of the LSTM.
      param_inits: K, how many sets of weights it mixes.
      hidden: widths of the MLP's hidden layers.
      loss_features: how the loss enters: ``"corrected"``, or ``"released"`` as public checkpoints
        were trained.

    Raises:
      ValueError: for a size that is not a positive integer, or other loss features; later, where
        ``num_steps`` or ``value`` is not given.

    Examples:
      >>> optimizer = velo(lstm_hidden_size=8, param_inits=4)
      >>> theta = optimizer.init(jax.random.key(0))
      >>> tx, params = optimizer.optimizer(theta, num_steps=100), {"w": jnp.ones((3, 2))}
      >>> state = tx.init(params)
      >>> updates, state = tx.update(params, state, params, value=jnp.float32(1.0))
    """
    validate_sizes(lstm_hidden_size=lstm_hidden_size, param_inits=param_inits)
    hidden = validate_widths(hidden)
    if loss_features not in get_args(LossFeatures):
        raise ValueError(f"loss_features must be 'corrected' or 'released', got {loss_features!r}.")
    scheduler, rule = Scheduler(lstm_hidden_size, param_inits), FactoredRule(hidden)
    decays = fixed_decays(RMS_DECAY)

    def init_theta(key):
        scheduler_key, rule_key = jax.random.split(key)
        init_rule = lambda key: rule.init(key, *example_features())["params"]
        return {
            "scheduler": init_scheduler(scheduler_key, scheduler, TENSOR_FEATURES),
            "rule": jax.vmap(init_rule)(jax.random.split(rule_key, param_inits)),
        }

    def optimizer(theta, horizon):
        longest = horizon if loss_features == "corrected" else SHORTEST_HALF_LIFE

        def init(params):
            carry = start_carry(theta["scheduler"]["start"], len(jax.tree.leaves(params)))
            return VeLOState(jnp.int32(0), init_accumulators(params), init_losses(longest), carry)

        def update(grads, state, params, value):
            grads = jax.tree.map(lambda g: jnp.clip(g, -GRADIENT_CLIP, GRADIENT_CLIP), grads)
            losses, loss_inputs = update_losses(state.losses, value, state.step)
            shared = fraction_features(state.step.astype(jnp.float32) / horizon), loss_inputs

            before = state.accumulators
            rows = rows_of_tensors(
                lambda p, m, v: tensor_features(p, m, v, *shared),
                params, before.momentum, before.rms,
            )  # fmt: skip
            # All is read before anything is written: the accumulators change in place.
            rows, before = jax.lax.optimization_barrier((rows, before))
            carry, controls, sizes = apply(
                scheduler,
                theta["scheduler"]["network"],
                state.carry,
                rows,
            )
            mix = lambda w: MIX_MULT / param_inits * jnp.tensordot(controls, w, axes=1)
            weights = jax.tree.map(mix, theta["rule"])  # leaves [tensors, ...]

            accumulators = accumulate(before, grads, decays)

            def step(*tensor_and_own):
                *tensor, own, size = tensor_and_own
                return -size * rule_step(rule, own, *tensor)

            results = over_tensors(step, grads, params, *accumulators, rows=(weights, sizes))
            updates = jax.tree.unflatten(jax.tree.structure(grads), results)
            return updates, VeLOState(state.step + 1, accumulators, losses, carry)

        return transformation("velo", init, update, reads=("params", "value"))

    return learned_optimizer(
        "velo",
        init_theta,
        optimizer,
        scheduler_paths() | rule_paths(hidden, "rule/"),
        needs_num_steps=True,
    )


def rule_step(rule: FactoredRule, weights, gradient, parameter, *statistics) -> jax.Array:
    """dir * exp(1e-3 mag) * sqrt(mean p^2 + 1e-9) * 1e-3 of one tensor; Celo's as well."""

    def step(planes, scales):
        direction, magnitude = apply(rule, weights, planes, scales)
        return direction * jnp.exp(EXP_MULT * magnitude)

    scale = jnp.sqrt(jnp.mean(jnp.square(parameter)) + 1e-9)
    return on_features(step, element_inputs(gradient, parameter, *statistics)) * scale * STEP_MULT


def tensor_features(
    parameter: jax.Array, momentum: jax.Array, rms: jax.Array, fraction: jax.Array, loss: jax.Array
) -> jax.Array:
    """The LSTM's inputs for one tensor: float32 ``[30]``.

    Args:
      parameter: the tensor ``[...]``.
      momentum: ``[..., 3]``, before this step's update.
      rms: ``[..., 1]`` EMA of the squared gradients; float32.
      fraction: `fraction_features`.
      loss: the loss's features.
    """
    axes, shape = tuple(range(parameter.ndim)), parameter.shape

    def means(p, m, v):
        return jnp.square(p).mean(), m.mean(axes), v.mean(axes)

    mean_square, mean_m, mean_rms = mean_over_slices(means, shape, parameter, momentum, rms)

    def variances(m, v):  # that of the second moment about mean_m: an oddity that is kept
        return jnp.square(m - mean_m).mean(axes), jnp.square(v - mean_m).mean(axes)

    var_m, var_rms = mean_over_slices(variances, shape, momentum, rms)
    scale = jax.lax.rsqrt(jnp.maximum(1e-9, mean_square))
    mean_rms, var_m, var_rms = scale * mean_rms, scale**2 * var_m, scale**2 * var_rms
    rank = np.arange(RANKS) == sum(n > 1 for n in parameter.shape)
    moments = [log_magnitude(10 * x) for x in (mean_rms, var_m, var_rms)]
    return jnp.concatenate([fraction, loss, moments[0], jnp.float32(rank), *moments[1:]])
