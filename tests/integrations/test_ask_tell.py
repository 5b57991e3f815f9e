"""Estimators in other people's loops, and other people's searches in ours."""

import dataclasses
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from runs import TINY, after

from metaopt import Component, UserError, as_ask_tell, outer, unroll
from metaopt.estimators import ESTIMATORS, GPES, NRES, PES, ESSingle, FullES, TruncatedES
from metaopt.evaluation.run_page import how_to_read
from metaopt.integrations.searches import Search, Start, make_search
from metaopt.tasks import linear_recursion
from metaopt.training import loop
from metaopt.training.run_directory import RunDirectory
from metaopt.training.search import search, tell_losses

pytestmark = pytest.mark.slow

PAIRS = {"particles": 3, "sigma": 0.1}
SEARCHES = ("evosax:CMA_ES", "evosax:PSO", "evosax:Open_ES", "cma:CMA", "nevergrad:TBPSA")
ALL = (*SEARCHES, "pypop7:MAES")


@pytest.mark.parametrize(
    "options",
    [
        NRES(**PAIRS, horizon=4, window=1),
        NRES(**PAIRS, horizon=4, window=1, noise="orthogonal"),
        PES(**PAIRS, horizon=4, window=1),
        GPES(**PAIRS, horizon=4, window=1, reuse=2),
        ESSingle(**PAIRS, horizon=4, window=1),
    ],
    ids=lambda options: f"{options.name}-{options.noise}",
)
def test_a_loop_outside_that_keeps_the_states_gets_the_same_thetas(options):
    """Losses measured by the caller, window by window, or by the estimator itself."""
    problem, tx, key = linear_recursion(), optax.adam(0.05), jax.random.key(0)
    theta = problem.init_theta(key)
    estimator = ESTIMATORS[options.name](problem, **options.arguments())
    ours = outer.init(estimator, tx, theta, (), key)
    step = jax.jit(outer.make_step(estimator, tx))

    outside = as_ask_tell(options, theta, tx)
    theirs, ask, tell = outside.init(key), jax.jit(outside.ask), jax.jit(outside.tell)
    begin = jax.vmap(lambda theta: problem.init(theta, (), 4, key))
    advance = jax.jit(jax.vmap(lambda theta, state: unroll(problem, theta, state, (), 1)))
    states = begin(ask(theirs)[0])
    for _ in range(10):
        ours, _ = step(ours, ())
        thetas, starts = ask(theirs)
        states = jax.vmap(optax.tree.where)(starts, begin(thetas), states)
        states, losses = advance(thetas, states)
        theirs = tell(theirs, losses[:, 0])
        np.testing.assert_allclose(outside.theta(theirs), ours.theta, rtol=1e-5, atol=1e-7)


def test_whole_episodes_and_a_theta_of_several_arrays():
    theta = {"a": jnp.ones((2, 1)), "b": jnp.zeros(())}
    outside = as_ask_tell(FullES(particles=16, horizon=1, sigma=0.1), theta, optax.sgd(0.05))
    state = outside.init(jax.random.key(0))
    assert outside.ask(state)[0]["a"].shape == (32, 2, 1)

    @jax.jit
    def update(state):
        thetas, starts = outside.ask(state)
        off = jnp.square(thetas["a"]).sum(axis=(1, 2)) + jnp.square(thetas["b"] - 1.0)
        return outside.tell(state, off), starts

    for _ in range(100):
        state, starts = update(state)
        assert starts.all()
    found = outside.theta(state)
    np.testing.assert_allclose(found["a"], 0.0, atol=0.1)
    np.testing.assert_allclose(found["b"], 1.0, atol=0.1)


@pytest.mark.parametrize("options", [NRES(horizon=4, window=2), TruncatedES(horizon=4, window=1)])
def test_what_cannot_be_asked_is_refused(options):
    with pytest.raises(ValueError, match="window=1"):
        as_ask_tell(options, jnp.zeros(2))


@pytest.mark.parametrize("theta", [jnp.ones(2, jnp.int32), {}])
def test_a_theta_is_float_arrays(theta):
    with pytest.raises(ValueError, match="theta must be float arrays"):
        as_ask_tell(FullES(particles=2, horizon=1), theta)


def test_an_outer_optimizer_is_optaxs():
    with pytest.raises(ValueError, match="tx must be an optax transformation"):
        as_ask_tell(FullES(particles=2, horizon=1), jnp.ones(2), "adam")


def test_losses_are_one_for_each_theta():
    outside = as_ask_tell(FullES(particles=2, horizon=1), jnp.ones(2))
    state = outside.init(jax.random.key(0))
    with pytest.raises(ValueError, match=r"losses must be \[4\]"):
        outside.tell(state, [1.0, 1.0, 1.0])
    after_nan = outside.tell(state, [float("nan")] * 4)
    np.testing.assert_array_equal(outside.theta(after_nan), 1.0)


