"""What a learned optimizer cannot do without, found by trying."""

import jax
import jax.numpy as jnp

from metaopt.core.types import LearnedOptimizer, Theta


def needs(optimizer: LearnedOptimizer, theta: Theta) -> list[str]:
    """Which of ``"num_steps"``, ``"params"`` and ``"value"`` an optimizer cannot do without.

    Examples:
      >>> from metaopt.learned_optimizers import LEARNED_OPTIMIZERS
      >>> mlp = LEARNED_OPTIMIZERS["mlp"]()
      >>> needs(mlp, mlp.init(jax.random.key(0)))
      ['params']
    """
    everything = {"num_steps": 10, "params": jnp.ones((2, 2)), "value": jnp.float32(1.0)}

    def refuses(without):
        given = everything | {without: None}

        def once(grads):
            with jax.numpy_dtype_promotion("standard"):
                tx = optimizer.optimizer(theta, given["num_steps"])
                state = tx.init(grads)
                return tx.update(grads, state, given["params"], value=given["value"])

        try:
            jax.eval_shape(once, everything["params"])
        except ValueError:
            return True
        return False

    return [argument for argument in everything if refuses(argument)]
