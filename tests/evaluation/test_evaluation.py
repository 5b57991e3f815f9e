"""The evaluation: its statistics against known truths, its rules, its files."""

import io
import json
import re
import shutil
from xml.etree import ElementTree as ET

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console
from rich.table import Table

import metaopt
from metaopt import UserError
from metaopt.core.interval import Interval
from metaopt.evaluation import grids, statistics
from metaopt.evaluation.baselines import (
    BASELINES,
    RATES,
    Setting,
    baseline,
    warmup_cosine,
)
from metaopt.evaluation.changes import change_of
from metaopt.evaluation.measures import counted, diverged, summarise
from metaopt.evaluation.speedups import speed_ups, steps_to_reach
from metaopt.evaluation.trials import Trial, measured_every, run_trial
from metaopt.learned_optimizers import LEARNED_OPTIMIZERS
from metaopt.plotting.terminal import print_table
from metaopt.tasks import TASKS

SGD = LEARNED_OPTIMIZERS["sgd"]()
THETA = {"log_lr": jnp.float32(0.5)}


def test_the_interquartile_mean_is_of_the_middle_half():
    scores = np.array([[8.0, 1.0, 3.0, 1e9], [4.0, 2.0, -1e9, 5.0]])
    assert statistics.interquartile_mean(scores) == pytest.approx((2 + 3 + 4 + 5) / 4)
    many = np.stack([scores, scores + 1])
    np.testing.assert_allclose(statistics.interquartile_mean(many), [3.5, 4.5])


def test_the_bootstrap_covers_the_truth_as_often_as_it_says():
    draw = np.random.default_rng(0)
    mean = lambda scores: scores.mean(axis=(-2, -1))
    covered = []
    for trial in range(300):
        scores = draw.normal([[0.0], [1.0]], size=(2, 20))
        low, high = statistics.bootstrap(mean, scores, resamples=400, seed=trial)
        covered.append(low <= 0.5 <= high)
    assert 0.90 <= np.mean(covered) <= 0.97  # a percentile interval of 20 runs is a little narrow


def test_the_bootstrap_resamples_within_tasks():
    """Tasks differ, seeds do not: nothing is uncertain."""
    scores = np.repeat([[0.0], [10.0], [20.0]], 5, axis=1)
    assert statistics.bootstrap(statistics.interquartile_mean, scores) == (10, 10)


def test_too_few_seeds_resolve_nothing():
    """Two equal values would give an interval of no width, however chance may have it."""
    few = statistics.with_interval(statistics.interquartile_mean, np.full((3, 4), 2.0))
    enough = statistics.with_interval(statistics.interquartile_mean, np.full((3, 5), 2.0))
    assert str(few) == "2.00 [?]" and not few.excludes(1.0)
    assert str(enough) == "2.00 [2.00, 2.00]" and enough.excludes(1.0)


def test_a_table_is_printed_whole_where_the_terminal_is_narrow():
    table, shown = Table("mean − adamw", "number", box=None), io.StringIO()
    for column in table.columns:
        column.no_wrap = True
    table.add_row("0.1", "0.0634±0.0090")
    print_table(Console(file=shown, width=8), table)
    assert "mean − adamw" in shown.getvalue() and "0.0634±0.0090" in shown.getvalue()


def test_the_probability_of_improvement_is_mann_and_whitneys():
    from scipy import stats

    draw = np.random.default_rng(0)
    x, y = draw.integers(0, 4, (3, 6)).astype(float), draw.integers(0, 4, (3, 5)).astype(float)
    of = statistics.probability_of_improvement
    expected = [stats.mannwhitneyu(a, b).statistic / 30 for a, b in zip(x, y, strict=True)]
    assert of(x, y) == pytest.approx(np.mean(expected))
    assert of(x, x) == 0.5
    assert of(x + 9, y) == 1 and of(x, y + 9) == 0


def test_what_diverges_counts_as_no_training_and_is_never_dropped():
    losses = np.array([[[2.0], [1.0]], [[2.0], [np.nan]], [[2.0], [-np.inf]], [[2.0], [1e30]]])
    # -inf is no success.
    assert counted(losses, None)[:, 1, 0].tolist() == [1, 2, 2, 2]
    assert counted(losses, 5.0)[:, 1, 0].tolist() == [1, 5, 5, 5]
    assert diverged(losses).tolist() == [False, True, True, True]


