"""Kinds of noise: what a frame is, the variances on paper, and that nothing else depends on it."""

import dataclasses
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaopt import UnrolledProblem
from metaopt.config.recipes import RECIPES
from metaopt.config.schema import from_json, to_json
from metaopt.estimators import full_es, nres, pes, truncated_es
from metaopt.estimators.kernel import CoupledEpisode, Rollout, Turn
from metaopt.estimators.noise import drawn_noise
from metaopt.parallel.sharding import particle_mesh

KINDS = ("gaussian", "orthogonal", "orthogonal_fixed", "rademacher")
COUPLED = ("orthogonal", "orthogonal_fixed")


def linear(d, length=4):
    """L_t = g . theta with |g| = 1 at every step: on it each formula is exact."""
    g = jnp.asarray(np.random.default_rng(0).normal(size=d), jnp.float32)
    g = g / jnp.linalg.norm(g)
    return UnrolledProblem(
        init=lambda theta, data, horizon, key: jnp.int32(0),
        step=lambda theta, state, data: (state + 1, jnp.vdot(g, theta)),
        init_theta=lambda key: jnp.zeros(d),
        data=lambda: (),
    ), g


def drawn(noise, particles, d, numbers):
    draw = drawn_noise(noise, Rollout(particles, 8, 8))
    zero, frames = jnp.int32(0), jax.random.key(5)

    def one(number):
        key = jax.random.fold_in(jax.random.key(6), number)
        episode = CoupledEpisode(key, zero, zero, zero, Turn(number, frames))
        return draw(jnp.zeros(d), episode, jnp.float32(2), zero)

    return np.asarray(jax.jit(jax.vmap(one))(numbers), np.float64)


@pytest.mark.parametrize("noise", COUPLED)
def test_consecutive_starters_are_orthogonal(noise):
    rows = drawn(noise, 4, 6, jnp.arange(8))
    for frame in (rows[:4], rows[4:]):
        products = frame @ frame.T
        np.testing.assert_allclose(products - np.diag(np.diag(products)), 0, atol=1e-4)
    assert np.abs(rows[:4] @ rows[4:].T).max() > 0.1  # another frame
    lengths = np.linalg.norm(rows, axis=1)
    if noise == "orthogonal_fixed":
        np.testing.assert_allclose(lengths, 2 * np.sqrt(6), rtol=1e-5)
    else:
        assert lengths.std() > 0.1
    np.testing.assert_allclose(drawn(noise, 4, 6, jnp.array([5])), rows[5:6], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("noise", KINDS)
def test_each_by_itself_has_the_variance_that_the_estimate_divides_by(noise):
    """Mean 0 and covariance sigma^2 I, within four standard errors of 8,000 draws."""
    rows = drawn(noise, 3, 3, jnp.arange(8000)) / 2
    assert np.abs(rows.mean(axis=0)).max() < 4 / np.sqrt(8000)
    np.testing.assert_allclose(rows.T @ rows / 8000, np.eye(3), atol=4 * np.sqrt(2 / 8000))
    if noise == "orthogonal":  # Gaussian, so that its fourth moment is 3
        assert (rows**4).mean() == pytest.approx(3, abs=4 * np.sqrt(96 / 24000))


def variance(d, particles, noise):
    """Of the mean estimate, over |g|^2, and its standard error; and whether the mean is g."""
    problem, g = linear(d)
    estimator = full_es(problem, particles=particles, horizon=4, sigma=0.5, noise=noise)
    theta, count = jnp.zeros(d), 2000

    def one(key):
        state = estimator.init(theta, (), key)
        return estimator.estimate(theta, state, (), jax.random.fold_in(key, 1))[0].grad

    grads = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(3), count))
    off = np.square(np.asarray(grads, np.float64) - np.asarray(g, np.float64)).sum(axis=1)
    error = np.sqrt(off.mean() / count) + 1e-4
    assert np.linalg.norm(np.asarray(grads).mean(axis=0) - g) < 4 * error
    return off.mean(), off.std() / np.sqrt(count)


