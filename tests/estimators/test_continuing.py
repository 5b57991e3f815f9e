"""Episodes that go on: unbiased by length, tilted by struggle as on paper, resumed to the bit."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs

from metaopt import UnrolledProblem, UserError
from metaopt.estimators import gpes, nres, pes
from metaopt.estimators.continuing import no_visit, watch
from metaopt.parallel.sharding import particle_mesh
from metaopt.tasks import PROBLEMS
from metaopt.training.experiment import build
from metaopt.training.loop import train

pytestmark = pytest.mark.slow

HORIZON, WINDOW, CHANCE = 4, 2, 0.5


def accumulating(bend=0.0, level=0.0):
    """s_t = s_{t-1} + theta, L_t = s_t + bend t (theta^2 - level): at theta = 0 a slope of t."""

    def step(theta, state, data):
        total, t = state[0] + theta, state[1] + 1
        return (total, t), (total + bend * t * (theta**2 - level)).sum()

    return UnrolledProblem(
        init=lambda theta, data, horizon, key: (jnp.zeros_like(theta), jnp.float32(0)),
        step=step,
        init_theta=lambda key: jnp.zeros(1),
        data=lambda: (),
    )


def long_run(problem, updates, make=nres, particles=512, **options):
    """The mean estimate with its standard error, of blocks of updates, and the last metrics."""
    estimator = make(
        problem, particles=particles, horizon=HORIZON, window=WINDOW, sigma=0.5, **options
    )
    theta = jnp.zeros(1)

    def step(state, i):
        said, state = estimator.estimate(theta, state, (), jax.random.fold_in(jax.random.key(1), i))
        return state, (said.grad[0], said.metrics)

    state = estimator.init(theta, (), jax.random.key(0))
    _, (grads, metrics) = jax.jit(lambda s: jax.lax.scan(step, s, jnp.arange(updates)))(state)
    settled = np.asarray(grads, np.float64)[updates // 5 :].reshape(16, -1).mean(axis=1)
    return settled.mean(), settled.std() / 4, metrics


@pytest.mark.parametrize("make", [nres, pes])
def test_by_length_the_estimate_is_unbiased_for_the_longer_visits(make):
    """A visit of G episodes of T: the slope is E[sum_t t] / E[T G], G geometric."""
    mean, second = 1 / (1 - CHANCE), (1 + CHANCE) / (1 - CHANCE) ** 2
    expected = (HORIZON**2 * second + HORIZON * mean) / (2 * HORIZON * mean)
    assert expected == 6.5
    found, error, metrics = long_run(
        accumulating(), 640, make, continue_from="length", continue_probability=CHANCE
    )
    assert abs(found - expected) < 4 * error and error < 0.25
    # Of a visit in progress the steps so far; each particle is seen at its windows' ends.
    ages = (HORIZON**2 * second / (2 * HORIZON * mean)) + WINDOW / 2
    assert float(metrics["mean_visit"][128:].mean()) == pytest.approx(ages, rel=0.05)
    assert int(metrics["longest_visit"].max()) > 5 * HORIZON
    without, error, _ = long_run(accumulating(), 640, make)
    assert abs(without - (HORIZON + 1) / 2) < 4 * error


def test_by_struggle_the_gradient_is_multiplied_by_the_noises_second_moment():
    """With L_t = s_t + b t (theta^2 - c), visits go on where eps^2 > c, c = sigma^2 here."""
    level = 0.25  # sigma^2, so that P(z^2 > 1) of them go on
    found, error, _ = long_run(
        accumulating(40.0, level), 640, continue_from="struggle", continue_probability=CHANCE
    )
    mean, second = 1 / (1 - CHANCE), (1 + CHANCE) / (1 - CHANCE) ** 2
    rise = math.erfc(1 / math.sqrt(2))  # P(z^2 > 1)
    above = rise + 2 * math.exp(-0.5) / math.sqrt(2 * math.pi)  # E[z^2; z^2 > 1]
    of_one = HORIZON * (HORIZON + 1) / 2
    of_visit = (HORIZON**2 * second + HORIZON * mean) / 2
    weighted = (1 - above) * of_one + above * of_visit
    expected = weighted / (HORIZON * ((1 - rise) + rise * mean))
    assert abs(found - expected) < 4 * error and error < 0.4
    untilted = ((1 - rise) * of_one + rise * of_visit) / (HORIZON * ((1 - rise) + rise * mean))
    assert expected > untilted + 5 * error  # so that the tilt is seen


def test_cusum_is_pages():
    losses = np.random.default_rng(0).normal(size=(3, 2, 5)).astype(np.float32)
    visit, cusum, peak, last = no_visit(), 0.0, 0.0, None
    for window in losses:
        visit, before = watch(visit, jnp.asarray(window)), peak
        for loss in window.astype(np.float64).mean(axis=0):
            cusum = 0.0 if last is None else max(0.0, cusum + loss - last)
            peak, last = max(peak, cusum), loss
        assert visit.cusum == pytest.approx(cusum, abs=1e-5)
        assert bool(visit.struggles) == (peak > before)


@pytest.mark.parametrize("what", ["length", "struggle"])
def test_devices_change_nothing(what):
    problem = PROBLEMS["linear_recursion"]()
    arguments = {"particles": 4, "horizon": 8, "window": 2, "sigma": 0.5, "continue_from": what}
    theta = problem.init_theta(jax.random.key(0))

    def after(mesh):
        estimator = nres(problem, mesh=mesh, **arguments)
        state, step = estimator.init(theta, (), jax.random.key(0)), jax.jit(estimator.estimate)
        for i in range(12):
            said, state = step(theta, state, (), jax.random.key(i))
        return said, state

    (one, state), (two, same) = after(None), after(particle_mesh(2))
    np.testing.assert_allclose(one.grad, two.grad, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(state.episode.elapsed, same.episode.elapsed)
    np.testing.assert_array_equal(state.remaining, same.remaining)
    assert int(one.metrics["longest_visit"]) == int(two.metrics["longest_visit"])


def continuing(what, **values):
    estimator = dataclasses.replace(
        runs.TINY.estimator, continue_from=what, continue_probability=0.8, **values
    )
    return dataclasses.replace(runs.TINY, estimator=estimator)


@pytest.mark.parametrize("what", ["length", "struggle"])
def test_a_run_goes_on_to_the_bit_and_with_more_particles(what, tmp_path):
    config = continuing(what)
    whole = train(config, tmp_path / "whole")
    train(config, tmp_path / "parts", should_stop=runs.after(1))
    parts = train(config, tmp_path / "parts")
    for a, b in zip(runs.bits(whole.state), runs.bits(parts.state), strict=True):
        np.testing.assert_array_equal(a, b)
    rows = runs.metrics(tmp_path / "whole")
    assert rows == runs.metrics(tmp_path / "parts")
    assert what == "struggle" or max(row["longest_visit"] for row in rows) > 8
    more = continuing(what, particles=2 * config.estimator.particles)
    with pytest.warns(UserWarning, match="8 particles where there were 4"):
        train(dataclasses.replace(more, outer_steps=16), tmp_path / "parts")
    assert len(runs.metrics(tmp_path / "parts")) == 16


def test_what_is_refused():
    problem = PROBLEMS["linear_recursion"]()
    gpes_with = lambda **options: gpes(
        problem, particles=2, horizon=8, window=2, sigma=0.1, reuse=8, **options
    )
    with pytest.raises(ValueError, match="continue_from must be 'length' or 'struggle', got 'x'"):
        gpes_with(continue_from="x")
    with pytest.raises(ValueError, match=r"continue_probability must be .* below 1, got 1\.0"):
        gpes_with(continue_from="length", continue_probability=1.0)
    mortal = problem._replace(done=lambda state: jnp.bool_(False))
    with pytest.raises(ValueError, match="leave continue_from out"):
        nres(mortal, particles=2, horizon=8, window=2, sigma=0.1, continue_from="length")
    knows_its_end = dataclasses.replace(
        continuing("length"),
        optimizer=dataclasses.replace(runs.TINY.optimizer, name="scheduled_adam"),
    )
    with pytest.raises(UserError, match="do not need to know how many steps"):
        build(knows_its_end)
