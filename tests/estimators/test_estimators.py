"""Estimators against gradients and variances known on paper."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import estimator as make

from metaopt import UnrolledProblem, unroll
from metaopt.estimators import ESTIMATORS, gpes, nres, pes
from metaopt.estimators.horizons import growing, log_uniform
from metaopt.parallel.chunks import advance_in_chunks, affordable
from metaopt.parallel.sharding import particle_mesh
from metaopt.tasks import linear_recursion

HORIZON, WINDOW, DIM, SIGMA = 8, 2, 3, 0.3
THETA = jnp.array([0.3, -0.2, 0.5])
RUNS = 200_000


def step_jacobian(problem):
    """d L_t / d theta_s for every loss t and every step s whose theta is varied, [T, T, d]."""

    def losses(thetas):
        def step(state, theta):
            return problem.step(theta, state, ())

        state = problem.init(THETA, (), HORIZON, jax.random.key(0))
        return jax.lax.scan(step, state, thetas)[1]

    return np.asarray(jax.jacobian(losses)(jnp.tile(THETA, (HORIZON, 1))), np.float64)


def samples(problem, reuse):
    """Independent one-particle estimates in the stationary state, [RUNS, d]."""
    estimator = gpes(
        problem,
        particles=1,
        horizon=HORIZON,
        window=WINDOW,
        sigma=SIGMA,
        reuse=reuse,
        stagger="random",
    )

    def run(key):
        state = estimator.init(THETA, (), jax.random.fold_in(key, 0))

        def update(state, i):
            estimate, state = estimator.estimate(THETA, state, (), jax.random.fold_in(key, i))
            return state, estimate.grad

        # A whole horizon first: then every particle has been through a reset.
        return jax.lax.scan(update, state, 1 + jnp.arange(HORIZON // WINDOW + 1))[1][-1]

    return np.asarray(jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(1), RUNS)), np.float64)


@pytest.mark.parametrize("reuse", [2, 4, 6, 8])
def test_mean_and_variance_where_the_loss_is_linear(reuse):
    """Unbiased, and tr Cov = 1/M sum_j [2|h^j|^2 + d n_j sum_c |h_c^j|^2] - |1/M sum_j h^j|^2."""
    problem = linear_recursion(dim=DIM)
    jacobian = step_jacobian(problem)
    truth = jacobian.sum(axis=1).mean(axis=0)
    predicted = -np.square(truth).sum()
    windows = range(0, HORIZON, WINDOW)
    for start in windows:
        in_window = jacobian[start : start + WINDOW].mean(axis=0)  # [T, d]
        blocks = [in_window[c : c + reuse].sum(axis=0) for c in range(0, start + 1, reuse)]
        total = 2 * np.square(sum(blocks)).sum()
        total += DIM * len(blocks) * sum(np.square(h).sum() for h in blocks)
        predicted += total / len(windows)

    grads = samples(problem, reuse)
    measured = grads.var(axis=0, ddof=1).sum()
    assert measured == pytest.approx(predicted, rel=0.02)
    assert np.abs(grads.mean(axis=0) - truth).max() < 4.5 * np.sqrt(predicted / RUNS)


@pytest.mark.parametrize("reuse", [2, 8])
def test_unbiased_where_the_loss_is_quadratic(reuse):
    problem = linear_recursion(dim=DIM, loss="quadratic")
    truth = step_jacobian(problem).sum(axis=1).mean(axis=0)
    grads = samples(problem, reuse)
    error = np.abs(grads.mean(axis=0) - truth)
    assert (error < 4.5 * grads.std(axis=0) / np.sqrt(RUNS)).all()


def counting(cap=None, bad_from=None):
    """A problem whose loss is the step's number: it shows when episodes begin and end."""

    def step(theta, state, data):
        state = state + 1
        loss = state.astype(jnp.float32) + 0 * theta.sum()
        if bad_from is not None:  # on the minus side only
            loss = jnp.where((state >= bad_from) & (theta[0] < 0), jnp.nan, loss)
        return state, loss

    return UnrolledProblem(
        init=lambda theta, data, horizon, key: jnp.int32(0), step=step, loss_cap=cap
    )