def test_the_steps_to_a_loss_are_those_of_the_fastest_rate():
    slow, fast = [[9.0, 8.0, 7.0], [9.0, 8.0, 7.0]], [[9.0, 5.0, 9.0], [9.0, 9.0, 9.0]]
    steps, reached = steps_to_reach(np.array([8.0, 8.5]), np.array([slow, fast]), 10)
    assert steps.tolist() == [10, 5] and reached.all()
    steps, reached = steps_to_reach(np.array([5.0, 5.0]), np.array([slow, fast]), 10)
    assert steps.tolist() == [10, 20] and reached.tolist() == [True, False]


SHIFTS = (0.0, -3.0, -1000.0)
"""Added to every loss: what is above 0, what crosses it, and what is always below."""


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_speed_up_does_not_know_where_zero_is(shift):
    """In closed form: losses that fall by 1/8 and by 1/4 a step, from 4."""
    steps = np.arange(17) / 8
    curve = lambda rate: (4 - rate * steps)[None, None] + shift
    assert speed_ups(curve(2.0), curve(1.0), 1).tolist() == [2.0]
    assert speed_ups(curve(1.0), curve(2.0), 1).tolist() == [0.5]
    assert speed_ups(curve(1.0), curve(1.0), 1).tolist() == [1.0]
    assert speed_ups(curve(0.0), curve(1.0), 1).tolist() == [0.0]  # it makes no progress
    # On a seed where the reference makes none ours is counted by its first progress.
    assert speed_ups(curve(1.0), curve(0.0), 1).tolist() == [16.0]
    assert speed_ups(curve(0.0), curve(0.0), 1).tolist() == [1.0]


def test_what_is_solved_sooner_is_faster_where_the_loss_can_fall_no_further():
    quick, slow = np.zeros((2, 1, 1, 11))
    quick[..., :3], slow[..., :7] = [3, 2, 1], [6, 5, 4, 3, 2, 1, 0.5]
    slow[..., 0] = 3
    assert speed_ups(quick, slow, 1).tolist() == [pytest.approx(7 / 3)]
    assert speed_ups(slow, quick, 1).tolist() == [pytest.approx(3 / 7)]


def losses(*curves):
    """One rate, a seed a curve, the same on every split: ``[1, seeds, points + 1, 3]``."""
    return np.repeat(np.array(curves, np.float32)[None, :, :, None], 3, axis=-1)


NAMES = {"task": "mine", "optimizer": "learned", "against": "adam", "split": "test"}


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("number", ["mean", "final"])
def test_a_change_is_of_progress_and_better_is_better_whatever_the_sign(shift, number):
    adam = losses([5, 3, 1], [7, 5, 3]) + np.float32(shift)
    good = losses([5, 2, 0], [7, 4, 2]) + np.float32(shift)
    better = change_of(good, adam, number=number, **NAMES)
    # By Adam from the start, and how much lower we are; a mean is the area below a curve.
    made, gain = (4, 1.0) if number == "final" else (2, 0.75)
    assert better.difference.mean == pytest.approx(-gain) and better.verdict == "lower"
    assert better.progress.mean == pytest.approx(gain / made)
    assert better.start == pytest.approx(6 + shift)
    worse = change_of(adam, good, number=number, **NAMES)
    assert worse.verdict == "higher" and worse.progress.mean == pytest.approx(-gain / (made + gain))
    assert "higher" in worse.sentence() and "lower" in better.sentence()


def test_a_difference_within_its_interval_is_not_resolved():
    """By the t of one degree of freedom: 12.7 times the standard error of 0.5."""
    change = change_of(losses([5, 3], [5, 4]), losses([5, 4], [5, 4]), number="final", **NAMES)
    assert change.difference.mean == -0.5
    assert change.difference.half_width == pytest.approx(12.706 / 2, rel=1e-4)
    assert change.verdict == "not resolved"
    assert change.headline()[0] == "Not resolved"
    assert "not resolved by 2 seeds" in change.sentence()


