"""Suites: every task of one exists, an evaluation takes one, and the preview counts right."""

import jax.numpy as jnp
import pytest

import metaopt
from metaopt import UserError
from metaopt.commands.main import main
from metaopt.config.components import make_task
from metaopt.evaluation import suites
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
    monkeypatch.setattr("metaopt.training.placement.prepare_jax", lambda devices=None: None)
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "mlp-digits", "--suite", "held_ou"]) == 2
    assert "did you mean 'held_out'" in capsys.readouterr().err


def test_the_preview_counts_what_will_run(monkeypatch):
    """Two tasks; one optimizer and fifteen rates of each of two baselines, twice."""
    monkeypatch.setitem(SUITES, "tiny", TINY)
    monkeypatch.setattr(suites, "product_speed", lambda: 1e9)
    said = preview("tiny", 1, ["sgd", "adam"])
    assert "2 tasks, 6 trials, 62 runs of 4 steps of each task: about 1 minute here" in said
    assert "124 runs of 8 steps" in preview("tiny", 1, ["sgd", "adam"], 8, 4)
    with pytest.raises(UserError, match="unknown baseline 'adamm'"):
        preview("tiny", 1, ["adamm"])
