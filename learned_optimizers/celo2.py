"""Celo2: a learned rule with the user's schedule and weight decay (arXiv 2602.19142).

A small network reads the statistics of each element of a matrix and writes a direction; Celo2 then
orthogonalises it by five Newton-Schulz steps, as Muon does, X <- a X + (b A + c A A) X, A = X X^T;
either way its root mean square is brought to 1. With rate lr and weight decay wd

    p <- p - lr * (step + wd * p)

Vectors and scalars take Adam's step with 20 times the rate. No horizon, no loss.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from metaopt import LearnedOptimizer, Theta
from metaopt.learned_optimizers.arguments import Number, valid_number
from metaopt.learned_optimizers.equal_shapes import over_tensors
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
from metaopt.learned_optimizers.features import apply, inverse_rms
from metaopt.learned_optimizers.newton_schulz import newton_schulz
from metaopt.learned_optimizers.transformation import learned_optimizer, transformation

HIDDEN = (8, 8)
EPSILON = 1e-9
RMS_DECAY = 0.95
VECTOR_RATE = 20.0


class Celo2State(NamedTuple):
    """What the optimizer carries.

    Attributes:
      accumulators: of the gradients of matrices; None in the place of other tensors.
      adam: optax's own for the other tensors; None in the place of matrices.
    """

    accumulators: Accumulators
    adam: optax.ScaleByAdamState


def celo2(
    *, learning_rate: Number | optax.Schedule = 1e-3, weight_decay: Number = 0.0
) -> LearnedOptimizer:
    """Celo2, 30 -> 8 -> 8 -> 3 and orthogonalised: 347 meta-parameters.

    Its updates are final: hand them to `optax.apply_updates`. In a chain of your own use
    `scale_by_celo2`.

    Args:
      learning_rate: a number, or a schedule of the step as optax has them.
      weight_decay: wd, decoupled: it is multiplied by the rate.

    Raises:
      ValueError: for a negative or non-finite rate or decay.

    Examples:
      >>> optimizer = celo2(learning_rate=optax.cosine_decay_schedule(1e-3, 100))
      >>> theta = optimizer.init(jax.random.key(0))
      >>> sum(leaf.size for leaf in jax.tree.leaves(theta))
      347
      >>> tx, params = optimizer.optimizer(theta), {"w": jnp.eye(3)}
      >>> updates, state = tx.update(params, tx.init(params), params)
    """
    return _optimizer("celo2", learning_rate, weight_decay, orthogonalize=True)


def celo2_base(
    *, learning_rate: Number | optax.Schedule = 1e-3, weight_decay: Number = 0.0
) -> LearnedOptimizer:
    """Celo2 without orthogonalisation: the learned direction itself; 347 meta-parameters.

    Args:
      learning_rate: as for `celo2`.
      weight_decay: as for `celo2`.

    Raises:
      ValueError: as for `celo2`.
    """
    return _optimizer("celo2_base", learning_rate, weight_decay, orthogonalize=False)


def scale_by_celo2(
    theta: Theta, *, orthogonalize: bool = True
) -> optax.GradientTransformationExtraArgs:
    """Celo2's step before rate and decay, in the convention of optax's ``scale_by_*``.

    A step points uphill, as a gradient does; matrices, and matrices over the last two of more axes,
    have a step with root mean square 1. Vectors and scalars get that of
    ``optax.scale_by_adam(0.9, 0.95, 1e-8)``, which `celo2` takes with 20 times the rate.

    Args:
      theta: meta-parameters of `celo2` or `celo2_base`.
      orthogonalize: as `celo2`, or as `celo2_base`.

    Examples:
      >>> theta = celo2().init(jax.random.key(0))
      >>> tx = optax.chain(scale_by_celo2(theta), optax.scale_by_learning_rate(1e-2))
      >>> params = {"w": jnp.eye(3)}
      >>> updates, state = tx.update(params, tx.init(params), params)
    """
    rule = FactoredRule(HIDDEN, used=1)
    theta = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), theta)
    decays = fixed_decays(RMS_DECAY)
    adam = optax.scale_by_adam(0.9, 0.95, 1e-8)

    def matrix_step(inputs):  # of one matrix
        direction = lambda planes, scales: apply(rule, theta, planes, scales)[0]
        step = on_features(direction, inputs, epsilon=EPSILON, rms_epsilon=1e-8)
        step = newton_schulz(step) if orthogonalize else step
        return step * inverse_rms(step[..., None], EPSILON)

    def step(g, *tensor):
        inputs = element_inputs(g, *tensor)
        over_leading_axes = matrix_step
        for _ in range(g.ndim - 2):
            over_leading_axes = jax.vmap(over_leading_axes)
        if g.ndim > 2:  # rows or columns may be of length 1 there
            lead = g.shape[:-2]
            whole = lambda x: jnp.broadcast_to(x, (*lead, *x.shape[g.ndim - 2 :]))
            inputs = {name: whole(x) for name, x in inputs.items()}
        return over_leading_axes(inputs)

    def init(params):
        matrices, vectors = _split(params)
        return Celo2State(init_accumulators(matrices), adam.init(vectors))

    def update(grads, state, params, value):
        del value
        (matrix_grads, vector_grads), (matrices, _) = _split(grads), _split(params)
        clipped = jax.tree.map(lambda g: jnp.clip(g, -GRADIENT_CLIP, GRADIENT_CLIP), matrix_grads)
        accumulators = accumulate(state.accumulators, clipped, decays)
        results = over_tensors(step, clipped, matrices, *accumulators)
        steps = jax.tree.unflatten(jax.tree.structure(clipped), results)
        vector_steps, adam_state = adam.update(vector_grads, state.adam)
        joined = jax.tree.map(
            lambda g, matrix, vector: vector if g.ndim < 2 else matrix, grads, steps, vector_steps
        )
        return joined, Celo2State(accumulators, adam_state)

    return transformation("celo2", init, update)


def _optimizer(name, learning_rate, weight_decay, orthogonalize) -> LearnedOptimizer:
    for argument, value in (("learning_rate", learning_rate), ("weight_decay", weight_decay)):
        if not (argument == "learning_rate" and callable(value)):
            valid_number(argument, value)
    rule = FactoredRule(HIDDEN)

    def init_theta(key):
        return rule.init(key, *example_features())["params"]

    def optimizer(theta, num_steps):
        del num_steps  # the schedule is the user's
        step = scale_by_celo2(theta, orthogonalize=orthogonalize)
        tx = optax.chain(
            step,
            optax.add_decayed_weights(weight_decay),
            optax.scale_by_learning_rate(learning_rate),
        )

        def update(grads, state, params, value):
            del value
            updates, state = tx.update(grads, state, params)
            rate = lambda u: VECTOR_RATE * u if u.ndim < 2 else u
            return jax.tree.map(rate, updates), state

        return transformation(name, tx.init, update)

    return learned_optimizer(name, init_theta, optimizer, rule_paths(HIDDEN))


def _split(tree):
    """Tensors of two or more axes, and the others; None where the other half has the tensor."""
    matrices = jax.tree.map(lambda leaf: leaf if leaf.ndim >= 2 else None, tree)
    return matrices, jax.tree.map(lambda leaf: leaf if leaf.ndim < 2 else None, tree)
