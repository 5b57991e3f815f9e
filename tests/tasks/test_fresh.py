"""Fresh parameters from one draw are distributed as Flax's own."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaopt.tasks.fresh import fresh_parameters


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.LayerNorm()(nn.Conv(32, (3, 3))(x))
        return nn.Dense(50)(x.reshape(len(x), -1))


class Other(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x + self.param("shift", nn.initializers.zeros, (3,))


def test_their_shapes_and_moments_are_flaxs():
    model, key = Net(), jax.random.key(0)
    ours = fresh_parameters(model, 8, 8, 4)((), key)
    theirs = model.init(key, jnp.zeros((1, 8, 8, 4)))["params"]
    assert jax.tree.map(jnp.shape, ours) == jax.tree.map(jnp.shape, theirs)

    def compare(a, b):
        for moment in (np.mean, np.std, lambda x: np.abs(x).max()):
            assert moment(np.asarray(a)) == pytest.approx(
                moment(np.asarray(b)), rel=0.08, abs=0.004
            )

    jax.tree.map(compare, ours, theirs)


def test_other_kinds_of_parameters_are_refused():
    with pytest.raises(ValueError, match=r"kernel, .*, bias, scale, got 'shift'"):
        fresh_parameters(Other(), 3)
