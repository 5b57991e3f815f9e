"""Running statistics against NumPy, and through estimators and the outer step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import metaopt
from metaopt import Observations, RunningStatistics, UnrolledProblem, estimators, outer
from metaopt.core.running import merge_observations
from metaopt.core.vector import vector_of
from metaopt.tasks import cartpole, pendulum


def test_they_are_the_mean_and_variance_of_all_that_was_seen():
    """Three rounds of 4 particles with 2 halves and 5 steps; far from 0, and one value constant."""
    rng = np.random.default_rng(0)
    rounds = rng.normal([1.0, -30.0, 2.0], [2.0, 5.0, 0.0], (3, 4, 2, 5, 3)).astype(np.float32)
    theta = {"w": jnp.ones(2), "seen": RunningStatistics.fresh((3,))}
    for values in rounds:
        state = Observations.none((3,))
        state = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (4, 2, *leaf.shape)), state)
        add = jax.vmap(jax.vmap(lambda seen, x, s=theta["seen"]: seen.add(s, x)))
        for step in range(5):
            state = add(state, values[:, :, step])
        theta, (state,) = merge_observations(theta, (state,))
        assert not any(leaf.any() for leaf in jax.tree.leaves(state))
    flat = rounds.reshape(-1, 3)
    assert float(theta["seen"].samples) == pytest.approx(len(flat))
    np.testing.assert_allclose(theta["seen"].mean, flat.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(theta["seen"].variance, flat.var(axis=0), rtol=1e-3, atol=1e-3)
    normal = jax.vmap(theta["seen"].normalise)(jnp.asarray(flat))[:, :2]
    np.testing.assert_allclose(normal.mean(axis=0), 0.0, atol=1e-2)
    np.testing.assert_allclose(normal.std(axis=0), 1.0, atol=1e-2)


def test_what_is_not_finite_is_not_counted():
    theta = RunningStatistics.fresh((2,))
    values = jnp.array([[1.0, 3.0], [jnp.nan, 3.0], [1e30, 3.0], [3.0, 3.0]])
    seen = jax.vmap(lambda x: Observations.none((2,)).add(theta, x))(values)
    theta, _ = merge_observations(theta, seen)
    assert float(theta.samples) == pytest.approx(2.0, abs=1e-3)
    np.testing.assert_allclose(theta.mean, [2.0, 3.0], rtol=1e-3)


def test_there_is_one_at_most():
    theta = [RunningStatistics.fresh(())] * 2
    with pytest.raises(ValueError, match="one RunningStatistics, got 2"):
        merge_observations(theta, ())


def counting(theta, state, data):
    """Observes 1, 2, 3, ...; the loss is theta's weight times what is normalised."""
    step, seen = state
    step = step + 1.0
    x = theta["seen"].normalise(step)
    return (step, seen.add(theta["seen"], step)), theta["w"] * x


COUNTS = UnrolledProblem(
    init=lambda theta, data, horizon, key: (jnp.float32(0.0), Observations.none(())),
    step=counting,
    init_theta=lambda key: {"seen": RunningStatistics.fresh(()), "w": jnp.float32(0.5)},
)


