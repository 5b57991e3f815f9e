"""Episodes that end early, against a Markov chain whose gradient is known on paper."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import TINY, metrics
from small import estimator as make

import metaopt
from metaopt import UnrolledProblem, UserError, unroll
from metaopt.estimators import ESTIMATORS, NRES, full_es, nres
from metaopt.estimators.population import Population
from metaopt.parallel.sharding import particle_mesh
from metaopt.tasks import linear_recursion

pytestmark = pytest.mark.slow

HORIZON, WINDOW, THETA, SIGMA = 8, 2, jnp.float32(0.75), 0.05
ES = ("es_single", "full_es", "gpes", "nres", "pes", "truncated_es")


def chain(*, shared=False):
    """A state that survives each step with probability theta, for a reward of 1 a step.

    Nothing but the engine keeps what has died from rising again.
    """

    def step(theta, state, data):
        u = jax.random.uniform(jax.random.fold_in(state["key"], state["step"]))
        return state | {"alive": u < theta, "step": state["step"] + 1}, jnp.float32(-1.0)

    return UnrolledProblem(
        init=lambda theta, data, horizon, key: {
            "alive": jnp.bool_(True),
            "key": key,
            "step": jnp.int32(0),
        },
        step=step,
        init_theta=lambda key: THETA,
        shared={"alive": False, "key": True, "step": True} if shared else False,
        done=lambda state: ~state["alive"],
    )


def blocks(steps, reuse):
    """How many of so many steps are in each block of K."""
    return [min(reuse, steps - start) for start in range(0, steps, reuse)]


def mean_power(n, *, reflected=False):
    """E (theta + eps)^n, or of (theta - |eps|)^n, eps ~ N(0, sigma^2); float64."""
    x, dx = np.linspace(-8, 8, 40_001, retstep=True)
    base = float(THETA) - SIGMA * np.abs(x) if reflected else float(THETA) + SIGMA * x
    return (base**n * np.exp(-(x**2) / 2)).sum() * dx / np.sqrt(2 * np.pi)


def gradient(reuse):
    """Of -(1/T) sum_t E prod_{s < t} (theta + eps_c(s)): the smoothed objective's, on paper."""
    total = 0.0
    for survived in range(HORIZON):
        counts = blocks(survived, reuse)
        moments = [mean_power(n) for n in counts]
        slopes = [n * mean_power(n - 1) / m for n, m in zip(counts, moments, strict=True)]
        total -= np.prod(moments) * sum(slopes)
    return total / HORIZON


def windows_lived(reuse):
    """E of the windows until both halves are dead: P(one lives) = P(+) + P(-) - P(both)."""
    alive = 0.0
    for start in range(0, HORIZON, WINDOW):
        counts = blocks(start, reuse)
        either = 2 * np.prod([mean_power(n) for n in counts])
        alive += either - np.prod([mean_power(n, reflected=True) for n in counts])
    return alive


def updates(estimator, count, theta=THETA):
    state = jax.jit(estimator.init)(theta, (), jax.random.key(0))
    run = jax.jit(estimator.estimate)
    for i in range(count):
        estimate, state = run(theta, state, (), jax.random.fold_in(jax.random.key(1), i))
        yield estimate, state


@pytest.mark.parametrize(
    "name, reuse, shared, scaled",
    [("nres", 8, False, True), ("nres", 8, True, False), ("gpes", 4, True, True),
     ("pes", 2, False, False), ("es_single", 8, False, True), ("full_es", 8, True, True)],
)  # fmt: skip
def test_unbiased_on_a_markov_chain(name, reuse, shared, scaled):
    """In theta's own units, or longer by M / E[windows lived]; halves die one before the other."""
    arguments = {"particles": 20_000, "sigma": SIGMA, "reuse": reuse}
    arguments |= {"scale_to_horizon": scaled}
    estimator = make(name, chain(shared=shared), **arguments)
    run = list(updates(estimator, 40))[8:]  # renewals forget how they began
    grads = np.array([estimate.grad for estimate, _ in run], np.float64)
    lived = windows_lived(reuse)
    windows = 1 if name == "full_es" else HORIZON // WINDOW
    truth = gradient(reuse) * (1 if scaled else windows / lived)
    error = grads.std(ddof=1) / np.sqrt(len(grads))
    assert error < 0.02 * abs(truth)
    assert abs(grads.mean() - truth) < 5 * error
    if windows > 1:
        said = run[-1][0].metrics
        assert float(said["windows_lived"]) == pytest.approx(lived, rel=0.01)
        assert float(said["lived_fraction"]) == pytest.approx(lived / windows, rel=0.01)
    if scaled:
        losses = np.mean([float(estimate.loss) for estimate, _ in run])
        moments = [np.prod([mean_power(n) for n in blocks(s, reuse)]) for s in range(HORIZON)]
        assert losses == pytest.approx(-np.mean(moments), rel=0.01)


