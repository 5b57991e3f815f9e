"""A run's random numbers are its own, whatever JAX was told."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import bits

import metaopt
from metaopt.core.randomness import own_randomness


def test_draws_are_the_same_under_any_setting():
    draw = own_randomness()(lambda: jax.jit(lambda: jax.random.normal(jax.random.key(1), (3,)))())
    expected = np.asarray(draw())
    with jax.default_prng_impl("unsafe_rbg"), jax.threefry_partitionable(False):
        assert "rbg" in str(jax.random.key_impl(jax.random.key(0)))
        np.testing.assert_array_equal(draw(), expected)
        assert "rbg" in str(jax.random.key_impl(jax.random.key(0)))  # the caller keeps its own


@pytest.mark.parametrize("setting", [{"impl": "rbg"}, {"partitionable": False}])
def test_a_run_keeps_its_own_random_numbers(setting, tmp_path):
    whole = metaopt.train("tiny", outer_steps=4, out=tmp_path / "whole", quiet=True)
    run = metaopt.train("tiny", outer_steps=2, out=tmp_path / "run", quiet=True)
    with (
        jax.default_prng_impl(setting.get("impl", "threefry2x32")),
        jax.threefry_partitionable(setting.get("partitionable", True)),
    ):
        run = metaopt.train("tiny", outer_steps=4, out=tmp_path / "run", quiet=True)
        anew = metaopt.train("tiny", outer_steps=4, out=tmp_path / "anew", quiet=True)
    for one in (run, anew):
        for a, b in zip(bits(one.theta), bits(whole.theta), strict=True):
            np.testing.assert_array_equal(a, b)
    assert jnp.isfinite(whole.theta["log_lr"])
