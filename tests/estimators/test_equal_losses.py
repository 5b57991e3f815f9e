"""A loss that theta does not move: no weight, no gradient, no step, and no metric that is NaN.

Programs are compiled as they are in a run: the suite's own flags leave out the optimisations that
round one of two equal losses and not the other.
"""

import inspect
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metaopt import Estimate, GradientEstimator, UnrolledProblem, outer
from metaopt.core import backoff
from metaopt.estimators import ESTIMATORS, full_es, nres
from metaopt.estimators.averages import estimate_of
from metaopt.estimators.kernel import Rollout
from metaopt.estimators.mixture import mixture
from metaopt.estimators.shaping import shaped_differences, weigh_differences
from metaopt.parallel.sharding import over_particles, particle_mesh

pytestmark = pytest.mark.slow

jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 3})

SHAPINGS = ("raw", "standardise", "centered_rank")
SIZES = (1e-6, 1e-3, 1.0, 30.0, 1e6, -1e-6, -1.0, -7e3, -1e6)
WINDOWS = (1, 2, 3, 5, 7, 10, 20, 50, 64, 100)
ES = [name for name in ESTIMATORS if "sigma" in inspect.signature(ESTIMATORS[name]).parameters]
ALL = jnp.ones(8, bool)


class State(NamedTuple):
    x: jax.Array
    step: jax.Array


def unmoved() -> UnrolledProblem:
    """The loss is a product that changes with the episode and the step, but not with theta."""

    def step(theta, state, size):
        x = jnp.cos(3 * state.x + state.step.astype(jnp.float32))
        return State(x, state.step + 1), size * x * x

    init = lambda theta, data, horizon, key: State(jax.random.normal(key), jnp.int32(0))
    return UnrolledProblem(init, step)


def mesh_of(devices):
    return devices and particle_mesh(devices)


def shaped(shaping, losses, finite=ALL, devices=None):
    mesh = mesh_of(devices)
    share = lambda _, particles: ((), shaped_differences(shaping, *particles, mesh))
    return over_particles(share, mesh)((), (losses, finite))[1]


@pytest.mark.parametrize("window", WINDOWS)
def test_equal_losses_weigh_nothing(window):
    """Also where they are products, which a fused multiply-subtract does not round alike."""
    x, y = jax.random.normal(jax.random.key(window), (2, 8, 1, window))
    one, x, y = (jnp.repeat(half, 2, axis=1) for half in (jnp.ones_like(x), x, y))

    @partial(jit, static_argnums=4)
    def weights(one, x, y, size, devices):
        kinds = [size * losses for losses in (one, x, x * y)]
        return [shaped(shaping, losses, ALL, devices) for losses in kinds for shaping in SHAPINGS]

    for devices in (None, 2, 4):
        for size in SIZES:
            assert not np.any(weights(one, x, y, jnp.float32(size), devices))


def trained(estimator, size, steps=100):
    """Theta before and after some updates of Adam, and the metrics on the way."""
    tx = optax.adam(1e-2)
    before = {"a": jnp.array([0.1, -3.0, 1e-8]), "b": jnp.float32(7.0)}

    @jit
    def run(size):
        state = outer.init(estimator, tx, before, size, jax.random.key(1))
        return outer.make_steps(estimator, tx, at_most=steps)(state, size, steps)

    for value in np.atleast_1d(size):
        state, metrics = run(jnp.float32(value))
        yield before, state.theta, metrics


def assert_unmoved(estimator):
    for before, after, metrics in trained(estimator, SIZES):
        jax.tree.map(np.testing.assert_array_equal, after, before)
        assert np.isfinite(list(metrics.values())).all()
        zero = ("grad_norm", "snr", "half_cosine", "effective_particles", "particle_variance")
        assert not np.any([metrics[name] for name in (*zero, "skipped", "backed_off")])
        assert (metrics["step_scale"] == 1).all()


def made(name, **arguments):
    given = {"particles": 4, "horizon": 10, "window": 5, "sigma": 0.1, "reuse": 5} | arguments
    taken = inspect.signature(ESTIMATORS[name]).parameters
    return ESTIMATORS[name](unmoved(), **{k: v for k, v in given.items() if k in taken})


