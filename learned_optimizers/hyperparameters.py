"""Classical optimizers whose hyper-parameters are meta-learned, in logarithms.

The rules are optax's; theta holds the numbers they are called with. They are the simplest learned
optimizers there are: a check on the whole meta-training, and the tuned baseline's equal.
"""

import jax
import jax.numpy as jnp
import optax

from metaopt import LearnedOptimizer
from metaopt.learned_optimizers.arguments import valid_number
from metaopt.learned_optimizers.features import ema, without_spikes
from metaopt.learned_optimizers.transformation import learned_optimizer, transformation

EPS_ROOT = 1e-8


def sgd(*, learning_rate: float = 0.01) -> LearnedOptimizer:
    """Gradient descent; theta is ``log_lr``.

    Args:
      learning_rate: where theta starts.

    Examples:
      >>> sgd(learning_rate=1.0).init(jax.random.key(0))
      {'log_lr': Array(0., dtype=float32)}
    """
    init = _logs(log_lr=("learning_rate", learning_rate))

    def optimizer(theta, num_steps):
        return _citizen("sgd", optax.sgd(jnp.exp(theta["log_lr"])))

    return learned_optimizer("sgd", init, optimizer, {"log_lr": "log_lr"})


def sgdm(*, learning_rate: float = 0.01, momentum: float = 0.9) -> LearnedOptimizer:
    """Gradient descent with heavy-ball momentum; theta adds ``log_one_minus_momentum``.

    Args:
      learning_rate: where theta starts.
      momentum: where the momentum's decay starts.
    """
    init = _logs(
        log_lr=("learning_rate", learning_rate),
        log_one_minus_momentum=("1 - momentum", 1 - momentum),
    )

    def optimizer(theta, num_steps):
        momentum = 1 - jnp.exp(theta["log_one_minus_momentum"])
        tx = optax.sgd(jnp.exp(theta["log_lr"]), momentum=momentum)
        return _citizen("sgdm", tx)

    paths = {"log_lr": "log_lr", "one_minus_momentum": "log_one_minus_momentum"}
    return learned_optimizer("sgdm", init, optimizer, paths)


def inverse_time_sgdm(
    *,
    learning_rate: float = 0.01,
    exponent: float = 1.0,
    time_scale: float = 5000.0,
    momentum: float = 0.9,
) -> LearnedOptimizer:
    """Heavy-ball momentum whose rate falls as exp(theta_0) / (1 + t / time_scale)^theta_1.

    The schedule whose two numbers Vicol et al. 2021 (PES, arXiv 2112.13835) and Vicol 2023
    (ES-Single, arXiv 2304.11153) tune: theta is ``log_lr`` and ``exponent``.

    Args:
      learning_rate: where the first rate starts.
      exponent: where theta_1 starts.
      time_scale: in steps.
      momentum: its decay, which is not learned.

    Examples:
      >>> optimizer = inverse_time_sgdm(learning_rate=1.0, time_scale=1.0, momentum=0.0)
      >>> tx = optimizer.optimizer(optimizer.init(jax.random.key(0)))
      >>> _, state = tx.update(jnp.ones(1), tx.init(jnp.ones(1)), jnp.ones(1))
      >>> tx.update(jnp.ones(1), state, jnp.ones(1))[0].tolist()
      [-0.5]
    """
    valid_number("learning_rate", learning_rate, above=0)
    valid_number("time_scale", time_scale, above=0)
    valid_number("momentum", momentum)
    valid_number("exponent", exponent)

    def init(key):
        return {"log_lr": jnp.log(jnp.float32(learning_rate)), "exponent": jnp.float32(exponent)}

    def optimizer(theta, num_steps):
        def rate(step):
            falling = (1 + step.astype(jnp.float32) / time_scale) ** -theta["exponent"]
            return jnp.exp(theta["log_lr"]) * falling

        tx = optax.sgd(rate, momentum=momentum)
        return _citizen("inverse_time_sgdm", tx)

    return learned_optimizer("inverse_time_sgdm", init, optimizer)


def adam(
    *,
    learning_rate: float = 1e-3,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    eps_root: bool = True,
) -> LearnedOptimizer:
    """Adam; theta is ``log_lr``, ``log_one_minus_beta1``, ``..._beta2`` and ``log_epsilon``.

    Args:
      learning_rate: where theta starts.
      beta1: where the first moment's decay starts.
      beta2: where the second moment's decay starts.
      epsilon: where the term that is added to the root starts.
      eps_root: whether 1e-8 is added under the root, as public checkpoints were trained, which
        keeps the update differentiable where the second moment is 0. It is no part of theta.
    """
    init = _logs(
        log_lr=("learning_rate", learning_rate),
        log_one_minus_beta1=("1 - beta1", 1 - beta1),
        log_one_minus_beta2=("1 - beta2", 1 - beta2),
        log_epsilon=("epsilon", epsilon),
    )

    def optimizer(theta, num_steps):
        lr, eps = jnp.exp(theta["log_lr"]), jnp.exp(theta["log_epsilon"])
        b1 = 1 - jnp.exp(theta["log_one_minus_beta1"])
        b2 = 1 - jnp.exp(theta["log_one_minus_beta2"])
        under_root = EPS_ROOT if eps_root else 0.0

        def init(params):
            zeros = optax.tree.zeros_like(params)
            return optax.ScaleByAdamState(jnp.int32(0), zeros, zeros)

        def update(grads, state, params, value):
            del params, value
            # Not optax.adam: its bias correction cannot be differentiated where promotion of
            # dtypes is strict.
            count = state.count + 1
            t = count.astype(jnp.float32)
            clip = lambda g, v: without_spikes(g, v, 1 - b2 ** (t - 1))
            grads = jax.tree.map(clip, grads, state.nu)
            mu = jax.tree.map(lambda m, g: ema(m, g, b1), state.mu, grads)
            nu = jax.tree.map(lambda v, g: ema(v, g**2, b2), state.nu, grads)

            def step(m, v):
                root = jnp.sqrt(v / (1 - b2**t) + under_root)
                return -lr * (m / (1 - b1**t)) / (root + eps)

            return jax.tree.map(step, mu, nu), optax.ScaleByAdamState(count, mu, nu)

        return transformation("adam", init, update, reads=())

    paths = {
        "log_lr": "log_lr",
        "one_minus_beta1": "log_one_minus_beta1",
        "one_minus_beta2": "log_one_minus_beta2",
        "log_epsilon": "log_epsilon",
    }
    return learned_optimizer("adam", init, optimizer, paths)


def _logs(**values: tuple[str, float]):
    for name, value in values.values():
        valid_number(name, value, above=0)
    return lambda key: {leaf: jnp.log(jnp.float32(v)) for leaf, (_, v) in values.items()}


def _citizen(name: str, tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """One of optax's own, in float32."""
    update = lambda grads, state, params, value: tx.update(grads, state, params)
    return transformation(name, tx.init, update, reads=())
