"""Stein variational descent: one theta is the plain loop, two part, many cover a density."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metaopt import RunningStatistics, UnrolledProblem, outer
from metaopt.estimators import nres
from metaopt.estimators.stein import direction, population_of, stein
from metaopt.tasks import lorenz

pytestmark = pytest.mark.slow

SHAPE = {"particles": 3, "horizon": 8, "window": 2, "sigma": 0.05}


def test_one_theta_is_the_plain_loop_to_the_bit():
    problem, tx, key = lorenz(test_starts=2), optax.adam(1e-2), jax.random.key(1)
    ends = []
    for estimator, start in (
        (nres(problem, **SHAPE), problem.init_theta(key)),
        (stein(nres(problem, **SHAPE), 1), problem.init_theta(key)[None]),
    ):
        state, step = outer.init(estimator, tx, start, (), key), outer.make_step(estimator, tx)
        step = jax.jit(step)
        for _ in range(6):
            state, metrics = step(state, ())
        ends.append((np.ravel(state.theta), float(metrics["loss"])))
    np.testing.assert_array_equal(ends[0][0], ends[1][0])
    assert ends[0][1] == ends[1][1]


def test_the_direction_is_the_sum_as_written():
    """In float64, pair by pair."""
    rng = np.random.default_rng(0)
    x, g = rng.normal(size=(2, 4, 3))
    h, alpha = 0.7, 0.3
    expected = np.zeros_like(x)
    for i in range(4):
        for j in range(4):
            k = np.exp(-np.square(x[j] - x[i]).sum() / (2 * h**2))
            expected[i] += (-k * g[j] + alpha * k * (x[i] - x[j]) / h**2) / 4
    arrays = [jnp.asarray(a, jnp.float32) for a in (x, g)]
    phi, median = direction(*arrays, jnp.zeros((4, 3)), h, alpha, False)
    np.testing.assert_allclose(phi, expected, rtol=1e-4, atol=1e-6)
    distances = [np.linalg.norm(x[i] - x[j]) for i in range(4) for j in range(i)]
    np.testing.assert_allclose(median, np.median(distances), rtol=1e-5)
    own, _ = direction(*arrays, jnp.zeros((4, 3)), h, 1e-12, True)
    np.testing.assert_allclose(own, -g, rtol=1e-5)


@pytest.mark.parametrize("own_gradients", [False, True])
def test_two_thetas_on_one_point_part(own_gradients):
    problem = bowl()
    estimator = stein(nres(problem, **SHAPE), 2, own_gradients=own_gradients, anneal_steps=50)
    tx, thetas = optax.sgd(0.1), jnp.zeros((2, 2))
    state = outer.init(estimator, tx, thetas, (), jax.random.key(1))
    step = jax.jit(outer.make_step(estimator, tx))
    for _ in range(50):
        state, _ = step(state, ())
    assert float(jnp.linalg.norm(state.theta[0] - state.theta[1])) > 0.1


def bowl():
    return UnrolledProblem(
        init=lambda theta, data, horizon, key: jnp.zeros(()),
        step=lambda theta, state, data: (state, jnp.square(theta).sum() / 2),
        init_theta=lambda key: jnp.zeros(2),
    )


def test_both_modes_of_a_density_are_found():
    """-log p is the loss, p an even mixture of N(-2, .5^2) and N(2, .5^2); by the maximum mean
    discrepancy the thetas are nearer to p's samples than to those of either mode alone."""

    def step(theta, state, data):
        modes = jnp.array([-2.0, 2.0])
        return state, -jax.nn.logsumexp(-jnp.square((theta[0] - modes) / 0.5) / 2)

    problem = UnrolledProblem(
        init=lambda theta, data, horizon, key: jnp.zeros(()),
        step=step,
        init_theta=lambda key: 3 * jax.random.normal(key, (1,)),
    )
    n, tx = 32, optax.adam(0.05)
    shape = {"particles": 16, "horizon": 2, "window": 2, "sigma": 0.05}
    estimator, key = stein(nres(problem, **shape), n), jax.random.key(0)
    state = outer.init(estimator, tx, population_of(problem, n).init_theta(key), (), key)
    thetas = outer.make_steps(estimator, tx, at_most=400)(state, (), 400)[0].theta[:, 0]

    rng = np.random.default_rng(0)
    samples = lambda centers: rng.choice(centers, 2000) + 0.5 * rng.normal(size=2000)
    kernel = lambda x, y: np.exp(-np.square(x[:, None] - y[None]) / 2).mean()
    mmd = lambda x, y: kernel(x, x) + kernel(y, y) - 2 * kernel(x, y)
    found = np.asarray(thetas, np.float64)
    assert mmd(found, samples([-2.0, 2.0])) < 0.05  # 32 draws from p have 0.02
    assert min(mmd(found, samples([c])) for c in (-2.0, 2.0)) > 0.2


def test_a_theta_without_a_finite_gradient_does_not_spoil_the_others():
    x, g = jnp.array([[0.0], [1.0], [2.0]]), jnp.array([[1.0], [jnp.nan], [1.0]])
    assert jnp.isfinite(direction(x, g, jnp.zeros((3, 1)), None, 1.0, False)[0]).all()
    assert not jnp.isfinite(direction(x, g * jnp.nan, jnp.zeros((3, 1)), None, 1.0, False)[0]).any()


def test_another_number_of_thetas_is_refused():
    problem = lorenz(test_starts=2)
    thetas = population_of(problem, 3).init_theta(jax.random.key(0))
    for wrong in (thetas, thetas[0]):
        with pytest.raises(ValueError, match="must have 4 thetas as axis 0"):
            stein(nres(problem, **SHAPE), 4).init(wrong, (), jax.random.key(1))
    with pytest.raises(ValueError, match="at least 1, got 0"):
        population_of(problem, 0)


def test_particles_may_be_added():
    problem = lorenz(test_starts=2)
    thetas, key = population_of(problem, 2).init_theta(jax.random.key(0)), jax.random.key(1)
    state = stein(nres(problem, **SHAPE), 2).init(thetas, (), key)
    more = stein(nres(problem, **(SHAPE | {"particles": 5})), 2)
    state = more.resize(thetas, state, (), key)
    estimate, _ = more.estimate(thetas, state, (), key)
    assert estimate.grad.shape == (2, 2) and jnp.isfinite(estimate.grad).all()
    assert float(population_of(problem, 2).test_loss(thetas, (), key)) > 0


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"thetas": 0}, "thetas must be an integer of at least 1, got 0"),
        ({"thetas": 2, "bandwidth": -1.0}, "bandwidth must be a finite number above 0, got -1.0"),
        ({"thetas": 2, "repulsion": 0.0}, "repulsion must be a finite number above 0, got 0.0"),
    ],
)
def test_faults_are_found_at_once(arguments, said):
    with pytest.raises(ValueError, match=said):
        stein(nres(lorenz(), **SHAPE), **arguments)


def test_statistics_are_refused():
    estimator = stein(nres(bowl(), **SHAPE), 2)
    with pytest.raises(ValueError, match="RunningStatistics"):
        estimator.init(RunningStatistics.fresh((2,)), (), jax.random.key(0))