@pytest.mark.parametrize("d, particles", [(8, 8), (8, 4), (3, 6)])
@pytest.mark.parametrize("noise", KINDS)
def test_the_variance_is_the_formulas(noise, d, particles):
    """Pairs in step on a linear loss; for N above d that of d pairs, times d / N."""
    rows = min(particles, d)
    expected = {
        "gaussian": (d + 1) / particles,
        "rademacher": (d - 1) / particles,
        "orthogonal": ((d + 2) / rows - 1) * rows / particles,
        "orthogonal_fixed": (d / rows - 1) * rows / particles,
    }[noise]
    found, error = variance(d, particles, noise)
    assert abs(found - expected) < 4 * error + 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("noise", COUPLED)
@pytest.mark.parametrize("make", [nres, pes, truncated_es], ids=lambda make: make.__name__)
def test_devices_change_nothing_but_the_order_of_a_sum(make, noise):
    problem, _ = linear(5)
    arguments = {"particles": 4, "horizon": 8, "window": 2, "sigma": 0.5, "noise": noise}

    def after(mesh):
        estimator = make(problem, mesh=mesh, **arguments)
        theta, step = jnp.zeros(5), jax.jit(estimator.estimate)
        state = estimator.init(theta, (), jax.random.key(0))
        for i in range(9):
            said, state = step(theta, state, (), jax.random.key(i))
        return said.grad, state.episode.turn.number

    (one, numbers), (two, same) = after(None), after(particle_mesh(2))
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(numbers, same)
    assert len(set(numbers.tolist())) == 4 and numbers.max() >= 7


def test_staggered_particles_share_frames_in_the_order_in_which_they_start():
    """Eight in eight phases: one starts at each update, and the last eight are of two frames.

    Of 56 pairs of them 35 are of one frame, on average: each takes 1/64 off the variance.
    """
    problem, g = linear(8)
    build = partial(nres, problem, particles=8, horizon=16, window=2, sigma=0.5)
    expected = {"gaussian": 72 / 64, "orthogonal": 37 / 64, "orthogonal_fixed": 21 / 64}
    for noise, variance in expected.items():
        estimator = build(noise=noise)
        theta = jnp.zeros(8)

        def one(key, estimator=estimator, theta=theta):
            def step(state, i):
                said, state = estimator.estimate(theta, state, (), jax.random.fold_in(key, i))
                return state, said.grad

            state = estimator.init(theta, (), key)
            return jax.lax.scan(step, state, jnp.arange(40))[1][20:]

        grads = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), 200))
        found = float(jnp.square(grads - g).sum(axis=-1).mean())
        assert found == pytest.approx(variance, rel=0.12)


def test_a_population_that_grows_goes_on_counting():
    problem, _ = linear(3)
    small, large = (
        nres(problem, particles=n, horizon=8, window=2, sigma=0.5, noise="orthogonal")
        for n in (2, 5)
    )
    theta, key = jnp.zeros(3), jax.random.key(0)
    state = small.init(theta, (), key)
    for _ in range(6):
        state = small.estimate(theta, state, (), key)[1]
    before = state.episode.turn.number
    grown = large.resize(theta, state, (), key).episode.turn.number
    np.testing.assert_array_equal(grown[:2], before)
    np.testing.assert_array_equal(grown[2:], before.max() + 1 + jnp.arange(3))
    said, _ = large.estimate(theta, large.resize(theta, state, (), key), (), key)
    assert np.isfinite(said.grad).all()


def test_configurations_without_the_field_are_gaussian_and_others_are_refused():
    config = RECIPES["tiny"]
    without = json.loads(to_json(config))
    assert without["estimator"].pop("noise") == "gaussian"
    assert from_json(json.dumps(without)) == config
    with pytest.raises(ValueError, match=r"noise must be 'gaussian', .*got 'cauchy'"):
        nres(linear(2)[0], particles=2, horizon=4, window=2, sigma=0.1, noise="cauchy")
    changed = dataclasses.replace(config.estimator, noise="orthogonal")
    assert from_json(to_json(dataclasses.replace(config, estimator=changed))).estimator == changed
