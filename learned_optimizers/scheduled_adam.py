"""Adam with a meta-learned schedule: few meta-parameters, hence found from few particles.

With t of T steps done, m and v Adam's corrected moments, and s linear between its K knots in t/T

    rate = exp(log_lr + s(t/T)) (T/100)^a                  and exp(log_vector_rate) for vectors
    p <- p - rate |p|_rms^b m / (sqrt(v) + eps)  - rate wd p

It starts as Adam: s, a, b and log_vector_rate are 0. A learned list of hyper-parameters and
schedules is a strong baseline for every learned rule (Metz et al. 2020, arXiv 2002.11887).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from metaopt import Key, LearnedOptimizer, Theta
from metaopt.learned_optimizers.arguments import valid_number
from metaopt.learned_optimizers.features import ema, without_spikes
from metaopt.learned_optimizers.transformation import learned_optimizer, transformation

HORIZON = 100
"""T at which the horizon's exponent changes nothing."""


def scheduled_adam(
    *, learning_rate: float = 1e-2, weight_decay: float = 1e-4, knots: int = 9
) -> LearnedOptimizer:
    """Adam whose hyper-parameters and schedule are learned; needs the horizon. 17 meta-parameters.

    Args:
      learning_rate: where theta starts, at the reference horizon of 100 steps.
      weight_decay: where theta's decay starts; decoupled, multiplied by the rate.
      knots: K, of the schedule.

    Raises:
      ValueError: for a number that is not finite and above 0, fewer than 2 knots; later, where
        ``num_steps`` is not given.

    Examples:
      >>> optimizer = scheduled_adam()
      >>> theta = optimizer.init(jax.random.key(0))
      >>> sum(leaf.size for leaf in jax.tree.leaves(theta))
      17
      >>> tx, params = optimizer.optimizer(theta, num_steps=50), {"w": jnp.ones((3, 2))}
      >>> updates, state = tx.update(params, tx.init(params), params)
    """
    init_theta = init_hyperparameters(learning_rate, weight_decay, knots)

    def optimizer(theta, horizon):
        b1 = 1 - jnp.exp(theta["log_one_minus_beta1"])

        def init(params):
            zeros = optax.tree.zeros_like(params)
            return optax.ScaleByAdamState(jnp.int32(0), zeros, zeros)

        def update(grads, state, params, value):
            del value
            t = state.count.astype(jnp.float32)
            now = hyperparameters(theta, t, horizon)
            clip = lambda g, v: without_spikes(g, v, 1 - now.beta2**t)
            grads = jax.tree.map(clip, grads, state.nu)
            mu = jax.tree.map(lambda m, g: ema(m, g, b1), state.mu, grads)
            nu = jax.tree.map(lambda v, g: ema(v, g * g, now.beta2), state.nu, grads)
            correction = 1 - b1 ** (t + 1)
            step = lambda m, v, p: now.step(m / correction / now.root(v), p)
            updates = jax.tree.map(step, mu, nu, params)
            return updates, optax.ScaleByAdamState(state.count + 1, mu, nu)

        return transformation("scheduled_adam", init, update)

    return learned_optimizer("scheduled_adam", init_theta, optimizer, needs_num_steps=True)


class Hyperparameters(NamedTuple):
    """What holds at one step.

    Attributes:
      beta2: decay of the second moment.
      root: ``v -> sqrt(v) + eps``, v not yet bias-corrected.
      step: ``(direction, p) -> the update``, a direction as Adam's.
    """

    beta2: jax.Array
    root: Callable[[jax.Array], jax.Array]
    step: Callable[[jax.Array, jax.Array], jax.Array]


def init_hyperparameters(
    learning_rate: float, weight_decay: float, knots: int
) -> Callable[[Key], dict[str, jax.Array]]:
    """Where theta starts: ``key -> theta``; arguments and errors as for `scheduled_adam`."""
    valid_number("learning_rate", learning_rate, above=0)
    valid_number("weight_decay", weight_decay, above=0)
    if not isinstance(knots, int) or knots < 2:
        raise ValueError(f"knots must be an integer of at least 2, got {knots!r}.")

    def init(key):
        log = lambda x: jnp.log(jnp.float32(x))
        return {
            "log_lr": log(learning_rate),
            "log_vector_rate": jnp.float32(0.0),
            "log_one_minus_beta1": log(0.1),
            "log_one_minus_beta2": log(1e-3),
            "log_epsilon": log(1e-8),
            "log_weight_decay": log(weight_decay),
            "schedule": jnp.zeros(knots),
            "horizon_exponent": jnp.float32(0.0),
            "scale_exponent": jnp.float32(0.0),
        }

    return init


def hyperparameters(theta: Theta, t: jax.Array, horizon: jax.Array) -> Hyperparameters:
    """What theta says for step t, float32, of a horizon."""
    b2 = 1 - jnp.exp(theta["log_one_minus_beta2"])
    epsilon, decay = jnp.exp(theta["log_epsilon"]), jnp.exp(theta["log_weight_decay"])
    knots = theta["schedule"].size
    at = jnp.minimum(t / horizon, 1.0) * (knots - 1)
    log_rate = theta["log_lr"] + theta["horizon_exponent"] * jnp.log(horizon / HORIZON)
    log_rate += jnp.interp(at, jnp.arange(knots, dtype=jnp.float32), theta["schedule"])

    # Roots of 0 under a small number, so that the step can be differentiated there.
    def root(v):
        return jnp.sqrt(v / (1 - b2 ** (t + 1)) + 1e-16) + epsilon

    def step(direction, p):
        rate = jnp.exp(log_rate + (theta["log_vector_rate"] if p.ndim < 2 else 0.0))
        size = jnp.sqrt(jnp.mean(jnp.square(p)) + 1e-6)
        return -rate * (size ** theta["scale_exponent"] * direction + decay * p)

    return Hyperparameters(b2, root, step)