@pytest.mark.parametrize("name", ALL)
def test_a_search_goes_down_a_bowl(name):
    """From 1 in each of three numbers; smaller is better."""
    require(name)
    start = Start(np.ones(3, np.float32), sigma=0.3, population=8, seed=0)
    made = make_search(name, start)
    np.testing.assert_allclose(made.best(), 1.0)
    for _ in range(60 if made.ask().shape[0] == 8 else 480):
        thetas = made.ask()
        assert thetas.shape[1] == 3
        made.tell(thetas, np.square(thetas).sum(axis=1).astype(np.float32))
    assert np.square(made.best()).sum() < 2.8  # 3 at first; Open_ES has a small rate


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_that_was_stopped_ends_with_the_same_theta(name, tmp_path):
    require(name)
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert run(name, whole).finished
    stopped = run(name, halves, should_stop=after(4))
    assert stopped == (4, False, True)
    assert run(name, halves) == (13, True, True)
    assert theta_of(whole) == theta_of(halves)
    rows = [RunDirectory(path).read_metrics() for path in (whole, halves)]
    for one, other in zip(*rows, strict=True):
        assert one | {"seconds": 0} == other | {"seconds": 0}
    assert rows[0][-1]["unroll_steps"] == 13 * 2 * 4 * 8


def test_the_page_of_a_search_speaks_of_no_windows():
    """An update sees whole episodes, so that no phase of them shows in its losses."""
    searching = dataclasses.replace(TINY.outer, search="cma:CMA")
    assert "T/W = 8/2" in how_to_read(TINY, 13)
    assert "T/W" not in how_to_read(dataclasses.replace(TINY, outer=searching), 13)


def test_a_search_keeps_its_population_and_its_name(tmp_path):
    run("cma:CMA", tmp_path, should_stop=after(4))
    with pytest.raises(UserError, match="begun with 4 particles"):
        run("cma:CMA", tmp_path, estimator=dataclasses.replace(TINY.estimator, particles=8))
    with pytest.raises(UserError, match=r"outer\.search: 'cma:CMA' there"):
        run("evosax:CMA_ES", tmp_path)


def test_a_damaged_checkpoint_of_a_search_is_passed_over(tmp_path):
    run("cma:CMA", tmp_path)
    newest = tmp_path / "checkpoints" / "13" / "search.pickle"
    newest.write_bytes(newest.read_bytes()[:50])
    before = theta_of(tmp_path)
    assert not (tmp_path / "checkpoints" / "5").exists()  # two are kept
    assert run("cma:CMA", tmp_path).finished
    assert theta_of(tmp_path) == before


def test_a_finished_search_has_nothing_to_do(tmp_path):
    """Also one that could not be resumed."""
    name = ALL[-1] if find_spec("pypop7") else ALL[0]
    for _ in range(2):
        assert run(name, tmp_path)[:2] == (13, True)


def test_a_search_that_cannot_be_saved_says_so(tmp_path):
    assert not run("pypop7:MAES", tmp_path, should_stop=after(4)).resumes
    with pytest.raises(UserError, match="cannot be resumed"):
        run("pypop7:MAES", tmp_path)


def test_a_fault_of_theirs_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match=r"nevergrad:MultiDiscrete failed .*another algorithm"):
        run("nevergrad:MultiDiscrete", tmp_path)


def test_losses_that_are_not_finite_are_the_worst():
    told = []
    made = Search(
        ask=lambda: np.array([[1.0], [np.nan], [3.0]]),
        tell=lambda thetas, losses: told.append(losses),
        best=lambda: np.zeros(1),
        save=lambda: b"",
    )
    losses, worst = tell_losses(made, lambda vectors: vectors[:, 0], 3, 0.0)
    assert worst == 3.0
    assert losses[1] > 3.0 and np.isfinite(losses).all()


@pytest.mark.parametrize(
    "name, message",
    [
        ("scipy:brute", "unknown search library 'scipy'; valid: cma, evosax"),
        ("cma", "is LIBRARY:ALGORITHM, such as evosax:CMA_ES, got 'cma'"),
        ("cma:", "unknown algorithm of cma ''; valid: CMA"),
        ("evosax:CMAES", "did you mean 'CMA_ES'"),
        ("evosax:cma_es", "did you mean 'CMA_ES'"),
    ],
)
def test_an_unknown_search_is_named(name, message):
    with pytest.raises(UserError, match=message):
        make_search(name, Start(np.zeros(2, np.float32), 0.1, 8, 0))


@pytest.mark.parametrize(
    "changes, what",
    [
        ({"outer": {"population": 2}}, "outer.population"),
        ({"mixture": ("quadratic dim=3",)}, "a mixture"),
        ({"outer": {"frozen": ("log_lr",)}}, "outer.frozen"),
    ],
)
def test_what_a_search_has_no_use_for_is_refused(changes, what, tmp_path):
    if "frozen" in str(changes):
        changes["optimizer"] = Component("sgdm")
    with pytest.raises(UserError, match=what):
        run("cma:CMA", tmp_path, **changes)


def require(name):
    if find_spec(name.partition(":")[0]) is None:
        pytest.skip(f"{name} is not installed")


def run(name, out, should_stop=lambda: False, outer=None, **changes):
    """A small run by a search."""
    require(name)
    chosen = dataclasses.replace(TINY.outer, search=name, **(outer or {}))
    config = dataclasses.replace(TINY, outer=chosen, **changes)
    experiment = loop.experiment_of(config, RunDirectory(out))
    return search(config, out, experiment=experiment, should_stop=should_stop)


def theta_of(path):
    return (path / "optimizer" / "theta.safetensors").read_bytes()