@pytest.mark.parametrize(
    "estimator, counted",
    [
        (estimators.nres(COUNTS, particles=4, horizon=8, window=4, sigma=0.1, stagger="none"), 32),
        (estimators.pes(COUNTS, particles=4, horizon=8, window=4, sigma=0.1, stagger="none"), 32),
        (estimators.truncated_es(COUNTS, particles=4, horizon=8, window=4, sigma=0.1,
                                 stagger="none"), 16),
        (estimators.forward(COUNTS, particles=4, horizon=8, window=4, stagger="none"), 16),
        (estimators.uoro(COUNTS, particles=4, horizon=8, window=4, stagger="none"), 16),
        (estimators.tbptt(COUNTS, particles=4, horizon=8, window=4, stagger="none"), 16),
    ],
    ids=["nres", "pes", "truncated_es", "forward", "uoro", "tbptt"],
)  # fmt: skip
def test_an_outer_step_moves_them_by_what_was_seen_alone(estimator, counted):
    """Neither noise, gradient, weight decay nor clipping does; theta's own step is as without."""
    tx = optax.chain(optax.clip_by_global_norm(1e-3), optax.adamw(0.1, weight_decay=0.5))
    theta = COUNTS.init_theta(jax.random.key(0))
    state = outer.init(estimator, tx, theta, (), jax.random.key(1))
    step = jax.jit(outer.make_step(estimator, tx))
    for seen in (4, 8):  # the episode's first half, then both
        state, row = step(state, ())
        expected = np.arange(1, seen + 1)
        statistics = state.theta["seen"]
        assert float(statistics.samples) == pytest.approx(counted * seen / 4, rel=1e-4)
        assert float(statistics.mean) == pytest.approx(expected.mean(), rel=1e-4)
        assert float(statistics.variance) == pytest.approx(expected.var(), rel=1e-3)
        assert 0 < float(row["grad_norm"]) < 100
    assert abs(float(state.theta["w"]) - 0.5) > 0.01


@pytest.mark.parametrize("factory, width", [(cartpole, 4), (pendulum, 3)])
def test_a_normalised_policy_is_the_plain_one_of_normalised_observations(factory, width):
    """A linear policy of (x - mean) / deviation is one of x, with its weights over deviations."""
    plain, normal = factory(test_episodes=3), factory(test_episodes=3, normalise=True)
    rng = np.random.default_rng(0)
    mean, deviation = rng.normal(0, 0.05, width), rng.uniform(0.5, 2.0, width)
    layer = normal.init_theta(jax.random.key(0))["layer_0"]
    kernel = jnp.asarray(rng.normal(0, 1, layer["kernel"].shape), jnp.float32)
    arrays = (jnp.asarray(values, jnp.float32) for values in (mean, deviation**2))
    statistics = RunningStatistics(jnp.float32(9.0), *arrays)
    theta = {"layer_0": layer | {"kernel": kernel}, "observations": statistics}
    scaled = kernel / jnp.asarray(deviation, jnp.float32)[:, None]
    same = {"layer_0": {"kernel": scaled, "bias": layer["bias"] - jnp.asarray(mean, jnp.float32)
                        @ scaled}}  # fmt: skip
    key = jax.random.key(1)
    ours, theirs = jax.jit(normal.test_loss)(theta, (), key), plain.test_loss(same, (), key)
    assert float(ours) == pytest.approx(float(theirs), rel=1e-3)


def test_a_run_keeps_them_beside_its_vector(tmp_path):
    """Stopped in the middle as well; they are in theta as it is saved."""
    chosen = estimators.NRES(particles=4, horizon=8, window=4, sigma=0.1, stagger="none")
    how = {"problem": COUNTS, "name": "counts", "estimator": chosen, "quiet": True}
    metaopt.train("tiny", out=tmp_path / "run", outer_steps=1, **how)
    run = metaopt.train("tiny", out=tmp_path / "run", outer_steps=2, **how)
    seen = run.theta["seen"]
    assert float(seen.samples) == pytest.approx(64, rel=1e-4)
    assert float(seen.mean) == pytest.approx(4.5, rel=1e-4)
    assert float(seen.variance) == pytest.approx(np.arange(1, 9).var(), rel=1e-3)


def test_a_vector_leaves_them_out():
    """As a run has theta: all that is learned in one vector, and the statistics beside it."""
    theta = {"a": jnp.ones(2), "b": RunningStatistics.fresh((3,)), "c": jnp.zeros((2, 2))}
    vector = vector_of(lambda key: theta)
    flat, statistics = vector.ravel(theta)
    assert flat.tolist() == [1, 1, 0, 0, 0, 0] and isinstance(statistics, RunningStatistics)
    back = vector.unravel((flat + 1, statistics))
    assert jax.tree.structure(back) == jax.tree.structure(theta)
    assert back["c"].tolist() == [[1, 1], [1, 1]] and back["b"].variance.tolist() == [1, 1, 1]