@pytest.mark.parametrize(
    "name, shaping",
    [(name, "raw") for name in ES]
    + [(name, shaping) for name in ("nres", "truncated_es") for shaping in SHAPINGS[1:]],
)
def test_theta_stays_where_the_loss_does_not_depend_on_it(name, shaping):
    assert_unmoved(made(name, shaping=shaping))


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if name not in ES])
def test_gradient_based_estimators_stay_as_well(name):
    assert_unmoved(made(name))


@pytest.mark.parametrize("window", [1, 100])
def test_it_stays_whatever_the_window(window):
    assert_unmoved(made("nres", window=window, horizon=2 * window))


@pytest.mark.parametrize("shaping, devices", [("raw", 2), ("raw", 4), ("standardise", 4)])
def test_it_stays_on_several_devices(shaping, devices):
    assert_unmoved(made("nres", shaping=shaping, mesh=particle_mesh(devices)))


def test_losses_at_the_cap_are_equal_and_still_say_that_theta_is_bad():
    estimator = full_es(unmoved()._replace(loss_cap=-5.0), particles=4, horizon=2, sigma=0.1)
    ((before, after, metrics),) = trained(estimator, 1.0, steps=5)
    jax.tree.map(np.testing.assert_array_equal, after, before)
    assert (metrics["skipped"] == 1).all() and (metrics["capped_pairs"] == 4).all()


def test_a_zero_estimate_is_usable_unless_losses_are_capped():
    def usable(**metrics):
        return bool(backoff.is_usable(Estimate(0.0, 0.0, metrics), jnp.float32(0.0)))

    assert usable() and usable(capped_pairs=jnp.int32(0)) and not usable(capped_pairs=jnp.int32(1))


def pairs(differences):
    """Losses ``[n, 2, 1]`` with these differences."""
    differences = jnp.asarray(differences, jnp.float32)[:, None]
    return jnp.stack([differences, jnp.zeros_like(differences)], axis=1)


@pytest.mark.parametrize("unit", [1e-30, 1e-6, 1.0, 1e6, 1e30])
def test_standardised_differences_have_no_unit(unit):
    differences = np.array([1.0, -2.0, 4.0, 0.5])
    weights = shaped("standardise", pairs(unit * differences), jnp.array([1, 1, 1, 0], bool))
    np.testing.assert_allclose(weights[:3], differences[:3] / differences[:3].std(), rtol=1e-5)


def test_differences_that_are_all_the_same_are_standardised_to_nothing():
    """The rounding that is left of their deviation is no unit."""
    rounded = 0.1 * (1 + 6e-8 * np.arange(8))
    for same in (np.full(8, 0.1), rounded, np.full(8, -3e5)):
        assert not shaped("standardise", pairs(same)).any()
    alone = jnp.arange(8) == 3
    assert not shaped("standardise", pairs(np.arange(1, 9.0)), alone)[3]
    with pytest.raises(ValueError, match=r"'standardise' needs particles of at least 2, got 1"):
        made("nres", particles=1, shaping="standardise")


def test_ranks_of_equal_losses_are_equal():
    losses = jnp.array([[[5.0], [5.0]], [[5.0], [2.0]], [[5.0], [9.0]]])
    weights = shaped("centered_rank", losses, ALL[:3])
    # In order: 2, four times 5 with the mean rank 2.5, and 9.
    np.testing.assert_allclose(weights, [0, 2.5 / 5, -2.5 / 5], rtol=1e-6)


def test_pairs_that_differ_by_rounding_of_their_sums_only_rank_alike():
    """2^25 has neighbours 4 apart, so that 1 and 1 add nothing to it and -1 and 3 do."""
    losses = jnp.array([[[2.0**25, 1, 1], [2.0**25, -1, 3]], [[2.0**25, 9, 9], [0, 0, 0]]])
    weights = shaped("centered_rank", losses, ALL[:2])
    assert weights[0] == 0 and weights[1] > 0


def test_a_sigma_whose_square_is_0_leaves_no_difference_0():
    class Carry(NamedTuple):
        sigma: jax.Array

    weigh = weigh_differences("raw", Rollout(particles=8, horizon=1, window=1))
    weights = weigh(Carry(jnp.full(8, 1e-25)), jnp.ones((8, 2, 1)), ALL)
    assert not weights.any()