def updates(estimator, count, theta=None):
    theta = jnp.zeros(1) if theta is None else theta
    state = jax.jit(estimator.init)(theta, (), jax.random.key(0))
    run = jax.jit(estimator.estimate)
    for i in range(count):
        estimate, state = run(theta, state, (), jax.random.fold_in(jax.random.key(1), i))
        yield estimate, state


def test_the_terminating_step_counts_and_the_next_window_is_fresh():
    estimator = nres(counting(), particles=1, horizon=6, window=2, sigma=0.1)
    losses = [float(estimate.loss) for estimate, _ in updates(estimator, 6)]
    assert losses == [1.5, 3.5, 5.5] * 2


@pytest.mark.parametrize(
    "stagger, particles, phases",
    [("balanced", 3, [0, 2, 4]), ("balanced", 6, [0, 0, 2, 2, 4, 4]), ("none", 2, [0, 0])],
)
def test_phases_after_the_first_episodes(stagger, particles, phases):
    estimator = nres(
        counting(), particles=particles, horizon=6, window=2, sigma=0.1, stagger=stagger
    )
    *_, (_, state) = updates(estimator, 4)
    # In the fourth update everyone has gone one window beyond the phase it had.
    assert sorted((state.episode.elapsed - 2).tolist()) == phases
    assert (state.episode.elapsed + state.remaining).tolist() == [6] * particles


def test_burning_in_takes_particles_to_their_phases_and_counts_it():
    estimator = nres(
        counting(), particles=3, horizon=6, window=2, sigma=0.1, first_episode="burn_in"
    )
    (first, state), (second, _) = updates(estimator, 2)
    assert state.episode.elapsed.tolist() == [2, 4, 6]
    assert float(first.loss) == pytest.approx(np.mean([1.5, 3.5, 5.5]))
    assert int(first.metrics["unroll_steps"]) == 2 * (2 + 4) + 2 * 3 * 2
    assert int(second.metrics["unroll_steps"]) == 2 * 3 * 2


def test_an_episode_keeps_its_noise_and_its_start_and_then_changes_both():
    problem = linear_recursion(dim=DIM)
    estimator = nres(problem, particles=2, horizon=6, window=2, sigma=0.1)
    states = [state for _, state in updates(estimator, 4, THETA)]
    keys = [jax.random.key_data(state.episode.key) for state in states]
    # The first particle has three windows an episode, and starts anew in the fourth update.
    assert (keys[0][0] == keys[1][0]).all() and (keys[1][0] == keys[2][0]).all()
    assert (keys[2][0] != keys[3][0]).any()


def test_a_nonfinite_pair_is_left_out_reset_and_counted():
    estimator = nres(
        counting(bad_from=3), particles=4, horizon=8, window=2, sigma=0.1, stagger="none"
    )
    (first, _), (second, _), (_, state) = updates(estimator, 3)
    assert int(first.metrics["nonfinite_pairs"]) == 0
    # theta = 0: in every pair one half has a negative parameter and fails at step 3.
    assert int(second.metrics["nonfinite_pairs"]) == 4
    assert np.isnan(second.grad).all()
    assert state.episode.elapsed.tolist() == [2] * 4


def test_where_some_pairs_are_finite_only_they_count():
    estimator = nres(
        counting(bad_from=1), particles=8, horizon=4, window=2, sigma=1.0, stagger="none"
    )
    ((estimate, _),) = updates(estimator, 1, jnp.ones(1))
    bad = int(estimate.metrics["nonfinite_pairs"])
    assert 0 < bad < 8
    assert float(estimate.loss) == 1.5
    assert np.isfinite(estimate.grad).all()


def test_a_cap_counts_in_place_of_a_nonfinite_loss():
    estimator = nres(counting(cap=10.0, bad_from=1), particles=2, horizon=4, window=2, sigma=0.1)
    ((estimate, _),) = updates(estimator, 1)
    assert int(estimate.metrics["nonfinite_pairs"]) == 0
    assert float(estimate.loss) == pytest.approx((10 + 1.5) / 2)


def test_unroll_clips_at_the_cap():
    problem = counting(cap=2.5)
    _, losses = unroll(problem, jnp.zeros(1), jnp.int32(0), (), 4)
    assert losses.tolist() == [1.0, 2.0, 2.5, 2.5]