def test_where_the_reference_makes_no_progress_nothing_divides_by_it():
    still, moves = losses([1, 1, 1], [2, 2, 2]), losses([1, 0, -1], [2, 1, 0])
    trials = {"mine": Trial({2: moves}, 1e-6, 0, 0), "adam": Trial({2: still}, 1e-6, 0, 0)}
    how = {"settings": {"adam": (Setting(0.1),)}, "num_steps": 2, "every": 1, "split": "test"}
    for row in summarise("t", None, trials, **how):
        assert np.isnan(row.scores).all() and np.isnan(row.speedups).all()
    change = change_of(moves, still, number="final", **NAMES)
    assert change.difference == Interval(-2, 0) and np.isnan(change.progress.mean)


def test_without_a_finite_start_nothing_is_finite_and_nothing_warns():
    lost = losses([np.nan, 1, 1], [np.nan, np.inf, 2])
    trials = {"mine": Trial({2: lost}, 1e-6, 0, 0), "adam": Trial({2: lost}, 1e-6, 0, 0)}
    how = {"settings": {"adam": (Setting(0.1),)}, "num_steps": 2, "every": 1, "split": "test"}
    mine, _ = summarise("t", None, trials, **how)
    assert np.isnan(mine.mean["test"].mean) and np.isnan(mine.scores).all() and mine.diverged == 2
    nothing = counted(lost, None)
    assert change_of(nothing, nothing, number="mean", **NAMES).verdict == "not finite"
    capped, _ = summarise("t", 3.0, trials, **how)  # a cap is what such a loss counts as
    assert capped.start.mean == 3
    assert capped.final["test"].mean == 1.5


@pytest.mark.parametrize(
    "mean, half_width, text",
    [
        (0.26571, 0.00944, "0.2657 ± 0.0094"),
        (-0.376, 0.123, "-0.38 ± 0.12"),
        (2450.3, 312.0, "2450 ± 312"),
        (1.25e-9, 3e-11, "1.25e-09 ± 3e-11"),
        (3.0, 0.0, "3 ± 0"),
        (1.5, np.nan, "1.5 ± ?"),
        (np.nan, np.nan, "not finite"),
    ],
)
def test_a_number_is_written_as_exactly_as_it_is_known(mean, half_width, text):
    assert str(Interval(mean, half_width)) == text


@pytest.fixture(scope="module")
def quadratic(tmp_path_factory):
    """A learned optimizer and one that diverges, on a quadratic, and what was said of progress."""
    out, said = tmp_path_factory.mktemp("evaluation") / "out", []
    found = metaopt.evaluate(
        {"good": (SGD, THETA), "bad": (SGD, {"log_lr": jnp.float32(60.0)})},
        tasks=["quadratic:dim=3"],
        baselines=["sgd"],
        num_steps=8,
        seeds=3,
        out=out,
        on_progress=lambda *progress: said.append(progress),
    )
    return found, out, said


@pytest.mark.slow
def test_against_itself_a_grid_is_zero_and_a_task_of_ones_own_is_the_named_one(monkeypatch):
    monkeypatch.setattr(grids, "WIDTHS", (2,))
    monkeypatch.setattr(grids, "DEPTHS", (1,))
    chosen = {"baselines": ["sgd"], "num_steps": 4, "seeds": 2, "rates": (0.5,)}
    mine = {"mine": (SGD, {"log_lr": jnp.log(jnp.float32(0.5))})}
    still = {"still": (SGD, {"log_lr": jnp.float32(-100.0)})}
    own_task = {"my task": TASKS["quadratic"](dim=3)}
    found = metaopt.evaluate(mine | still, tasks=own_task, grid=True, **chosen)
    grid, of_still = found.grids
    np.testing.assert_allclose(of_still.progress, -1, atol=1e-5)  # it makes none
    assert grid.progress.shape == (1, 1, 3) and grid.horizons == (1, 4, 16)
    np.testing.assert_allclose(grid.progress, 0, atol=1e-5)
    named = metaopt.evaluate(mine, tasks=["quadratic:dim=3"], **chosen)
    own = found.tuned("my task", "mine")
    np.testing.assert_array_equal(own, named.tuned("quadratic:dim=3", "mine"))
    with pytest.raises(UserError, match="name at least one task"):
        metaopt.evaluate(mine, tasks={}, **chosen)


