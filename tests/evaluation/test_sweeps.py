"""Sweeps of more than the rate: every combination is run, and the best one is said."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import metaopt
from metaopt import UserError
from metaopt.config.schema import Component, Config
from metaopt.estimators import PES
from metaopt.evaluation import tables, words
from metaopt.evaluation.baselines import (
    BASELINES,
    DECAYS,
    Baseline,
    Setting,
    baseline,
    settings_of,
    stacked,
    warmup_cosine,
)
from metaopt.learned_optimizers import sgd
from metaopt.training.loop import train

MINE = {"mine": (sgd(), {"log_lr": jnp.float32(-1.0)})}
RATES = (0.1, 1.0)


@pytest.fixture(scope="module")
def found():
    return metaopt.evaluate(
        MINE, tasks=["quadratic:dim=3"], baselines=["adamw", "sgd", "schedule_free_adamw"],
        num_steps=8, seeds=2, rates=RATES, tune=("decay", "schedule"),
    )  # fmt: skip


def test_every_combination_is_run(found):
    sizes = {name: len(points) for name, points in found.settings.items()}
    assert sizes == {"adamw": 2 * len(DECAYS) * 2, "sgd": 2 * 2, "schedule_free_adamw": 6}
    for name, size in sizes.items():
        assert found.curves("quadratic:dim=3", name).shape[:2] == (size, 2)
        assert found.sweep("quadratic:dim=3", name).shape == (2,)


def test_the_best_combination_is_the_one_that_is_said(found):
    """Gradient descent on |x|^2 / (2 dim): each step multiplies x by (1 - rate_t / dim)."""
    row = found.row("quadratic:dim=3", "sgd")
    fractions = np.array([warmup_cosine(t, 8) for t in range(8)])
    left = lambda rates: np.cumprod((1 - np.asarray(rates) / 3) ** 2)
    made = {
        (rate, words): left(rate * shape)
        for rate in RATES
        for words, shape in (("cosine", fractions), ("constant", np.ones(8)))
    }
    assert (row.rate, row.tuned) == min(made, key=lambda one: made[one].mean())
    assert (row.final_rate, row.final_tuned) == min(made, key=lambda one: made[one][-1])
    assert row.tuned == "constant"
    assert tables.page_cells(found, row)[""] == "sgd at 1, constant"
    assert tables.further_cells(found, row)["final rate"] == "1, constant"
    assert "weight decays 0, 0.0001, 0.1 and a constant rate and a cosine" in words.facts(found)


def test_a_sweep_holds_what_each_of_its_points_does_alone():
    """A point of AdamW's is AdamW with that decay and schedule, which optax makes by itself."""
    points = settings_of("adamw", RATES, ("rate", "decay", "schedule"))
    params = {"w": jnp.arange(4.0)}

    def moved(tx):
        state = tx.init(params)
        with jax.numpy_dtype_promotion("standard"):
            for _ in range(2):
                updates, state = tx.update(jax.tree.map(jnp.cos, params), state, params)
        return updates["w"]

    make = baseline("adamw").optimizer
    swept = jax.vmap(lambda point: moved(make(point, jnp.int32(8))))(stacked(points))
    for point, here in zip(points, swept, strict=True):
        rate = lambda t, at=point: at.rate * (warmup_cosine(t, 8) if at.cosine else 1.0)
        alone = moved(optax.adamw(rate, weight_decay=point.decay))
        np.testing.assert_allclose(here, alone, rtol=1e-5, err_msg=str(point))


def test_schedule_free_is_judged_by_its_average():
    """Its gradients are taken elsewhere; what counts is the average that it keeps."""
    one = BASELINES["schedule_free_adamw"]
    tx, params = one(0.1, 8), jnp.ones(3)
    state = tx.init(params)
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(3):
            updates, state = tx.update(params, state, params)
            params = optax.apply_updates(params, updates)
    average = (params - 0.1 * state.z) / 0.9  # y = 0.9 x + 0.1 z
    np.testing.assert_allclose(one.judged(state, params), average, rtol=1e-6)


