"""What a large theta costs: of memory for each particle, and of what devices say to each other."""

import math
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import TINY, after, bits
from small import estimator as make

from metaopt import UnrolledProblem
from metaopt.core.sizes import bytes_of
from metaopt.estimators import noise, nres
from metaopt.estimators.averages import CELLS, sketch
from metaopt.estimators.kernel import Rollout
from metaopt.parallel.sharding import particle_mesh
from metaopt.training.loop import train

pytestmark = pytest.mark.slow

D = 3000
THETA = {"a": jnp.linspace(-1.0, 1.0, D - 5), "b": jnp.ones(5)}


def wide(theta_like=THETA):
    """A recursion whose state is one number and whose theta are thousands."""

    def step(theta, state, data):
        drive = sum(jnp.sin(leaf + state["t"]).mean() for leaf in jax.tree.leaves(theta))
        x = 0.5 * state["x"] + drive
        return {"x": x, "t": state["t"] + 1.0}, x**2

    return UnrolledProblem(
        init=lambda theta, data, horizon, key: {"x": jax.random.normal(key), "t": jnp.float32(0)},
        step=step,
        init_theta=lambda key: theta_like,
    )


def three_updates(estimator):
    state = jax.jit(estimator.init)(THETA, (), jax.random.key(0))
    said, update = [], jax.jit(estimator.estimate)
    for i in range(3):
        estimate, state = update(THETA, state, (), jax.random.key(i))
        said.append(estimate)
    return said, state


@pytest.mark.parametrize("name", ["nres", "full_es", "forward"])
def test_noise_that_is_drawn_again_has_the_same_bits(name, monkeypatch):
    arguments = {"reuse": None} if name == "forward" else {}
    kept, state = three_updates(make(name, wide(), **arguments))
    monkeypatch.setattr(noise, "LARGE", 1)
    again, small = three_updates(make(name, wide(), **arguments))
    assert bytes_of(state) - bytes_of(small) == 4 * bytes_of(THETA)
    sigma = getattr(state.carry, "sigma", jnp.ones(4))
    drawn = noise.drawn_noise("gaussian", Rollout(4, 8, 8))
    draw = jax.jit(jax.vmap(partial(drawn, THETA, block=jnp.int32(0))))
    for a, b in zip(bits(draw(small.episode, sigma)), bits(state.carry.noise_sum), strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.abs(kept[-1].grad["a"]).max() > 0.01
    for a, b in zip(bits(kept), bits(again), strict=True):  # another program sums otherwise
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)


def test_a_run_that_draws_its_noise_again_resumes_to_the_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(noise, "is_drawn_again", lambda noise, inner: True)
    whole = train(TINY, tmp_path / "whole").state
    train(TINY, tmp_path / "cut", should_stop=after(2))
    cut = train(TINY, tmp_path / "cut")
    assert 0 < cut.resumed_at < TINY.outer_steps
    assert cut.state.estimator.carry.noise_sum == ()
    for a, b in zip(bits(cut.state), bits(whole), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_large_theta_is_no_part_of_a_particles_state():
    large, small = jnp.zeros(noise.LARGE // 4), jnp.zeros(noise.LARGE // 4 - 1)
    size = lambda theta: bytes_of(
        jax.eval_shape(make("nres", wide(theta)).init, theta, (), jax.random.key(0))
    )
    assert size(large) < 4 * 100
    assert size(small) - size(large) == 4 * bytes_of(small)
    # Where blocks of noise are summed it is the sum that is kept.
    pes = make("pes", wide(large))
    assert bytes_of(jax.eval_shape(pes.init, large, (), jax.random.key(0))) > 4 * noise.LARGE


def test_an_outer_step_reduces_one_theta():
    estimator = nres(wide(), particles=4, horizon=4, window=2, sigma=0.1, mesh=particle_mesh(2))
    state = estimator.init(THETA, (), jax.random.key(0))
    arguments = (THETA, state, (), jax.random.key(1))
    program = jax.jit(estimator.estimate).lower(*arguments).compile().as_text()
    (shapes,) = re.findall(
        r"= (.*) (?:all-\w+|collective-\w+|reduce-scatter)(?:-start)?\(", program
    )
    sizes = [
        math.prod(map(int, s.split(","))) if s else 1 for s in re.findall(r"\[([\d,]*)\]", shapes)
    ]
    assert D <= sum(sizes) <= D + 2 * CELLS + 16


def test_a_sketch_compares_large_sums():
    draw = np.random.default_rng(0)
    a, b = draw.normal(size=(2, 40_000))
    for cosine in (-0.9, 0.0, 0.5, 1.0):
        pair = np.stack([a, cosine * a + math.sqrt(1 - cosine**2) * b]).astype(np.float32)
        halves = {"x": jnp.asarray(pair[:, :7000]), "y": jnp.asarray(pair[:, 7000:])}
        even, odd = np.asarray(sketch(halves, jax.random.key(1)), np.float64)
        found = even @ odd / np.linalg.norm(even) / np.linalg.norm(odd)
        exact = pair[0] @ pair[1] / np.linalg.norm(pair[0]) / np.linalg.norm(pair[1])
        assert found == pytest.approx(exact, abs=3 / math.sqrt(CELLS))
    doubled = sketch(jax.tree.map(lambda leaf: 2 * leaf, halves), jax.random.key(1))
    np.testing.assert_allclose(doubled, 2 * np.stack([even, odd]), rtol=1e-5)


def test_of_a_small_theta_the_halves_are_compared_exactly():
    halves = {"x": jnp.arange(8.0).reshape(2, 2, 2), "y": jnp.ones((2, 1))}
    expected = [[0, 1, 2, 3, 1], [4, 5, 6, 7, 1]]
    assert sketch(halves, jax.random.key(0)).tolist() == expected