def test_sgd_is_as_fast_as_sgd_and_its_curve_is_the_formulas(quadratic):
    """On curvature |x|^2 / (2 dim) every step multiplies the loss by (1 - rate / dim)^2."""
    found = quadratic[0]
    good, bad, sgd = found.rows
    assert sgd.rate == 2.15 and len(found.rates) == len(RATES) == 15
    losses = found.tuned("quadratic:dim=3", "good")[..., 2]
    factor = (1 - np.exp(0.5) / 3) ** 2
    np.testing.assert_allclose(losses, losses[:, :1] * factor ** np.arange(9), rtol=1e-3)
    swept = found.curves("quadratic:dim=3", "sgd")
    rate = (1 - np.array(found.rates) / 3) ** 2
    inside = rate <= 1
    decay = rate[inside, None, None] ** np.arange(9)
    expected = decay * losses[None, :, :1]
    np.testing.assert_allclose(swept[inside, ..., 2], expected, rtol=1e-3, atol=1e-9)
    assert bad.diverged == 3 and good.diverged == 0
    assert bad.scores.tolist() == [0, 0, 0] and bad.speedups.tolist() == [0, 0, 0]
    assert np.mean(sgd.scores) == pytest.approx(1)


def test_longer_runs_start_as_shorter_ones(quadratic):
    """What `Trial.with_starts` takes for granted of baselines, and horizons beyond T."""
    trial: Trial = quadratic[0].trials["quadratic:dim=3"]["good"]
    assert quadratic[0].horizons == (2, 4, 8, 16, 32)
    assert sorted(trial.curves) == [2, 4, 8, 16, 32]
    for horizon, losses in trial.curves.items():
        assert losses.shape == (1, 3, horizon + 1, 3)
        np.testing.assert_array_equal(losses, trial.curves[32][:, :, : horizon + 1])


def test_the_files_hold_what_was_found(quadratic):
    found, out, said = quadratic
    assert [done for _, done, _ in said] == [0, 1, 2] and {total for *_, total in said} == {3}
    stored = json.loads((out / "evaluation.json").read_text())
    assert [row["optimizer"] for row in stored["rows"]] == ["good", "bad", "sgd"]
    assert stored["aggregates"][0]["score"]["value"] == found.aggregates()[0].score.value
    with np.load(out / "curves.npz") as curves:
        assert curves["quadratic:dim=3/sgd/32"].shape == (15, 3, 33, 3)
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 6
    assert "src=" not in page and "<link" not in page and "<script" not in page
    assert found._repr_html_() in page


def test_a_picture_in_a_page_has_text_as_text_and_short_paths(quadratic):
    """A notebook that shows an evaluation stays small, and its pictures can be searched."""
    picture = quadratic[0].plot_curves()._repr_svg_()
    assert ">inner step</text>" in picture
    paths = re.findall(r' d="([^"]*)"', picture)
    assert paths and not re.search(r"\.\d{3}|\n", "".join(paths))
    ET.fromstring(picture)


def test_it_goes_on_from_its_cache(quadratic, tmp_path, monkeypatch):
    """Damaged entries are run again, others are not, and a change of anything is noticed."""
    found, whole, _ = quadratic
    out = shutil.copytree(whole, tmp_path / "out")
    trials = []

    def spy(*args, **options):
        trials.append(run_trial(*args, **options))
        return trials[-1]

    monkeypatch.setattr("metaopt.evaluation.evaluate.run_trial", spy)
    entries = sorted((out / "cache").iterdir())
    assert len(entries) == 3
    entries[0].write_bytes(b"damaged")
    again = metaopt.evaluate(
        {"good": (SGD, THETA), "changed": (SGD, {"log_lr": jnp.float32(0.6)})},
        tasks=["quadratic:dim=3"], baselines=["sgd"], num_steps=8, seeds=3, out=out,
    )  # fmt: skip
    fresh = [not cached for _, cached in trials]
    assert fresh[1] and 1 <= sum(fresh) <= 2
    np.testing.assert_array_equal(again.rows[0].scores, found.rows[0].scores)


