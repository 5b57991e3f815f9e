"""The catalogue's optimizers at sizes that compile fast, each made once."""

from functools import cache

import jax
import jax.numpy as jnp

from metaopt.learned_optimizers import LEARNED_OPTIMIZERS

SMALL = {
    "celo": {"lstm_hidden_size": 4},
    "lstm": {"hidden": (3, 3)},
    "velo": {"lstm_hidden_size": 4, "param_inits": 2},
}


@cache
def made(name):
    """An optimizer and its theta."""
    optimizer = LEARNED_OPTIMIZERS[name](**SMALL.get(name, {}))
    return optimizer, jax.jit(optimizer.init)(jax.random.key(0))


def specs(tree):
    """Shapes and dtypes."""
    return jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.asarray(leaf).dtype), tree)
