"""What the catalogues hold, at sizes that compile fast."""

import inspect
from functools import cache

import jax
import jax.numpy as jnp
import pytest

from metaopt import UserError
from metaopt.estimators import ESTIMATORS
from metaopt.learned_optimizers import LEARNED_OPTIMIZERS

SMALL = {
    "celo": {"lstm_hidden_size": 4},
    "lstm": {"hidden": (3, 3)},
    "velo": {"lstm_hidden_size": 4, "param_inits": 2},
}


@cache
def made(name):
    """An optimizer and its theta, made once."""
    optimizer = LEARNED_OPTIMIZERS[name](**SMALL.get(name, {}))
    return optimizer, jax.jit(optimizer.init)(jax.random.key(0))


def specs(tree):
    """Shapes and dtypes."""
    return jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.asarray(leaf).dtype), tree)


def estimator(name, problem, **arguments):
    """An estimator of the catalogue with what it takes of the arguments."""
    factory = ESTIMATORS[name]
    arguments = {"particles": 4, "horizon": 8, "window": 2, "sigma": 0.1, "reuse": 4} | arguments
    taken = inspect.signature(factory).parameters
    return factory(problem, **{key: value for key, value in arguments.items() if key in taken})


def made_or_skipped(make, *arguments):
    """What ``make`` makes; skips the test where an extra or a data set is not on this machine."""
    try:
        return make(*arguments)
    except UserError as error:
        missing = ("pip install 'metaopt[", "is not on this machine")
        if not any(said in str(error) for said in missing):
            raise
        pytest.skip(str(error))


def weekly_but(slow, names):
    """To parametrise by: a few names in the tier ``slow``, all others in the weekly one."""
    assert set(slow) <= set(names)
    tier = lambda name: pytest.mark.slow if name in slow else pytest.mark.weekly
    return [pytest.param(name, marks=tier(name)) for name in names]
