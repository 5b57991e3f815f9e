"""Muon for matrices and Adam for the rest, with learned corrections: it starts as both.

A matrix has the gradient g and momenta m_1 and m_2 with decays b_1 and b_2; n is Nesterov's
b_1 m_1 + (1 - b_1) g. Each of them is divided by its root mean square. A small network reads how
large they are and whether they agree, and gives every element its own c_i:

    O = NS(n + c_0 g + c_1 m_1 + c_2 m_2)                         NS: five Newton-Schulz steps
    O <- O (columns' second moment of O)^(-q / 2)
    p <- p - rate k O / |O|_rms - rate wd p,    k = 0.2 (fan_in / 64)^a (fan_out / 64)^b

c_i, q and b start at 0 and a at -1/2: Muon (Jordan et al. 2024), its steps as large as Adam's often
are at a fan-in of 64. Vectors and scalars take Adam's step with rate r. Whatever theta says, a
matrix moves in the span of its gradients, by a size that its shape alone decides.

Without a rate of the user's, rate(t) = exp(log_rate + s(t/T)) (T/100)^h times a warm-up and a
cosine, s linear between its knots. The columns' second moment is NorMuon's (arXiv 2510.05491);
exponents of the shape stand for what is derived in Tensor Programs V (arXiv 2203.03466).
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from metaopt import LearnedOptimizer, Theta
from metaopt.learned_optimizers.arguments import Number, valid_number
from metaopt.learned_optimizers.equal_shapes import over_tensors
from metaopt.learned_optimizers.features import ema, validate_widths
from metaopt.learned_optimizers.newton_schulz import newton_schulz
from metaopt.learned_optimizers.planes import init_network, network
from metaopt.learned_optimizers.slices import in_slices
from metaopt.learned_optimizers.transformation import learned_optimizer, transformation

DECAYS = (0.95, 0.99)
"""Where the momenta's decays start; the first is Muon's."""

FEATURES = 6
MATCHED = 0.2
"""Root mean square of a step over the rate, at `WIDTH`."""
WIDTH = 64
HORIZON = 100
WARM_UP = 0.05
SMALLEST = 1e-30
"""A mean square that is taken for 0."""


class GatedMuonState(NamedTuple):
    """What the optimizer carries.

    Attributes:
      step: int32 scalar, updates done.
      momenta: of matrices like the parameters, for each decay; of others Adam's two moments.
      columns: of matrices the second moment of their steps' columns; of others a scalar 0.
    """

    step: jax.Array
    momenta: tuple[optax.Updates, ...]
    columns: optax.Updates


def gated_muon(
    *,
    learning_rate: Number | optax.Schedule | None = None,
    start_rate: float = 1e-2,
    weight_decay: float = 1e-2,
    knots: int = 5,
    hidden: Sequence[int] = (8,),
) -> LearnedOptimizer:
    """Muon whose momenta are mixed by an MLP, 6 -> 8 -> 3, and Adam; 101 meta-parameters.

    Args:
      learning_rate: a number, or a schedule of the step as optax has them, in place of theta's rate
        and schedule. Without one the optimizer needs the horizon.
      start_rate: where theta's own peak rate starts, at the reference horizon of 100 steps.
      weight_decay: where theta's decoupled decay starts.
      knots: of the schedule.
      hidden: widths of the network's hidden layers.

    Raises:
      ValueError: for a number that is not finite and above 0, fewer than 2 knots, a width that is
        not a positive integer; later, where ``num_steps`` is not given and needed.

    Examples:
      >>> optimizer = gated_muon()
      >>> theta = optimizer.init(jax.random.key(0))
      >>> sum(leaf.size for leaf in jax.tree.leaves(theta))
      101
      >>> tx, params = optimizer.optimizer(theta, num_steps=50), {"w": jnp.ones((3, 2))}
      >>> updates, state = tx.update(params, tx.init(params), params)
      >>> tx = gated_muon(learning_rate=optax.cosine_decay_schedule(0.01, 100)).optimizer(theta)
    """
    valid_number("start_rate", start_rate, above=0)
    valid_number("weight_decay", weight_decay, above=0)
    is_own = learning_rate is None
    if not is_own and not callable(learning_rate):
        valid_number("learning_rate", learning_rate)
    if not isinstance(knots, int) or knots < 2:
        raise ValueError(f"knots must be an integer of at least 2, got {knots!r}.")
    hidden = validate_widths(hidden)
    widths = (FEATURES, *hidden, 1 + len(DECAYS))

    def init_theta(key):
        log = lambda x: jnp.log(jnp.float32(x))
        return {
            "gates": init_network(key, widths),
            "matrix": {
                "log_one_minus_betas": jnp.log(1 - jnp.array(DECAYS)),
                "fan_in_exponent": jnp.float32(-0.5),
                "fan_out_exponent": jnp.float32(0.0),
                "column_exponent": jnp.float32(0.0),
                "log_one_minus_column_beta": log(0.05),
            },
            "rate": {
                "log_rate": log(start_rate),
                "log_weight_decay": log(weight_decay),
                "schedule": jnp.zeros(knots),
                "horizon_exponent": jnp.float32(0.0),
            },
            "vector": {
                "log_rate": jnp.float32(0.0),
                "log_one_minus_beta1": log(0.1),
                "log_one_minus_beta2": log(0.01),
                "log_epsilon": log(1e-8),
            },
        }

    def optimizer(theta, horizon):
        given = learning_rate if callable(learning_rate) else lambda step: learning_rate
        decay = jnp.exp(theta["rate"]["log_weight_decay"])

        def init(params):
            zeros = optax.tree.zeros_like(params)
            of_columns = lambda p: jnp.zeros(_sides(p.shape)[1] if p.ndim > 1 else ())
            return GatedMuonState(jnp.int32(0), (zeros, zeros), jax.tree.map(of_columns, params))

        def update(grads, state, params, value):
            del value
            of_theta = lambda step: learned_rate(theta["rate"], step, horizon)
            rate = jnp.float32((of_theta if is_own else given)(state.step))

            def step(g, m, n, columns):
                if g.ndim < 2:
                    return *adam_step(theta["vector"], state.step, g, m, n), columns
                return matrix_step(theta, state.step, g, m, n, columns)

            results = over_tensors(step, grads, *state.momenta, state.columns)
            structure: Any = jax.tree.structure(grads)
            steps, m, n, columns = (
                jax.tree.unflatten(structure, each) for each in zip(*results, strict=True)
            )
            updates = jax.tree.map(lambda s, p: -rate * (s + decay * p), steps, params)
            return updates, GatedMuonState(state.step + 1, (m, n), columns)

        return transformation("gated_muon", init, update)

    return learned_optimizer("gated_muon", init_theta, optimizer, needs_num_steps=is_own)


def learned_rate(theta: Theta, step: jax.Array, horizon: jax.Array) -> jax.Array:
    """The rate of a step by theta's own schedule: a warm-up, a cosine to 0, and what was learned.

    Examples:
      >>> theta = gated_muon().init(jax.random.key(0))["rate"]
      >>> [round(float(learned_rate(theta, jnp.int32(t), 100.0)), 5) for t in (0, 4, 52, 99)]
      [0.001, 0.009, 0.005, 0.0]
    """
    done = jnp.minimum((step.astype(jnp.float32) + 0.5) / horizon, 1.0)
    falling = (1 + jnp.cos(jnp.pi * (done - WARM_UP) / (1 - WARM_UP))) / 2
    shape = jnp.where(done < WARM_UP, done / WARM_UP, falling)
    knots = jnp.linspace(0, 1, theta["schedule"].size, dtype=jnp.float32)
    log_rate = theta["log_rate"] + jnp.interp(done, knots, theta["schedule"])
    log_rate += theta["horizon_exponent"] * jnp.log(horizon / HORIZON)
    return jnp.exp(log_rate) * shape


def adam_step(
    theta: Theta, step: jax.Array, g: jax.Array, m: jax.Array, v: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Adam's step of a vector or scalar, over the rate, uphill; and its two moments."""
    b1 = 1 - jnp.exp(theta["log_one_minus_beta1"])
    b2 = 1 - jnp.exp(theta["log_one_minus_beta2"])
    t = step.astype(jnp.float32) + 1
    m, v = ema(m, g, b1), ema(v, g * g, b2)
    root = jnp.sqrt(v / (1 - b2**t) + SMALLEST) + jnp.exp(theta["log_epsilon"])
    return jnp.exp(theta["log_rate"]) * m / (1 - b1**t) / root, m, v


