"""Suites: every task of one exists, an evaluation takes one, and the preview counts right."""

import jax.numpy as jnp
import numpy as np
import pytest

import metaopt
from metaopt import UserError
from metaopt.commands.main import main
from metaopt.config.components import make_task
from metaopt.evaluation import suite_curves, suites
from metaopt.evaluation.baselines import RATES
from metaopt.evaluation.grids import DEPTHS, WIDTHS
from metaopt.evaluation.measures import counted
from metaopt.evaluation.suite_curves import FOLDER, Kept, SuiteCurves, read_curves, write_curves
from metaopt.evaluation.suites import SUITES, Suite, preview
from metaopt.learned_optimizers import sgd

BOWLS = {"quadratic:dim=2": "a bowl", "quadratic:dim=3": "another"}
TINY = Suite("bowls", BOWLS, num_steps=4, seeds=2)
MINE = {"mine": (sgd(), {"log_lr": jnp.float32(-1.0)})}


@pytest.mark.parametrize("name", SUITES)
def test_its_tasks_exist_and_stand_in_for_something(name):
    suite = SUITES[name]
    assert suite.num_steps >= 1 and suite.seeds >= 2 and all(suite.tasks.values())
    for label in suite.tasks:
        assert make_task(label).loss is not None


def test_an_evaluation_of_a_suite(monkeypatch, tmp_path):
    monkeypatch.setitem(SUITES, "tiny", TINY)
    found = metaopt.evaluate(
        MINE, suite="tiny", baselines=["sgd", "adam_cosine"], rates=(0.1, 1.0), out=tmp_path
    )
    assert found.tasks == ("quadratic:dim=2", "quadratic:dim=3")
    assert (found.num_steps, found.seeds, found.horizons) == (4, 2, (4,))
    assert (tmp_path / "report.html").is_file()
    assert found.curves("quadratic:dim=3", "sgd").shape[:2] == (2, 2)
    with pytest.raises(UserError, match="there are no runs of 8 steps; there are of 4"):
        found.curves("quadratic:dim=3", "mine", 8)
    again = metaopt.evaluate(MINE, suite="tiny", baselines=["sgd"], seeds=3, num_steps=2)
    assert (again.num_steps, again.seeds) == (2, 3)


def test_faults_are_sentences(capsys, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="unknown suite 'held_ou': did you mean 'held_out'"):
        metaopt.evaluate(MINE, suite="held_ou")
    with pytest.raises(UserError, match="give tasks or a suite, not both"):
        metaopt.evaluate(MINE, suite="held_out", tasks=["quadratic"])
    with pytest.raises(UserError, match="num_steps must be at least 1, got 0"):
        metaopt.evaluate(MINE, suite="held_out", num_steps=0)
    with pytest.raises(UserError, match=r"are given as \{name: task\}"):
        metaopt.evaluate(MINE, tasks=[make_task("quadratic")])
    monkeypatch.setattr("metaopt.training.placement.prepare_jax", lambda devices=None: None)
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "mlp-digit", "--suite", "held_out"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and "did you mean 'mlp-digits'" in said.err
    assert main(["evaluate", "mlp-digits", "--suite", "held_ou"]) == 2
    assert "did you mean 'held_out'" in capsys.readouterr().err


def test_the_preview_counts_what_will_run(monkeypatch):
    """Two tasks; one optimizer and fifteen rates of each of two baselines, two seeds."""
    monkeypatch.setitem(SUITES, "tiny", TINY)
    monkeypatch.setattr(suites, "product_speed", lambda: 1e9)
    said = preview("tiny", 1, ["sgd", "adam"])
    assert "2 tasks, 6 trials, 124 runs of 4 steps: about 1 minute here" in said
    more = preview("tiny", 1, ["sgd", "adam"], num_steps=8, seeds=4, tune=("schedule",))
    assert "488 runs of 8 steps" in more
    widths_and_depths = preview("tiny", 1, ["sgd", "adam"], grid=True)
    assert f"2 tasks, {6 + 2 * len(WIDTHS) * len(DEPTHS)} trials" in widths_and_depths
    with pytest.raises(UserError, match="unknown baseline 'adamm'"):
        preview("tiny", 1, ["adamm"])