def climb(*, goal=3.0, after=-7.0):
    """A position that rises by theta a step and ends at its goal."""

    def step(theta, state, data):
        return state + theta, (state + theta) ** 2

    return UnrolledProblem(
        init=lambda theta, data, horizon, key: jnp.float32(0.0),
        step=step,
        done=lambda state: state >= goal,
        loss_after_end=after,
    )


def losses_of(theta, steps, goal=3.0, after=-7.0):
    position, losses = 0.0, []
    for _ in range(steps):
        if position >= goal:
            losses.append(after)
        else:
            position += theta
            losses.append(position**2)
    return np.array(losses)


def test_the_step_that_ends_counts_and_the_state_stays():
    state, losses = unroll(climb(), jnp.float32(1.0), jnp.float32(0.0), (), 5)
    assert losses.tolist() == [1.0, 4.0, 9.0, -7.0, -7.0] and float(state) == 3.0


def test_a_half_that_ends_before_the_other_counts_the_constant():
    """Against both halves written out; the pair is freed when the second one ends, not before."""
    problem, theta = climb(goal=6.0), 0.8
    arguments = {"particles": 1, "horizon": 24, "window": 2, "sigma": 0.4}
    estimator = nres(problem, scale_to_horizon=False, **arguments)
    for i, (estimate, state) in enumerate(updates(estimator, 12, jnp.float32(theta))):
        eps = float(state.carry.noise_sum[0])
        halves = [theta + eps, theta - eps]
        first, last = sorted(int(np.ceil(6.0 / half)) for half in halves)
        plus, minus = (losses_of(half, 24, goal=6.0)[2 * i : 2 * i + 2] for half in halves)
        weight = (plus - minus).mean() / (2 * 0.4**2)
        assert float(estimate.grad) == pytest.approx(weight * eps, rel=1e-4)
        freed = last <= 2 * (i + 1)
        assert int(estimate.metrics["freed_particles"]) == freed
        if freed:
            break
    assert freed and state.remaining.tolist() == [0]
    assert first < 2 * i  # one half was frozen through a whole window and more


def test_a_freed_pair_starts_anew_at_the_next_window_and_lives_are_counted():
    """Three steps take two windows of the six; an episode that lasts to T is not freed."""
    estimator = nres(climb(), particles=3, horizon=12, window=2, sigma=1e-3, stagger="none")
    (first, _), (second, after), (third, again) = updates(estimator, 3, jnp.float32(1.2))
    assert [int(e.metrics["freed_particles"]) for e in (first, second, third)] == [0, 3, 0]
    assert [int(e.metrics["resets"]) for e in (first, second, third)] == [0, 0, 3]
    assert again.episode.elapsed.tolist() == [2] * 3
    changed = jax.random.key_data(after.episode.key) != jax.random.key_data(again.episode.key)
    assert changed.any(axis=1).all()
    *_, (odd, _), (even, _) = updates(estimator, 60, jnp.float32(1.2))
    for name, expected in (("windows_lived", 2), ("lived_fraction", 2 / 6)):
        both = [float(e.metrics[name]) for e in (odd, even)]  # all end in every second update
        assert np.mean(both) == pytest.approx(expected, rel=0.03)

    whole = nres(climb(), particles=3, horizon=12, window=2, sigma=1e-3)
    *_, (last, _) = updates(whole, 20, jnp.float32(0.1))
    assert float(last.metrics["lived_fraction"]) == 1.0
    assert float(last.metrics["windows_lived"]) == 6.0


