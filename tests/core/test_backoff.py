"""A theta that makes everything non-finite is left again, by smaller steps, or the run says so."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metaopt import Estimate, UnrolledProblem, UserError, outer
from metaopt.config.schema import Component, Config, EvaluationConfig, OuterConfig
from metaopt.core import backoff
from metaopt.core.backoff import HALVINGS, PATIENCE
from metaopt.estimators import NRES, nres
from metaopt.training.loop import train


def cliff(*, edge: float = 1.0, cap: float | None = None) -> UnrolledProblem:
    """Ever better towards an edge, beyond which the state is NaN for good."""

    def step(theta, state, data):
        state = jnp.where(theta < edge, state, jnp.nan)
        return state, state - theta

    return UnrolledProblem(
        init=lambda theta, data, horizon, key: jnp.float32(0.0),
        step=step,
        init_theta=lambda key: jnp.float32(0.0),
        data=lambda: (),
        loss_cap=cap,
    )


def run(problem, rate, steps):
    """Theta and the metrics along a run."""
    estimator = nres(problem, particles=4, horizon=4, window=2, sigma=0.01)
    tx = optax.sgd(rate)
    theta = problem.init_theta(jax.random.key(0))
    state = outer.init(estimator, tx, theta, (), jax.random.key(1))
    step = jax.jit(outer.make_step(estimator, tx))
    rows = []
    for _ in range(steps):
        state, metrics = step(state, ())
        rows.append(jax.tree.map(float, metrics) | {"theta": float(state.theta)})
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


@pytest.mark.parametrize("cap", [None, 5.0])
def test_a_step_over_the_edge_is_taken_back_and_then_taken_smaller(cap):
    """The gradient is about -1 everywhere before the edge, and so a rate of 20 jumps over it."""
    rows = run(cliff(cap=cap), 20.0, 40)
    (back, *_) = np.flatnonzero(rows["backed_off"])
    assert rows["skipped"][back - PATIENCE + 1 : back + 1].all()
    assert rows["theta"][back] == 0.0 and rows["step_scale"][back] == 0.5
    assert (rows["theta"][rows["backed_off"] > 0] < 1.05).all()  # the noise sees over the edge
    moved = rows["theta"][rows["skipped"] == 0]
    assert np.isfinite(rows["theta"]).all() and ((moved > 0.01) & (moved < 1)).any()


def test_nothing_changes_where_nothing_fails():
    rows = run(cliff(edge=100.0), 0.1, 20)
    assert not rows["skipped"].any() and not rows["backed_off"].any()
    assert (rows["step_scale"] == 1).all()


def test_small_steps_grow_again():
    rows = run(cliff(edge=1e6), 1e8, 200)
    after = rows["step_scale"][np.flatnonzero(rows["backed_off"])[-1] :]
    assert after[-1] > after[0] and rows["theta"].max() > 0


def test_a_diverged_run_ends_with_a_sentence_and_is_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "metaopt.training.experiment.make", lambda kind, component: cliff(edge=-1.0)
    )
    config = Config(
        problem=Component("cliff"),
        estimator=NRES(particles=4, horizon=4, window=2, sigma=0.1),
        outer=OuterConfig(warmup_steps=0),
        evaluation=EvaluationConfig(seeds=0),
        outer_steps=1000,
    )
    told = []
    with pytest.raises(UserError, match=r"no estimate can be used.*smaller outer\.learning_rate"):
        train(config, tmp_path / "run", on_notice=told.append)
    assert len(told) >= HALVINGS and "went back" in told[0]
    assert any((tmp_path / "run" / "checkpoints").iterdir())


def test_a_mixture_is_healthy_where_half_of_every_part_is_finite():
    def healthy(**counts):
        metrics = {name.replace("_of_", "/"): jnp.int32(n) for name, n in counts.items()}
        return bool(backoff.is_healthy(Estimate(jnp.zeros(1), jnp.float32(0), metrics), 4))

    assert healthy(nonfinite_pairs=2) and not healthy(nonfinite_pairs=3) and healthy()
    assert healthy(nonfinite_pairs=4, a_of_nonfinite_pairs=2, b_of_nonfinite_pairs=2)
    assert not healthy(nonfinite_pairs=3, a_of_nonfinite_pairs=3, b_of_nonfinite_pairs=0)