def test_every_baseline_lowers_a_loss_when_its_rates_are_vmapped():
    """In one program; a larger rate goes further in eight steps on a flat bowl."""
    start = {"w": jnp.full((3, 4), 2.0), "b": jnp.full(3, 2.0)}
    loss = lambda params: sum(jnp.square(leaf).mean() for leaf in params.values())

    def run(name, rate):
        tx = baseline(name).optimizer(rate, num_steps=jnp.int32(8))

        def step(carry, _):
            params, state = carry
            with jax.numpy_dtype_promotion("standard"):
                updates, state = tx.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (start, tx.init(start)), length=8)
        return loss(params)

    everything = lambda rates: {n: jax.vmap(lambda r, n=n: run(n, r))(rates) for n in BASELINES}
    for name, (low, high) in jax.jit(everything)(jnp.array([0.01, 0.05])).items():
        assert high < low < loss(start), name


def test_the_schedule_is_optaxs_in_the_middle_of_each_step():
    """Optax's own cannot be built for a peak that is traced, as it is in a vmapped sweep."""
    expected = optax.warmup_cosine_decay_schedule(0.0, 1.0, warmup_steps=10, decay_steps=200)
    middle = np.arange(200) + 0.5
    here = np.array([warmup_cosine(t, 200) for t in range(200)])
    np.testing.assert_allclose(here, expected(middle), atol=1e-6)
    assert here.min() > 0  # no step is lost, not even of a short run
    assert all(warmup_cosine(t, 8) > 0 for t in range(8)) and warmup_cosine(999, 8) == 0


def test_a_baseline_with_a_schedule_moves_by_it():
    tx = baseline("adam_cosine").optimizer(0.1, num_steps=20)
    params = jnp.zeros(2)
    state, moves = tx.init(params), []
    for _ in range(20):
        with jax.numpy_dtype_promotion("standard"):
            updates, state = tx.update(jnp.ones(2), state, params)
        moves.append(-updates[0])
    np.testing.assert_allclose(moves, [0.1 * warmup_cosine(t, 20) for t in range(20)], rtol=1e-4)
    with pytest.raises(ValueError, match="needs num_steps"):
        baseline("adam_cosine").optimizer(0.1)


FAULTS = [
    ({"tasks": ["quadratc"]}, "unknown task 'quadratc': did you mean 'quadratic'?"),
    ({"baselines": ["adan"]}, "unknown baseline 'adan': did you mean 'adam'?"),
    ({"baselines": []}, "name at least one baseline"),
    ({"seeds": 1}, "seeds must be at least 2, got 1"),
    ({"rates": (0.1, -1.0)}, "rates must be positive numbers"),
    ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
    ({"num_steps": None}, "num_steps is not given"),
    ({"tasks": []}, "no task is given"),
    ({"split": "tests"}, "unknown split 'tests': did you mean 'test'?"),
    ({"optimizers": {}}, "at least one trained optimizer"),
    ({"optimizers": "nowhere"}, "unknown trained optimizer 'nowhere'"),
    ({"optimizers": {"adam": (SGD, THETA)}}, "'adam' is a baseline's name"),
]


@pytest.mark.parametrize("change, said", FAULTS, ids=[said for _, said in FAULTS])
def test_faults_are_named_before_anything_runs(change, said, tmp_path):
    good = {
        "optimizers": {"mine": (SGD, THETA)}, "tasks": ["quadratic"], "num_steps": 4, "seeds": 2,
    }  # fmt: skip
    with pytest.raises(UserError, match=said.replace("?", r"\?")):
        metaopt.evaluate(**(good | change), out=tmp_path / "out")
    assert not (tmp_path / "out" / "cache").exists()


def test_measurements_divide_the_run():
    assert [measured_every(n) for n in (1, 7, 100, 2000)] == [1, 1, 4, 80]