def test_devices_do_not_change_the_estimate():
    problem = linear_recursion(dim=DIM)
    outcomes = []
    for mesh in (None, particle_mesh(1), particle_mesh(4)):
        arguments = {"sigma": 0.1, "first_episode": "burn_in", "mesh": mesh}
        estimator = pes(problem, particles=8, horizon=8, window=2, **arguments)
        outcomes.append([np.asarray(e.grad) for e, _ in updates(estimator, 6, THETA)])
    np.testing.assert_array_equal(outcomes[0], outcomes[1])
    np.testing.assert_allclose(outcomes[0], outcomes[2], rtol=1e-5, atol=1e-6)


def test_a_short_first_episode_is_biased_for_a_cycle_and_new_particles_are_not():
    """The means of the first updates, of which those of starts are known on paper."""
    problem, windows = linear_recursion(dim=DIM), HORIZON // WINDOW
    by_window = step_jacobian(problem).sum(axis=1).reshape(windows, WINDOW, DIM).mean(axis=1)
    # Window of the particle in phase j at update k: it starts fresh and ends its episode early.
    window = lambda k, j: k if k < windows - j else (k - windows + j) % windows
    means = [by_window[[window(k, j) for j in range(windows)]].mean(axis=0) for k in range(5)]
    truth = by_window.mean(axis=0)
    error = [np.linalg.norm(mean - truth) / np.linalg.norm(truth) for mean in means]
    np.testing.assert_allclose(error, [1.23, 2.36, 0.27, 0, 0], atol=0.005)
    make_of = lambda n: make("nres", problem, particles=n, sigma=SIGMA)
    first = [np.asarray(estimate.grad) for estimate, _ in updates(make_of(80_000), 5, THETA)]
    np.testing.assert_allclose(first, means, atol=0.03)
    few, many = make_of(8), make_of(80_000)
    state = many.resize(THETA, few.init(THETA, (), jax.random.key(0)), (), jax.random.key(1))
    joined, _ = many.estimate(THETA, state, (), jax.random.key(2))
    np.testing.assert_allclose(joined.grad, truth, atol=0.03)
    assert np.linalg.norm(truth) > 0.2


def test_an_outer_step_needs_one_all_reduce():
    problem = linear_recursion(dim=DIM)
    mesh = particle_mesh(4)
    estimator = nres(problem, particles=8, horizon=8, window=2, sigma=0.1, mesh=mesh)
    state = estimator.init(THETA, (), jax.random.key(0))
    arguments = (THETA, state, (), jax.random.key(1))
    program = jax.jit(estimator.estimate).lower(*arguments).compile().as_text()
    collectives = re.findall(
        r"= \S.* (all-\w+|collective-\w+|reduce-scatter)(?:-start)?\(", program
    )
    assert collectives == ["all-reduce"]


def test_gpes_spans_the_family():
    problem = linear_recursion(dim=DIM)
    common = {"particles": 4, "horizon": 8, "window": 2, "sigma": 0.1}
    grads = lambda estimator: [np.asarray(e.grad) for e, _ in updates(estimator, 5, THETA)]
    np.testing.assert_array_equal(
        grads(gpes(problem, reuse=2, **common)), grads(pes(problem, **common))
    )
    np.testing.assert_array_equal(
        grads(gpes(problem, reuse=8, **common)), grads(nres(problem, **common))
    )


COST = {"bptt": 8, "forward": 2, "full_es": 2 * 8, "tbptt": 2, "truncated_es": 3 * 2, "uoro": 2}
"""Unroll steps a particle's window takes, where it is not 2 W."""


@pytest.mark.parametrize("name", ESTIMATORS)
def test_conformance(name):
    """State: particles first, stable; metrics: scalars; the same keys give the same numbers."""
    estimator = make(name, linear_recursion(dim=DIM))
    (first, state), (_, later) = updates(estimator, 2, THETA)
    assert all(leaf.shape[0] == 4 for leaf in jax.tree.leaves(state))
    spec = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)
    assert spec(state) == spec(later)
    assert spec(first.grad) == spec(THETA)
    assert all(value.shape == () for value in first.metrics.values())
    assert int(first.metrics["unroll_steps"]) == 4 * COST.get(name, 2 * 2)
    (again, _), _ = updates(estimator, 2, THETA)
    np.testing.assert_array_equal(first.grad, again.grad)