@pytest.mark.slow
def test_shipped_curves_are_not_run_again(monkeypatch, tmp_path):
    """What is written is what is read; it is used where starts, rates and seeds agree only."""
    monkeypatch.setitem(SUITES, "tiny", TINY)
    monkeypatch.setattr(suite_curves, "FOLDER", tmp_path)
    how = {"suite": "tiny", "baselines": ["sgd", "adam_cosine"]}
    found = metaopt.evaluate(MINE, **how)
    assert found.shipped == ""
    kept = {
        (task, name): Kept(found.trials[task][name].at(4) * np.float32([1, 1, 0.5]))
        for task in found.tasks
        for name in found.baselines
    }
    starts = {name: one._replace(loss=np.array(one.loss)) for name, one in kept.items()}
    for one in starts.values():
        one.loss[:, :, 0] = one.loss[:, :, 0] / np.float32([1, 1, 0.5])
    write_curves(tmp_path / "tiny-4.npz", SuiteCurves("on a farm", starts))
    again = metaopt.evaluate(MINE, **how)
    assert "sgd, adam_cosine are shipped with metaopt (on a farm)" in again.shipped
    end = lambda one: one.curves("quadratic:dim=3", "sgd")[:, :, -1, 2]
    np.testing.assert_allclose(end(again), end(found) / 2, rtol=1e-6)
    assert "12 trials" not in preview("tiny", 1) and "4 of them" in preview(
        "tiny", 1, how["baselines"]
    )
    times = [
        metaopt.evaluate(MINE, **how, out=tmp_path / "out").row("quadratic:dim=3", "sgd")
        for _ in range(2)
    ]  # timed once, then from the cache
    assert times[0].seconds_per_step == times[1].seconds_per_step > 0
    for change in ({"anew": True}, {"rates": (0.2,)}, {"seeds": 3}, {"num_steps": 2}):
        assert metaopt.evaluate(MINE, **how, **change).shipped == ""
    some = metaopt.evaluate(MINE, **how, rates=(1.0, 0.1))  # of the shipped rates
    assert "on a farm" in some.shipped
    expected = end(again)[[RATES.index(1.0), RATES.index(0.1)]]
    np.testing.assert_allclose(end(some), expected, rtol=1e-6)
    write_curves(tmp_path / "tiny-4.npz", SuiteCurves("elsewhere", kept))  # other starts
    assert metaopt.evaluate(MINE, **how).shipped == ""
    (tmp_path / "tiny-4.npz").write_bytes(b"torn")
    with pytest.warns(UserWarning, match="damaged"):
        assert metaopt.evaluate(MINE, **how).shipped == ""


def test_what_is_shipped_is_what_a_run_gives():
    """The cheapest task of the shipped ones, run anew; the others' starts are checked when used."""
    kept = read_curves(FOLDER / "held_out-1000.npz").sweeps
    label = "quadratic_ill"
    found = metaopt.evaluate(
        MINE, tasks=[label], baselines=["adamw_cosine"], num_steps=1000, seeds=3
    )
    ours, theirs = found.curves(label, "adamw_cosine"), kept[label, "adamw_cosine"].loss
    # At rates up to the edge of divergence a thousand steps carry a rounding far.
    stable = slice(10)
    np.testing.assert_allclose(ours[stable], counted(theirs, None)[stable], rtol=1e-2, atol=3e-4)
    for name, suite in SUITES.items():
        labels = {one for one, _ in read_curves(FOLDER / f"{name}-{suite.num_steps}.npz").sweeps}
        assert labels <= set(suite.tasks)
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 5e6