def test_the_average_is_what_an_evaluation_measures(monkeypatch):
    from metaopt.evaluation import baselines

    doubled = Baseline(optax.sgd, judged=lambda state, params: jax.tree.map(jnp.zeros_like, params))
    monkeypatch.setitem(baselines.BASELINES, "sgd", doubled)
    how = {"tasks": ["quadratic:dim=3"], "num_steps": 2, "seeds": 2, "rates": (0.1,)}
    curves = metaopt.evaluate(MINE, baselines=["sgd"], **how).tuned("quadratic:dim=3", "sgd")
    assert (curves == 0).all()  # the bowl's lowest point, before the first step as well


def test_faults_are_sentences():
    with pytest.raises(UserError, match="unknown tune 'decays': did you mean 'decay'"):
        metaopt.evaluate(MINE, tasks=["quadratic"], num_steps=2, tune=("decays",))


def test_a_score_of_final_losses(found):
    """Progress to the last loss over that of the reference at its best setting for that."""
    row, theirs = found.row("quadratic:dim=3", "mine"), found.row("quadratic:dim=3", "adamw")
    start = found.losses("quadratic:dim=3", "mine")[:, 0].astype(np.float64)
    ours = start - found.losses("quadratic:dim=3", "mine")[:, -1]
    finals = found.curves("quadratic:dim=3", "adamw")[:, :, -1, 2]
    best = finals[finals.mean(axis=1).argmin()]
    np.testing.assert_allclose(row.final_scores, ours / (start - best), rtol=1e-6)
    np.testing.assert_allclose(theirs.final_scores, 1, rtol=1e-6)
    assert Setting(0.1).beside_rate() == ""


@pytest.fixture(scope="module")
def with_rate(tmp_path_factory):
    """The directory of a trained optimizer that leaves the rate to its user."""
    run = tmp_path_factory.mktemp("runs") / "mine"
    config = Config(
        task=Component("quadratic", ("dim=2",)),
        optimizer=Component("gated_muon", ("hidden=[2]",)),
        estimator=PES(particles=2, horizon=4, window=2),
        outer_steps=1,
    )
    train(config, run)
    return run


def test_a_trained_optimizer_that_takes_a_rate_is_swept(with_rate):
    """It does what the loaded one does with that schedule."""
    name = f"{with_rate}_cosine"
    found = metaopt.evaluate(
        [with_rate], tasks=["quadratic:dim=3"], baselines=["sgd", name],
        num_steps=8, seeds=2, rates=RATES,
    )  # fmt: skip
    assert found.row("quadratic:dim=3", "mine_cosine").rate in RATES
    with pytest.raises(UserError, match="unknown optimizer 'mine_cosin': did you mean 'mine_cosi"):
        found.row("quadratic:dim=3", "mine_cosin")
    schedule = lambda t: RATES[1] * warmup_cosine(t, 8)
    params = {"w": jnp.arange(3.0)}
    first = lambda tx: tx.update(params, tx.init(params), params)[0]["w"]
    swept = baseline(name).optimizer(jnp.float32(RATES[1]), num_steps=8)
    loaded = metaopt.load(with_rate, learning_rate=schedule)
    np.testing.assert_allclose(first(swept), first(loaded), rtol=1e-6)


def test_a_trained_optimizer_with_its_own_rate_is_not_swept():
    with pytest.raises(UserError, match="there is no rate of mlp-digits to be swept"):
        baseline("mlp-digits_cosine")
    with pytest.raises(UserError, match="unknown baseline 'generl_cosine': did you mean 'general_"):
        baseline("generl_cosine")
    with pytest.raises(UserError, match="'mlp-digits' is a trained optimizer, not a baseline"):
        baseline("mlp-digits")
