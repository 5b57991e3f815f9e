"""Adam with a choice of momenta, made for every element by a small network.

With t of T steps done, v Adam's second moment, m_0 the gradient, m_i momenta of learned decays, all
bias-corrected, u_i = m_i / (sqrt(v) + eps), and rate and b as in `scheduled_adam`

    p <- p - rate |p|_rms^b (u_2 + sum_i c_i u_i) - rate wd p

The network reads how large the u_i are, whether they agree, how v compares with that of the tensor,
and t/T, and writes the c_i. Its last layer starts at 0, so that the rule starts as Adam. Whatever
it says, an element whose gradients were 0 moves by weight decay alone, and a loss in other units
changes nothing but for eps: the inductive biases of STAR (Harrison et al. 2022, arXiv 2209.11208),
a nominal term and everything preconditioned, here by gates in place of a second term.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from metaopt import LearnedOptimizer
from metaopt.learned_optimizers.equal_shapes import over_tensors
from metaopt.learned_optimizers.features import (
    ema,
    validate_widths,
    without_spikes,
)
from metaopt.learned_optimizers.planes import dense, init_network
from metaopt.learned_optimizers.scheduled_adam import hyperparameters, init_hyperparameters
from metaopt.learned_optimizers.scheduler import FRACTIONS, fraction_features
from metaopt.learned_optimizers.slices import in_slices
from metaopt.learned_optimizers.transformation import learned_optimizer, transformation

DECAYS = (0.5, 0.9, 0.99)
NOMINAL = 2
"""Which of the gradient and the momenta is Adam's."""

FEATURES = 8


class GatedAdamState(NamedTuple):
    """What the optimizer carries.

    Attributes:
      step: int32 scalar, updates done.
      momenta: like the parameters, for each decay.
      nu: like the parameters, the second moment.
    """

    step: jax.Array
    momenta: tuple[optax.Updates, ...]
    nu: optax.Updates


def gated_adam(
    *,
    learning_rate: float = 1e-2,
    weight_decay: float = 1e-4,
    knots: int = 5,
    hidden: tuple[int, ...] = (8,),
) -> LearnedOptimizer:
    """Adam whose momenta are mixed by an MLP, 17 -> 8 -> 4; needs the horizon. 195 meta-parameters.

    Args:
      learning_rate: where theta starts, as in `scheduled_adam`.
      weight_decay: where theta's decoupled decay starts.
      knots: of the schedule.
      hidden: widths of the network's hidden layers.

    Raises:
      ValueError: for a number that is not finite and above 0, fewer than 2 knots, a width that is
        not a positive integer; later, where ``num_steps`` is not given.

    Examples:
      >>> optimizer = gated_adam()
      >>> theta = optimizer.init(jax.random.key(0))
      >>> sum(leaf.size for leaf in jax.tree.leaves(theta))
      195
      >>> tx, params = optimizer.optimizer(theta, num_steps=50), {"w": jnp.ones((3, 2))}
      >>> updates, state = tx.update(params, tx.init(params), params)
    """
    hidden = validate_widths(hidden)
    widths = (FEATURES + len(FRACTIONS), *hidden, 1 + len(DECAYS))
    adam_theta = init_hyperparameters(learning_rate, weight_decay, knots)

    def init_theta(key):
        adam = {
            name: value for name, value in adam_theta(key).items() if name != "log_one_minus_beta1"
        }
        decays = {"log_one_minus_betas": jnp.log(1 - jnp.array(DECAYS))}
        return {"adam": adam | decays, "gates": init_network(key, widths)}

    def gates(theta, features, fraction):
        """The planes of the c_i for those of the features.

        Weights are of standard deviation 1 and divided here, so that one sigma of the perturbation
        suits all of theta.
        """
        first = theta["kernel_0"] / jnp.sqrt(widths[0])
        shared = theta["bias_0"] + fraction @ first[FEATURES:]
        planes = dense(features, first[:FEATURES], shared)
        for i, width in enumerate(hidden, start=1):
            kernel = theta[f"kernel_{i}"] / jnp.sqrt(width)
            planes = dense([jax.nn.relu(x) for x in planes], kernel, theta[f"bias_{i}"])
        return planes

    def optimizer(theta, horizon):
        betas = 1 - jnp.exp(theta["adam"]["log_one_minus_betas"])

        def init(params):
            zeros = optax.tree.zeros_like(params)
            return GatedAdamState(jnp.int32(0), (zeros,) * len(DECAYS), zeros)

        def update(grads, state, params, value):
            del value
            t = state.step.astype(jnp.float32)
            now = hyperparameters(theta["adam"], t, horizon)
            clip = lambda g, v: without_spikes(g, v, 1 - now.beta2**t)
            grads = jax.tree.map(clip, grads, state.nu)
            average = lambda old, new, decay: jax.tree.map(lambda m, g: ema(m, g, decay), old, new)
            momenta = [average(m, grads, betas[i]) for i, m in enumerate(state.momenta)]
            nu = average(state.nu, jax.tree.map(jnp.square, grads), now.beta2)
            corrections = 1 / (1 - betas ** (t + 1))

            fraction = fraction_features(t / horizon)

            def direction(mean, is_vector, g, v, *m):  # of some of a tensor's elements
                moments = [g, *(c * x for c, x in zip(corrections, m, strict=True))]
                u = [x / now.root(v) for x in moments]
                c = gates(theta["gates"], _features(u, v, mean, is_vector), fraction)
                return u[NOMINAL] + sum(x * y for x, y in zip(c, u, strict=True))

            def step(p, g, v, *m):
                of_elements = partial(direction, v.mean(), float(v.ndim < 2))
                return now.step(in_slices(of_elements, g.shape, g, v, *m), p)

            steps = over_tensors(step, params, grads, nu, *momenta)
            updates = jax.tree.unflatten(jax.tree.structure(params), steps)
            return updates, GatedAdamState(state.step + 1, tuple(momenta), nu)

        return transformation("gated_adam", init, update)

    return learned_optimizer("gated_adam", init_theta, optimizer, needs_num_steps=True)


def _features(
    u: list[jax.Array], v: jax.Array, mean: jax.Array, is_vector: float
) -> list[jax.Array]:
    """Planes between -1 and 1, of some elements of a tensor whose second moment has this mean."""
    squashed = [x / (1 + jnp.abs(x)) for x in u]  # as tanh, for less arithmetic
    agreement = [squashed[0] * squashed[NOMINAL], squashed[1] * squashed[3]]
    relative = (v - mean - 1e-16) / (v + mean + 1e-16)
    constant = jnp.full_like(v, is_vector)
    return [*(jnp.abs(x) for x in squashed), *agreement, relative, constant]