def test_full_es_is_nres_with_one_window_an_episode():
    problem = linear_recursion(dim=DIM)
    grads = lambda estimator: [np.asarray(e.grad) for e, _ in updates(estimator, 3, THETA)]
    np.testing.assert_array_equal(
        grads(make("full_es", problem)), grads(make("nres", problem, window=8, stagger="none"))
    )


def test_truncated_es_leaves_out_what_happened_before_the_window():
    """Its mean is the gradient of a window's losses with respect to that window's theta alone."""
    problem = linear_recursion(dim=DIM)
    jacobian = step_jacobian(problem)
    windows = [slice(i, i + WINDOW) for i in range(0, HORIZON, WINDOW)]
    within = sum(jacobian[window, window].sum(axis=(0, 1)) for window in windows) / HORIZON
    arguments = {"particles": 40_000, "sigma": SIGMA, "first_episode": "burn_in"}
    estimator = make("truncated_es", problem, **arguments)
    grads = np.array([estimate.grad for estimate, _ in updates(estimator, 8, THETA)])
    np.testing.assert_allclose(grads.mean(axis=0), within, atol=0.01)
    assert np.abs(within - jacobian.sum(axis=1).mean(axis=0)).max() > 0.05  # it is biased


def test_health_is_what_the_particles_say():
    """Against one-particle estimates of the same episodes."""
    problem = linear_recursion(dim=DIM)
    estimator = make("nres", problem, particles=6, stagger="none")
    state = estimator.init(THETA, (), jax.random.key(0))
    estimate, _ = estimator.estimate(THETA, state, (), jax.random.key(1))
    single = make("nres", problem, particles=1, stagger="none")
    each = []
    for i in range(6):
        one = jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], state)
        each.append(np.asarray(single.estimate(THETA, one, (), jax.random.key(1))[0].grad))
    each = np.array(each, np.float64)
    mean, variance = each.mean(axis=0), each.var(axis=0, ddof=1).sum()
    lengths = np.linalg.norm(each, axis=1)
    even, odd = each[::2].sum(axis=0), each[1::2].sum(axis=0)
    expected = {
        "snr": mean @ mean / (variance / 6),
        "half_cosine": even @ odd / np.linalg.norm(even) / np.linalg.norm(odd),
        "particle_variance": variance,
        "effective_particles": lengths.sum() ** 2 / np.square(lengths).sum(),
    }
    np.testing.assert_allclose(estimate.grad, mean, rtol=1e-4)
    for name, value in expected.items():
        assert float(estimate.metrics[name]) == pytest.approx(value, rel=1e-3), name


def test_shaping():
    problem = linear_recursion(dim=DIM)
    grads = lambda estimator: [np.asarray(e.grad) for e, _ in updates(estimator, 3, THETA)]
    scaled = problem._replace(step=lambda *args: _scaled(problem.step(*args)))
    for shaping in ("standardise", "centered_rank"):
        arguments = {"particles": 8, "shaping": shaping}
        ours = grads(make("nres", problem, **arguments))
        spread = grads(make("nres", problem, mesh=particle_mesh(4), **arguments))
        np.testing.assert_allclose(ours, spread, rtol=2e-5)
        # Shaped, the estimate does not depend on the loss's unit.
        np.testing.assert_allclose(ours, grads(make("nres", scaled, **arguments)), rtol=1e-4)


def _scaled(result):
    state, loss = result
    return state, 7.0 * loss


def test_sigma_travels_with_the_particle():
    """A schedule that doubles every update: an episode keeps the sigma that it began with."""
    schedule = lambda step: 0.1 * 2.0 ** jnp.minimum(step.astype(jnp.float32), 10)
    estimator = make("nres", linear_recursion(dim=DIM), particles=1, window=4, sigma=schedule)
    sigmas = [float(state.carry.sigma[0]) for _, state in updates(estimator, 4, THETA)]
    np.testing.assert_allclose(sigmas, [0.1, 0.1, 0.4, 0.4], rtol=1e-6)