def test_what_has_ended_says_exactly_nothing():
    """Burnt in past its end a pair is in place, says 0, and is freed then."""
    estimator = nres(
        climb(), particles=4, horizon=12, window=2, sigma=0.05, first_episode="burn_in"
    )
    state = estimator.init(jnp.float32(1.5), (), jax.random.key(0))
    late = jax.tree.map(lambda leaf: leaf[2:], state)  # phases of 3 and 4 windows
    two = nres(climb(), particles=2, horizon=12, window=2, sigma=0.05)
    estimate, state = two.estimate(jnp.float32(1.5), late, (), jax.random.key(1))
    assert float(estimate.grad) == 0.0
    assert int(estimate.metrics["freed_particles"]) == 2 and state.remaining.tolist() == [0, 0]


def test_truncated_es_ends_with_its_centre():
    estimator = make("truncated_es", climb(), particles=2, horizon=12, stagger="none")
    (_, before), (said, after) = updates(estimator, 2, jnp.float32(1.2))
    assert before.remaining.tolist() == [10, 10] and after.remaining.tolist() == [0, 0]
    assert int(said.metrics["freed_particles"]) == 2


@pytest.mark.parametrize("name", ["nres", "truncated_es"])
def test_devices_and_chunks_do_not_change_the_estimate(name):
    outcomes = []
    for extra in ({}, {"mesh": particle_mesh(2)}, {"particles_per_chunk": 3}):
        run = updates(make(name, chain(), particles=8, **extra), 6)
        outcomes.append([(e.grad, e.loss, *e.metrics.values()) for e, _ in run])
    for other in outcomes[1:]:
        np.testing.assert_allclose(outcomes[0], other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["bptt", "nres"])
def test_where_no_episode_ends_nothing_is_kept_or_said(name):
    estimator = make(name, linear_recursion(dim=3))
    ((estimate, state),) = updates(estimator, 1, jnp.zeros(3))
    assert type(state) is Population and "freed_particles" not in estimate.metrics


@pytest.mark.parametrize("name", sorted(set(ESTIMATORS) - set(ES)))
def test_estimators_by_derivatives_refuse(name):
    with pytest.raises(UserError, match="derivatives do not see that theta moves the end"):
        make(name, climb())


@pytest.mark.parametrize(
    "change, said",
    [({"loss_after_end": float("inf")}, "loss_after_end must be a finite number, got inf"),
     ({"done": None}, "loss_after_end=-7.0 is given, but the problem has no done")],
)  # fmt: skip
def test_an_end_that_means_nothing_is_refused(change, said):
    with pytest.raises(UserError) as error:
        full_es(climb()._replace(**change), particles=2, horizon=4, sigma=0.1)
    assert said in str(error.value)


def test_a_run_resumes_to_the_bit_and_with_more_particles(tmp_path):
    options = NRES(particles=4, horizon=8, window=2, sigma=0.1)
    more = dataclasses.replace(options, particles=6)
    train = lambda folder, steps, estimator=options: metaopt.train(
        TINY, problem=chain(), name="chain", estimator=estimator, out=tmp_path / folder,
        outer_steps=steps, devices=1, quiet=True,
    )  # fmt: skip
    whole = train("whole", 12)
    for steps in (5, 7, 12):  # in the middle of episodes
        parts = train("parts", steps)
    assert metrics(whole.path) == metrics(parts.path)
    assert {"windows_lived", "freed_particles"} <= set(whole.metrics)
    assert whole.metrics["freed_particles"].sum() > 0
    np.testing.assert_array_equal(whole.theta, parts.theta)
    for folder in ("once", "twice"):
        train(folder, 6)
    once = train("once", 12, more)
    train("twice", 9, more)
    twice = train("twice", 12, more)
    assert metrics(once.path) == metrics(twice.path)
    np.testing.assert_array_equal(once.theta, twice.theta)
