"""Runs with several thetas: --outer.population."""

import dataclasses

import jax
import numpy as np
import pytest
from runs import TINY, after, bits, metrics
from safetensors.numpy import load_file

from metaopt import Run, SteinConfig, UserError
from metaopt.diagnosis.candidates import subject_of
from metaopt.training import loop
from metaopt.training.experiment import build
from metaopt.training.whole_episodes import best_by_validation

pytestmark = pytest.mark.slow


def of(thetas, particles=4, steps=13, **stein):
    outer = dataclasses.replace(TINY.outer, population=thetas, stein=SteinConfig(**stein))
    estimator = dataclasses.replace(TINY.estimator, particles=particles)
    return dataclasses.replace(TINY, outer=outer, estimator=estimator, outer_steps=steps)


def test_a_killed_and_resumed_population_ends_with_the_same_bits(tmp_path):
    whole = loop.train(of(3), tmp_path / "whole")
    loop.train(of(3), tmp_path / "halves", should_stop=after(3))
    halves = loop.train(of(3), tmp_path / "halves")
    assert halves.resumed_at > 0
    for one, other in zip(bits(whole.state), bits(halves.state), strict=True):
        np.testing.assert_array_equal(one, other)
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "halves")


def test_the_best_by_validation_is_what_is_left_behind(tmp_path):
    result = loop.train(of(3), tmp_path)
    all_of_them = load_file(tmp_path / "population.safetensors")
    losses = all_of_them["validation"]
    assert losses.shape == (3,) and len(set(losses.tolist())) == 3
    best = losses.argmin()
    assert np.array_equal(all_of_them["log_lr"][best], Run(tmp_path).theta["log_lr"])
    # The same as measured anew, one theta by itself.
    one = jax.tree.map(lambda leaf: leaf[None], result.theta)
    _, (again,) = best_by_validation(
        result.experiment.one, one, result.data, TINY.estimator.horizon
    )
    np.testing.assert_allclose(again, losses[best], rtol=1e-5)


def test_a_theta_that_sees_no_other_goes_as_if_alone():
    """Clipping, moments and rates are its own: with a kernel of no width nothing is shared."""
    alone = {"own_gradients": True, "bandwidth": 1e-6}
    experiments = [build(of(1)), build(of(2, **alone))]
    tx_one, tx_two = (experiment.tx for experiment in experiments)
    theta = experiments[1].vector.ravel(experiments[1].problem.init_theta(jax.random.key(0)))
    grads = jax.random.normal(jax.random.key(1), theta.shape) * 100.0  # far above the clip
    with jax.numpy_dtype_promotion("standard"):  # optax mixes counters and floats
        for i in range(2):
            np.testing.assert_allclose(
                second_update(tx_two, theta, grads)[i],
                second_update(tx_one, theta[i], grads[i]),
                rtol=1e-6,
            )


def second_update(tx, theta, grads):
    """The first one has the rate 0 of a warm-up's start."""
    _, state = tx.update(grads, tx.init(theta), theta)
    updates, _ = tx.update(grads * 2.0, state, theta)
    assert np.all(updates != 0)
    return updates


def test_more_particles_join_a_population(tmp_path):
    loop.train(of(2, steps=5), tmp_path)
    said = []
    result = loop.train(of(2, particles=6, steps=8), tmp_path, on_notice=said.append)
    assert result.finished and "6 particles" in said[0]


def test_the_best_is_what_is_diagnosed(tmp_path):
    result = loop.train(of(2, steps=2), tmp_path)
    subject = subject_of(str(tmp_path))
    np.testing.assert_array_equal(subject.theta["log_lr"], result.theta["log_lr"])
    state = subject.problem.init(subject.theta, subject.problem.data(), 8, jax.random.key(0))
    assert subject.problem.step(subject.theta, state, subject.problem.data())[1].shape == ()


@pytest.mark.parametrize(
    "thetas, stein, message",
    [
        (0, {}, "outer.population must be at least 1, got 0"),
        (1, {"repulsion": 2.0}, "give outer.population"),
        (2, {"repulsion": -1.0}, "repulsion must be"),
        (2, {"bandwidth": 0.0}, "bandwidth must be"),
    ],
)
def test_what_cannot_be_is_refused(thetas, stein, message):
    with pytest.raises(UserError, match=message):
        build(of(thetas, **stein))