def metrics_of(*grads):
    """The metrics of particles ``[d]`` that say so; ``None`` is one that is not finite."""
    finite = [np.float32(g) for g in grads if g is not None]
    squares = [g @ g for g in finite]
    halves = [sum((np.float32(g) for g in grads[i::2] if g is not None), 0.0) for i in (0, 1)]
    sums = {"finite": len(finite), "square": sum(squares), "length": sum(map(np.sqrt, squares))}
    sums |= dict.fromkeys(("loss", "capped", "resets", "uncounted"), 0.0)
    sums = {name: jnp.float32(value) for name, value in sums.items()}
    sums["halves"] = jnp.stack([jnp.zeros(2) + half for half in halves])
    sums["grad"] = sums["halves"].sum(axis=0)
    return estimate_of(sums, len(grads), 1)


def health(estimate):
    names = ("particle_variance", "snr", "half_cosine", "effective_particles")
    return [float(estimate.metrics[name]) for name in names]


def test_metrics_where_little_is_known():
    a, b, zero = np.array([3.0, 4.0]), np.array([4.0, 3.0]), np.zeros(2)
    assert health(metrics_of(zero, zero, zero)) == [0, 0, 0, 0]
    assert health(metrics_of(zero)) == [0, 0, 0, 0]
    none = metrics_of(None, None)
    assert np.isnan(none.grad).all() and health(none) == [0, 0, 0, 0]
    assert health(metrics_of(a, None)) == [0, 0, 0, 1]
    assert health(metrics_of(None, a, None)) == [0, 0, 0, 1]
    variance, snr, cosine, effective = health(metrics_of(a, None, b, None))
    assert variance == pytest.approx(1, rel=1e-5) and snr == pytest.approx(49, rel=1e-4)
    assert cosine == 0 and effective == pytest.approx(2)


def test_particles_that_agree_have_no_negative_variance():
    for seed in range(20):
        grad = np.random.default_rng(seed).normal(size=2)
        variance, snr, cosine, effective = health(metrics_of(*[grad] * 7))
        assert 0 <= variance < 1e-5 and 1e5 < snr <= 6 / np.finfo(np.float32).eps * 1.01
        assert cosine == pytest.approx(1) and effective == pytest.approx(7)


def test_a_part_of_a_mixture_that_says_0_leaves_the_others():
    problem = unmoved()

    def step(theta, state, data):
        state, loss = problem.step(theta, state, data)
        return state, loss + jnp.where(data > 0, theta, 0.0)

    part = nres(problem._replace(step=step), particles=4, horizon=4, window=2, sigma=0.1)
    both = mixture({"flat": part, "sloped": part}, normalise=True)
    theta = jnp.float32(0.5)

    @jit
    def grads(data):
        def update(state, i):
            sloped = jnp.where(i < 5, 0.0, 1.0)  # nothing says anything at first
            key = jax.random.key(i)
            estimate, state = both.estimate(theta, state, (data, sloped), key)
            return state, (estimate.grad, estimate.loss)

        state = both.init(theta, (data, data), jax.random.key(0))
        return jax.lax.scan(update, state, jnp.arange(9))[1]

    grads, losses = grads(jnp.float32(0.0))
    assert (grads[:5] == 0).all() and (abs(grads[5:]) > 0.1).all()
    assert np.isfinite(grads).all() and np.isfinite(losses).all()


def test_a_mixture_survives_a_first_estimate_that_is_not_finite():
    def estimate(theta, state, data, key):
        grad = jnp.where(state[0] == 0, jnp.inf, 0.0) * jnp.ones_like(theta)
        return Estimate(grad, jnp.float32(0), {}), state + 1

    part = GradientEstimator(lambda theta, data, key: jnp.zeros(2, jnp.int32), estimate)
    both = mixture({"a": part}, normalise=True)
    state = both.init(jnp.zeros(3), ((),), jax.random.key(0))
    first, state = both.estimate(jnp.zeros(3), state, ((),), jax.random.key(0))
    second, state = both.estimate(jnp.zeros(3), state, ((),), jax.random.key(1))
    assert np.isnan(first.grad).all() and not np.any(second.grad)