@pytest.mark.parametrize(
    "horizon", [log_uniform(2, 8), growing(2, 8, updates=6)], ids=["log_uniform", "growing"]
)
def test_horizons_are_whole_windows_and_the_last_step_counts(horizon):
    estimator = nres(counting(), particles=16, horizon=horizon, window=2, sigma=0.1, stagger="none")
    seen, ended = set(), 0
    for _, state in updates(estimator, 12):
        seen |= set(state.episode.horizon.tolist())
        done = np.asarray(state.remaining) == 0
        ended += done.sum()
        np.testing.assert_array_equal(state.episode.elapsed[done], state.episode.horizon[done])
    assert seen <= {2, 4, 6, 8} and {2, 8} <= seen and ended > 16


@pytest.mark.parametrize(
    "change, said",
    [
        ({"window": 3}, "window must divide horizon=8, got 3; the nearest that do are 1, 2, 4, 8"),
        ({"particles": 0}, "particles must be an integer of at least 1, got 0"),
        ({"particles": 2.5}, "got 2.5"),
        ({"sigma": 0.0}, "sigma must be a finite number above 0, got 0.0"),
        ({"sigma": float("nan")}, "got nan"),
        ({"stagger": "even"}, "'balanced', 'random' or 'none', got 'even'"),
        ({"reuse": 3}, "reuse must be a multiple of window=2 up to horizon=8, got 3"),
        ({"reuse": 10}, "got 10"),
        ({"first_episode": "long"}, "'short' or 'burn_in', got 'long'"),
        ({"shaping": "rank"}, "'raw', 'standardise' or 'centered_rank', got 'rank'"),
        ({"sigma": lambda step: 0.1 - 0.01 * step}, "above 0, got -0.06"),
    ],
)
def test_errors_come_at_construction(change, said):
    arguments = {"particles": 4, "horizon": 8, "window": 2, "sigma": 0.1, "reuse": 4} | change
    with pytest.raises(ValueError) as error:
        gpes(linear_recursion(), **arguments)
    assert said in str(error.value)


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
def test_particles_in_chunks_say_the_same(chunk):
    """A chunk need not divide their number."""
    problem = linear_recursion()
    theta = problem.init_theta(jax.random.key(0))

    def estimate(**options):
        estimator = nres(problem, particles=5, horizon=4, window=2, sigma=0.1, **options)
        state = estimator.init(theta, (), jax.random.key(1))
        return estimator.estimate(theta, state, (), jax.random.key(2))

    near = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5)
    plain, chunked = estimate()[0], estimate(particles_per_chunk=chunk)[0]
    jax.tree.map(near, plain.grad, chunked.grad)
    near(plain.loss, chunked.loss)


@pytest.mark.parametrize("at_once", [1, 2, 3, 6, 7, 9])
def test_in_chunks_every_entry_is_advanced_once(at_once):
    """Also those beyond the last whole chunk, keys among them."""
    entries = {"x": jnp.arange(7.0), "key": jax.random.split(jax.random.key(0), 7)}
    function = lambda e: ({"x": 2 * e["x"], "key": jax.random.fold_in(e["key"], 1)}, e["x"] + 1)
    one_by_one = jax.vmap(function)(entries)
    chunked = advance_in_chunks(function, entries, bytes_each=0, at_once=at_once)
    same = lambda a, b: np.testing.assert_array_equal(
        jax.random.key_data(a["key"]), jax.random.key_data(b["key"])
    )
    same(one_by_one[0], chunked[0])
    np.testing.assert_array_equal(chunked[0]["x"], 2 * np.arange(7.0))
    np.testing.assert_array_equal(chunked[1], 1 + np.arange(7.0))


def test_the_chunk_of_an_accelerator_is_measured():
    """Each entry takes the outer product of itself, 4 n^2 bytes, and a little."""
    square = lambda x: jnp.sort(jnp.outer(x, x), axis=0)
    entries = jax.ShapeDtypeStruct((50, 100), jnp.float32)
    fitting = affordable(square, (), entries, free=10 * 40_000)
    assert 1 <= fitting <= 7  # of 0.7 x 10
    assert affordable(square, (), entries, free=10**9) is None
    assert affordable(square, (), entries) is None  # a CPU does not say what it has
