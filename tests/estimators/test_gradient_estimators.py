"""Gradient-based estimators against gradients known on paper or from plain autodiff."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_estimators import DIM, HORIZON, THETA, WINDOW, make, step_jacobian, updates

from metaopt import inner, outer, unroll
from metaopt.estimators import ESTIMATORS
from metaopt.estimators.float_leaves import float_leaves, with_float_leaves
from metaopt.estimators.reverse_mode import unroll_in_segments
from metaopt.learned_optimizers import sgd
from metaopt.parallel.sharding import particle_mesh
from metaopt.tasks import influence_balancing, linear_recursion, quadratic

pytestmark = pytest.mark.slow

NAMES = ["bptt", "forward", "tbptt", "uoro"]
RUNS = 20_000


def starting_at_theta(problem):
    """The problem with an initial state that depends on theta."""

    def init(theta, data, horizon, key):
        state = problem.init(theta, data, horizon, key)
        return state._replace(s=state.s * jnp.sin(theta).sum())

    return problem._replace(init=init)


PROBLEMS = {
    "quadratic": linear_recursion(dim=DIM, loss="quadratic"),
    "theta at the start": starting_at_theta(linear_recursion(dim=DIM)),
}


def mean_loss(problem, theta, key, length=HORIZON):
    state = problem.init(theta, (), length, key)
    return unroll(problem, theta, state, (), length)[1].mean()


@pytest.mark.parametrize("remat", [True, False])
@pytest.mark.parametrize(
    "name, horizon", [("quadratic", 8), ("theta at the start", 1), ("inner training", 7)]
)
def test_bptt_is_the_gradient_of_the_whole_episode(name, horizon, remat):
    if name == "inner training":
        problem, theta = inner.training(quadratic(), sgd()), {"log_lr": jnp.float32(-1.0)}
    else:
        problem, theta = PROBLEMS[name], THETA
    estimator = make("bptt", problem, particles=2, horizon=horizon, remat=remat)
    estimate, state = next(updates(estimator, 1, theta))

    @jax.jit
    @jax.value_and_grad
    def truth(theta):
        keys = jax.vmap(jax.random.fold_in, (0, None))(state.episode.key, 0)
        return jax.vmap(lambda key: mean_loss(problem, theta, key, horizon))(keys).mean()

    loss, grad = truth(theta)
    assert float(estimate.loss) == pytest.approx(float(loss), rel=1e-6)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    jax.tree.map(close, estimate.grad, grad)


def test_segments_keep_about_the_square_root_of_the_states():
    problem = inner.training(quadratic(dim=32), sgd())
    theta = {"log_lr": jnp.float32(-1.0)}
    state = problem.init(theta, (), 400, jax.random.key(0))

    def kept(run):
        loss = lambda theta: run(problem, theta, state, (), 400)[1].mean()
        pull = jax.eval_shape(lambda theta: jax.vjp(loss, theta)[1], theta)
        return sum(leaf.size for leaf in jax.tree.leaves(pull))

    assert kept(unroll_in_segments) < 2 * 20 * 32 < 400 * 32 < kept(unroll)


def test_tbptt_is_the_windows_own_gradient():
    """d L_t / d theta_s summed over t and s of the window alone: from the state as given."""
    problem = linear_recursion(dim=DIM, loss="quadratic")
    jacobian = step_jacobian(problem)
    estimator = make("tbptt", problem, particles=1)
    for i, (estimate, _) in enumerate(updates(estimator, HORIZON // WINDOW, THETA)):
        window = slice(i * WINDOW, (i + 1) * WINDOW)
        within = jacobian[window, window].sum(axis=(0, 1)) / WINDOW
        np.testing.assert_allclose(estimate.grad, within, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "name, estimator, reuse",
    [
        ("quadratic", "forward", 2),
        ("quadratic", "forward", None),
        ("quadratic", "uoro", None),
        ("theta at the start", "forward", 4),
        ("theta at the start", "uoro", None),
    ],
)
def test_forward_and_uoro_are_unbiased(name, estimator, reuse):
    problem = PROBLEMS[name]
    truth = np.asarray(jax.jit(jax.grad(lambda theta: mean_loss(problem, theta, None)))(THETA))
    if name == "quadratic":
        by_steps = step_jacobian(problem).sum(axis=1).mean(axis=0)
        np.testing.assert_allclose(truth, by_steps, rtol=1e-5)
    arguments = {"particles": 1, "reuse": reuse, "stagger": "random", "first_episode": "burn_in"}
    estimator = make(estimator, problem, **arguments)

    def run(key):
        state = estimator.init(THETA, (), key)
        return estimator.estimate(THETA, state, (), jax.random.fold_in(key, 0))[0].grad

    grads = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), RUNS))
    grads = np.asarray(grads, np.float64)
    error = np.abs(grads.mean(axis=0) - truth)
    assert (error < 4.5 * grads.std(axis=0) / np.sqrt(RUNS)).all()


@pytest.mark.parametrize(
    "name, sign",
    [
        ("tbptt", -1),
        ("truncated_es", -1),
        ("forward", 1),
        ("nres", 1),
        ("pes", 1),
        ("uoro", 1),
    ],
)
def test_influence_balancing(name, sign):
    """Truncation sends theta away from the optimum; the unbiased estimators bring it nearer."""
    problem, tx = influence_balancing(), optax.sgd(1e-4)
    arguments = {"particles": 1000, "horizon": 200, "window": 1, "sigma": 0.1, "reuse": None}
    estimator = make(name, problem, first_episode="burn_in", **arguments)
    begin = problem.init_theta(jax.random.key(0))

    @jax.jit
    def train(key):
        state = outer.init(estimator, tx, begin, (), key)
        return outer.make_steps(estimator, tx, at_most=200)(state, (), 200)[0].theta

    @jax.jit
    def losses_and_distances(end):
        objective = lambda theta: mean_loss(problem, theta, None, 200)
        # Quadratic in theta: one Newton step from anywhere is the optimum.
        optimum = begin - jax.grad(objective)(begin) / jax.hessian(objective)(begin)
        thetas = jnp.stack([begin, end])
        return jax.vmap(objective)(thetas), abs(thetas - optimum)

    losses, distances = losses_and_distances(train(jax.random.key(1)))
    assert sign * (distances[0] - distances[1]) > 0.02
    assert sign * (losses[0] - losses[1]) > 0


@pytest.mark.parametrize("name", NAMES)
def test_devices_do_not_change_the_estimate(name):
    """Each particle's gradient stays its own, though all differentiate the same theta."""
    problem = PROBLEMS["theta at the start"]
    grads = []
    for mesh in (None, particle_mesh(4)):
        estimator = make(name, problem, particles=8, mesh=mesh)
        grads.append([np.asarray(estimate.grad) for estimate, _ in updates(estimator, 5, THETA)])
    np.testing.assert_allclose(*grads, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_particle_with_a_nonfinite_gradient_is_left_out_and_counted(name):
    """The loss is finite, its derivative is not."""
    problem = linear_recursion(dim=DIM)

    def step(theta, state, data):
        after, loss = problem.step(theta, state, data)
        bad = jnp.sqrt(jnp.where(state.step == 3, 0.0, 1.0) * theta[0])
        return after, loss + bad

    estimator = make(name, problem._replace(step=step), stagger="none")
    counts = [int(e.metrics["nonfinite_pairs"]) for e, _ in updates(estimator, 3, THETA)]
    assert counts == ([4, 4, 4] if name == "bptt" else [0, 4, 0])


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_at_the_cap_adds_nothing(name):
    problem = linear_recursion(dim=DIM)._replace(loss_cap=-1e3)
    estimate, _ = next(updates(make(name, problem), 1, THETA))
    assert int(estimate.metrics["capped_pairs"]) == 4
    np.testing.assert_array_equal(estimate.grad, np.zeros(DIM))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_what_is_not_differentiable_is_refused_by_name_or_taken_by_es(name):
    problem = linear_recursion(dim=DIM)._replace(differentiable=False)
    if "sigma" in inspect.signature(ESTIMATORS[name]).parameters:
        make(name, problem)
        return
    said = f"{name} differentiates the problem, .*differentiable=False.* such as nres"
    with pytest.raises(ValueError, match=said):
        make(name, problem)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"reuse": 3}, "reuse must be a multiple of window=2 up to horizon=8, got 3"),
        ({"window": 3}, "window must divide horizon=8, got 3"),
        ({"particles": 0}, "particles must be an integer of at least 1, got 0"),
    ],
)
def test_errors_come_at_construction(change, said):
    with pytest.raises(ValueError, match=said):
        make("forward", linear_recursion(), **change)


def test_floats_leave_counters_and_keys_alone():
    state = inner.training(quadratic(dim=2), sgd()).init(
        {"log_lr": jnp.float32(0)}, (), 3, jax.random.key(0)
    )
    (params,) = float_leaves(state)
    after = with_float_leaves(state, [params + 1])
    np.testing.assert_array_equal(after.params, state.params + 1)
    assert after._replace(params=state.params) == state