def matrix_step(
    theta: Theta, step: jax.Array, g: jax.Array, m: jax.Array, n: jax.Array, columns: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """The step of a tensor of two axes or more, over the rate, uphill; its momenta, its columns."""
    own = theta["matrix"]
    betas = 1 - jnp.exp(own["log_one_minus_betas"])
    m, n = ema(m, g, betas[0]), ema(n, g, betas[1])
    nominal = betas[0] * m + (1 - betas[0]) * g
    u = [x * _inverse_rms(x) for x in (g, m, n, nominal)]

    def mixed(*u):
        gates = network(theta["gates"], _features(*u))
        return u[-1] + sum(c * x for c, x in zip(gates, u, strict=False))

    rows, width = _sides(g.shape)
    x = newton_schulz(in_slices(mixed, g.shape, *u).reshape(rows, width))
    x = x * _inverse_rms(x)
    beta = 1 - jnp.exp(own["log_one_minus_column_beta"])
    columns = ema(columns, jnp.mean(jnp.square(x), axis=0), beta)
    corrected = columns / (1 - beta ** (step.astype(jnp.float32) + 1))
    x = x * (corrected + 1e-3) ** (-own["column_exponent"] / 2)
    scale = MATCHED * (rows / WIDTH) ** own["fan_in_exponent"]
    scale *= (width / WIDTH) ** own["fan_out_exponent"]
    return (scale * _inverse_rms(x) * x).reshape(g.shape), m, n, columns


def _features(g: jax.Array, m: jax.Array, n: jax.Array, nominal: jax.Array) -> list[jax.Array]:
    """Planes between -1 and 1: sizes, and whether those of different memory agree."""
    g, m, n, _ = (x / (1 + jnp.abs(x)) for x in (g, m, n, nominal))
    return [jnp.abs(g), jnp.abs(m), jnp.abs(n), g * m, m * n, g * n]


def _inverse_rms(x: jax.Array) -> jax.Array:
    return jax.lax.rsqrt(jnp.mean(jnp.square(x)) + SMALLEST)


def _sides(shape: tuple[int, ...]) -> tuple[int, int]:
    """A tensor's axes as the rows (fan-in) and columns (fan-out) of a matrix as square as can be.

    Examples:
      >>> _sides((3, 3, 16, 32)), _sides((64, 4, 16)), _sides((4, 16, 64))
      ((144, 32), (64, 64), (64, 64))
    """
    splits = [(math.prod(shape[:i]), math.prod(shape[i:])) for i in range(1, len(shape))]
    return min(splits, key=lambda sides: max(sides) / max(1, min(sides)))
