"""Another number of particles: those there are go on to the bit, new ones fill the phases."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from runs import TINY, after, bits, metrics
from small import estimator as make_any

from metaopt import GradientEstimator, outer
from metaopt.core import resize
from metaopt.core.errors import UserError
from metaopt.estimators import ESTIMATORS, nres
from metaopt.parallel.sharding import particle_mesh
from metaopt.tasks import linear_recursion
from metaopt.training.loop import train

pytestmark = pytest.mark.slow

PROBLEM = linear_recursion(loss="quadratic")
TX = optax.sgd(1e-2)


def make(particles, **arguments):
    """Episodes of four windows."""
    arguments = {"horizon": 8, "window": 2, "sigma": 0.1} | arguments
    return nres(PROBLEM, particles=particles, **arguments)


def run(particles, steps, **arguments):
    """A state after some outer steps."""
    estimator = make(particles, **arguments)
    theta = PROBLEM.init_theta(jax.random.key(0))
    state = outer.init(estimator, TX, theta, (), jax.random.key(1))
    return jax.jit(outer.make_steps(estimator, TX, at_most=8))(state, (), steps)[0]


def resized(state, particles, **arguments):
    estimator = make(particles, **arguments)
    return jax.jit(lambda state: resize.resize(estimator, state, ()))(state)


def rows(tree, index):
    return bits(jax.tree.map(lambda leaf: leaf[index], tree))


def same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def windows_left(state):
    """Until each particle starts anew: 0 and 4 are the same phase."""
    return (np.asarray(state.estimator.remaining) // 2 % 4).tolist()


def test_those_there_are_stay_and_new_ones_take_the_phases_between():
    state = run(4, 3)
    assert sorted(windows_left(state)) == [0, 1, 2, 3]
    more = resized(state, 8)
    same(rows(more.estimator, slice(4)), bits(state.estimator))
    same(bits(more._replace(estimator=())), bits(state._replace(estimator=())))
    assert sorted(windows_left(more)) == [0, 0, 1, 1, 2, 2, 3, 3]
    keys = jax.random.key_data(more.estimator.episode.key)
    assert len(np.unique(keys, axis=0)) == 8
    assert more.estimator.updates.tolist() == [3] * 8
    assert more.estimator.episode.updates[4:].tolist() == [3] * 4
    noise = np.asarray(more.estimator.carry.noise_sum)[4:]
    assert (noise.std(axis=0) > 0).all()  # each has its own, none is empty


def test_half_of_the_places_are_taken_evenly():
    six = windows_left(resized(run(4, 2), 6))
    assert sorted(np.bincount(six, minlength=4)) == [1, 1, 2, 2]
    a, b = np.flatnonzero(np.bincount(six, minlength=4) == 2)
    assert b - a == 2  # opposite phases


def test_of_fewer_every_so_many_th_phase_stays():
    state = run(8, 3)
    fewer = resized(state, 4)
    assert sorted(windows_left(fewer)) == [0, 1, 2, 3]
    keys = lambda state: jax.random.key_data(state.estimator.episode.key).tolist()
    index = np.array([keys(state).index(key) for key in keys(fewer)])
    assert (np.diff(index) > 0).all()
    same(bits(fewer.estimator), rows(state.estimator, index))


def test_episodes_that_go_on_do_not_notice():
    state = run(4, 3)
    more = resized(state, 8)
    advance = lambda state, n: make(n).estimate(state.theta, state.estimator, (), state.key)[1]
    advance = jax.jit(advance, static_argnums=1)
    alone, among = advance(state, 4), advance(more, 8)
    going_on = np.flatnonzero(np.asarray(state.estimator.remaining) > 0)
    assert len(going_on) == 3
    keep = lambda population: population._replace(
        carry=population.carry._replace(inner=())
    )  # noise, keys and counters
    same(rows(keep(alone), going_on), rows(keep(among), going_on))
    # How many are multiplied at once changes a product's last bits.
    inner = [rows(population.carry.inner, going_on) for population in (alone, among)]
    for a, b in zip(*inner, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("stagger", ["none", "random"])
def test_the_other_staggers(stagger):
    state = run(3, 2, stagger=stagger)
    five = resized(state, 5, stagger=stagger)
    same(rows(five.estimator, slice(3)), bits(state.estimator))
    left = windows_left(five)
    if stagger == "none":
        assert left == [left[0]] * 5
    same(bits(resized(five, 3, stagger=stagger)), bits(state))


@pytest.mark.parametrize("first_episode", ["short", "burn_in"])
def test_new_ones_begin_where_schedules_are_and_burn_in(first_episode):
    schedule = lambda step: 0.1 * 2.0 ** jnp.minimum(step.astype(jnp.float32), 10)
    arguments = {"sigma": schedule, "first_episode": first_episode}
    more = resized(run(4, 3, **arguments), 8, **arguments).estimator
    np.testing.assert_allclose(more.carry.sigma[4:], 0.8, rtol=1e-6)
    assert more.uncounted[:4].tolist() == [0] * 4
    np.testing.assert_array_equal(2 * more.uncounted[4:], more.episode.elapsed[4:])
    assert more.uncounted.sum() == 0 + 1 + 2 + 3


def test_devices_do_not_change_the_new_ones():
    state = run(4, 3)
    spread = resized(state, 8, mesh=particle_mesh(4))
    for a, b in zip(bits(spread), bits(resized(state, 8)), strict=True):
        np.testing.assert_allclose(a.astype(np.float64), b.astype(np.float64), rtol=1e-6)


def test_every_estimator_of_the_catalogue_can():
    assert all(make_any(name, PROBLEM).resize is not None for name in ESTIMATORS)
    silent = GradientEstimator(lambda *_: None, lambda *_: None)
    with pytest.raises(ValueError, match="the number of particles cannot be changed"):
        resize.resize(silent, run(4, 3), ())


def test_a_finished_run_keeps_its_number_of_particles(tmp_path):
    train(TINY, tmp_path / "run")
    before = (tmp_path / "run" / "config.json").read_text()
    other = dataclasses.replace(TINY.estimator, particles=8)
    with pytest.raises(UserError, match="is finished, with 4 particles: raise outer_steps"):
        train(dataclasses.replace(TINY, estimator=other), tmp_path / "run")
    assert (tmp_path / "run" / "config.json").read_text() == before


@pytest.mark.parametrize("particles", [8, 3])
def test_a_run_goes_on_with_more_or_fewer_and_ends_with_the_same_bits(tmp_path, particles):
    train(TINY, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    estimator = dataclasses.replace(TINY.estimator, particles=particles)
    other = dataclasses.replace(TINY, outer_steps=25, estimator=estimator)
    told = []
    whole = train(other, tmp_path / "whole", on_notice=told.append)
    assert told == [f"Resuming with {particles} particles where there were 4."]
    assert whole.resumed_at == 13
    train(other, tmp_path / "cut", should_stop=after(2), on_notice=told.append)
    cut = train(other, tmp_path / "cut")
    assert 13 < cut.resumed_at < 25
    same(bits(cut.state), bits(whole.state))
    assert metrics(tmp_path / "cut") == metrics(tmp_path / "whole")
    done = [row["unroll_steps"] for row in metrics(tmp_path / "cut")]
    burned_in = 2 * 2 * (0 + 1 + 2 + 3) * (particles > 4)  # the new ones, to their phases
    first = 2 * particles * 2 + burned_in
    assert np.diff(done).tolist() == [2 * 4 * 2] * 12 + [first] + [2 * particles * 2] * 11
