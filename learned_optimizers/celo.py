"""Celo: a learned rule times a learned scheduler (Moudgil et al. 2025, arXiv 2501.12670).

The rule is VeLO's small network with weights of its own; the scheduler is VeLO's LSTM on the
fraction of training done and the loss alone, and scales the step:

    p <- p - 0.1 exp(size) * dir * exp(1e-3 * mag) * sqrt(mean p^2 + 1e-9) * 1e-3

They are meta-trained one after the other: the rule without the scheduler, then the scheduler on
the frozen rule.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from metaopt import LearnedOptimizer
from metaopt.learned_optimizers.equal_shapes import over_tensors
from metaopt.learned_optimizers.factored import (
    GRADIENT_CLIP,
    Accumulators,
    FactoredRule,
    accumulate,
    example_features,
    fixed_decays,
    init_accumulators,
    rule_paths,
)
from metaopt.learned_optimizers.features import apply, validate_widths
from metaopt.learned_optimizers.recurrent import Carry, start_carry
from metaopt.learned_optimizers.scheduler import (
    FRACTIONS,
    LossBuffer,
    Scheduler,
    fraction_features,
    init_losses,
    init_scheduler,
    scheduler_paths,
    update_losses,
    validate_sizes,
)
from metaopt.learned_optimizers.transformation import learned_optimizer, transformation
from metaopt.learned_optimizers.velo import RMS_DECAY, rule_step


class CeloState(NamedTuple):
    """What Celo carries; without its scheduler, the accumulators.

    Attributes:
      step: int32 scalar, updates done.
      accumulators: of the gradients.
      losses: moving averages of the loss.
      carry: the LSTM's, one row: its inputs are the same for all tensors, so is its state.
    """

    step: jax.Array
    accumulators: Accumulators
    losses: LossBuffer
    carry: Carry


def celo(
    *,
    lstm_hidden_size: int = 64,
    param_inits: int = 1,
    hidden: tuple[int, ...] = (4, 4),
    scheduler: bool = True,
) -> LearnedOptimizer:
    """Celo: a 30 -> 4 -> 4 -> 3 rule and an LSTM scheduler, 37,089 meta-parameters.

    Theta has the parts ``rule`` and ``scheduler`` either way, so that what phase 1 has trained is
    where phase 2 starts. The scheduler needs the horizon, and the loss at every update.

    Args:
      lstm_hidden_size: width of the LSTM.
      param_inits: K, how many sets of the rule's weights the scheduler mixes.
      hidden: widths of the rule's hidden layers.
      scheduler: whether it is in use; ``False`` in phase 1 of meta-training, which trains the rule
        by itself (its sets of weights then count alike).

    Raises:
      ValueError: for a size that is not a positive integer, or a scheduler that is not a bool;
        later, where it is in use and ``num_steps`` or ``value`` is not given.

    Examples:
      >>> optimizer = celo()
      >>> theta = optimizer.init(jax.random.key(0))
      >>> sum(leaf.size for leaf in jax.tree.leaves(theta))
      37089
      >>> tx, params = optimizer.optimizer(theta, num_steps=100), {"w": jnp.ones((3, 2))}
      >>> state = tx.init(params)
      >>> updates, state = tx.update(params, state, params, value=jnp.float32(1.0))
    """
    validate_sizes(lstm_hidden_size=lstm_hidden_size, param_inits=param_inits)
    if not isinstance(scheduler, bool):
        raise ValueError(f"scheduler must be True or False, got {scheduler!r}.")
    hidden = validate_widths(hidden)
    network, rule = Scheduler(lstm_hidden_size, param_inits), FactoredRule(hidden)
    decays = fixed_decays(RMS_DECAY)

    def init_theta(key):
        scheduler_key, rule_key = jax.random.split(key)
        init_rule = lambda key: rule.init(key, *example_features())["params"]
        return {
            "scheduler": init_scheduler(scheduler_key, network, 2 * len(FRACTIONS)),
            "rule": jax.vmap(init_rule)(jax.random.split(rule_key, param_inits)),
        }

    def follow_rule(theta, controls, grads, accumulators, params):
        """The accumulators after these gradients, and the rule's step with K weights mixed."""
        grads = jax.tree.map(lambda g: jnp.clip(g, -GRADIENT_CLIP, GRADIENT_CLIP), grads)
        mix = lambda w: jnp.tensordot(controls, w, axes=1) / param_inits
        weights = jax.tree.map(mix, theta["rule"])

        accumulators = accumulate(accumulators, grads, decays)
        step = lambda *tensor: rule_step(rule, weights, *tensor)
        steps = over_tensors(step, grads, params, *accumulators)
        return accumulators, jax.tree.unflatten(jax.tree.structure(grads), steps)

    def unscheduled(theta, num_steps):
        del num_steps
        controls = jnp.full(param_inits, 1 / param_inits)

        def update(grads, accumulators, params, value):
            del value
            accumulators, steps = follow_rule(theta, controls, grads, accumulators, params)
            return jax.tree.map(jnp.negative, steps), accumulators

        return transformation("celo", init_accumulators, update)

    def scheduled(theta, horizon):
        def init(params):
            carry = start_carry(theta["scheduler"]["start"], 1)
            return CeloState(jnp.int32(0), init_accumulators(params), init_losses(horizon), carry)

        def update(grads, state, params, value):
            losses, loss_inputs = update_losses(state.losses, value, state.step)
            fraction = fraction_features(state.step.astype(jnp.float32) / horizon)
            carry, controls, size = apply(
                network,
                theta["scheduler"]["network"],
                state.carry,
                jnp.concatenate([fraction, loss_inputs])[None],
            )
            accumulators, steps = follow_rule(
                theta, nn.softmax(controls[0]), grads, state.accumulators, params
            )
            multiplier = 0.1 * jnp.exp(size[0])
            updates = jax.tree.map(lambda step: -multiplier * step, steps)
            return updates, CeloState(state.step + 1, accumulators, losses, carry)

        return transformation("celo", init, update, reads=("params", "value"))

    return learned_optimizer(
        "celo",
        init_theta,
        scheduled if scheduler else unscheduled,
        scheduler_paths() | rule_paths(hidden, "rule/"),
        needs_num_steps=scheduler,
    )
