"""The catalogue's optimizers at sizes that compile fast, each made once."""

from functools import cache, partial

import jax
import jax.numpy as jnp

from learned_optimizers import LEARNED_OPTIMIZERS

SMALL = {
    "celo": {"lstm_hidden_size": 4},
    "lstm": {"hidden": (3, 3)},
    "velo": {"lstm_hidden_size": 4, "param_inits": 2},
}

jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
"""A third less compile time than the suite's own level."""


@cache
def made(name):
    """An optimizer and its theta."""
    optimizer = LEARNED_OPTIMIZERS[name](**SMALL.get(name, {}))
    return optimizer, jax.jit(optimizer.init)(jax.random.key(0))


def specs(tree):
    """Shapes and dtypes."""
    return jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.asarray(leaf).dtype), tree)
