"""A run's numbers are its own, whatever JAX was told."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import bits

import metaopt
from metaopt import estimators
from metaopt.core.own_numbers import own_numbers

pytestmark = pytest.mark.slow


def test_draws_are_the_same_under_any_setting():
    draw = own_numbers()(lambda: jax.jit(lambda: jax.random.normal(jax.random.key(1), (3,)))())
    expected = np.asarray(draw())
    with (
        jax.default_prng_impl("unsafe_rbg"),
        jax.threefry_partitionable(False),
        jax.enable_x64(True),
    ):
        assert "rbg" in str(jax.random.key_impl(jax.random.key(0)))
        np.testing.assert_array_equal(draw(), expected)
        assert "rbg" in str(jax.random.key_impl(jax.random.key(0)))  # the caller keeps its own


@pytest.mark.parametrize("setting", [{"impl": "rbg"}, {"partitionable": False}, {"double": True}])
def test_a_run_keeps_its_own_numbers(setting, tmp_path):
    whole = metaopt.train("tiny", outer_steps=4, out=tmp_path / "whole", quiet=True)
    run = metaopt.train("tiny", outer_steps=2, out=tmp_path / "run", quiet=True)
    with (
        jax.default_prng_impl(setting.get("impl", "threefry2x32")),
        jax.threefry_partitionable(setting.get("partitionable", True)),
        jax.enable_x64(setting.get("double", False)),
    ):
        run = metaopt.train("tiny", outer_steps=4, out=tmp_path / "run", quiet=True)
        anew = metaopt.train("tiny", outer_steps=4, out=tmp_path / "anew", quiet=True)
    for one in (run, anew):
        for a, b in zip(bits(one.theta), bits(whole.theta), strict=True):
            np.testing.assert_array_equal(a, b)
    assert jnp.isfinite(whole.theta["log_lr"])


def test_double_precision_changes_no_recipe(tmp_path):
    """One whose data, sizes and networks are drawn; compared loss by loss, and the report's."""
    config = dataclasses.replace(metaopt.recipe("small_scheduled_adam"), outer_steps=2)
    config = dataclasses.replace(
        config, estimator=estimators.NRES(particles=2, horizon=4, window=2)
    )
    losses = []
    for double in (False, True):
        with jax.enable_x64(double):
            run = metaopt.train(config, out=tmp_path / str(double), quiet=True)
            found = metaopt.evaluate(run, num_steps=2, seeds=2, rates=(0.1,), baselines=["adam"])
            losses.append((list(run.metrics["loss"]), [row.mean for row in found.rows]))
    assert losses[0] == losses[1]


def test_ones_own_problem_may_be_double(tmp_path):
    """A sum that only float64 has; the run is another one than in float32."""

    def step(theta, state, data):
        one = jnp.asarray(1.0, jnp.result_type(float))
        return state, ((one + 1e-12 - one) * 1e12).astype(jnp.float32) + theta["x"]

    problem = metaopt.UnrolledProblem(
        init=lambda theta, data, horizon, key: jnp.zeros(1, jnp.float32),
        step=step,
        init_theta=lambda key: {"x": jnp.float32(0.0)},
    )
    given = {"problem": problem, "name": "sums", "outer_steps": 1, "quiet": True}
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        run = metaopt.train(**given, out=tmp_path / "run")
    np.testing.assert_allclose(run.metrics["loss"], 1, rtol=1e-3)
    with pytest.raises(metaopt.UserError, match="another configuration"):
        metaopt.train(**given, out=tmp_path / "run")
