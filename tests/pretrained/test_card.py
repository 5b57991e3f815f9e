"""What a card says of tasks within tasks, and of what was measured elsewhere."""

import dataclasses
import json

from conftest import ROOT

import metaopt
from metaopt import Component, Config, EvaluationConfig
from metaopt.estimators import NRES
from metaopt.evaluation.inputs import trained_on
from metaopt.exporting.card import card

GENERAL = ROOT / "checkpoints" / "general"


def test_it_describes_the_task_within_and_carries_a_note():
    stored = [json.loads((GENERAL / f"{name}.json").read_text()) for name in ("config", "eval")]
    text = card(*stored, False, note="Elsewhere, too.\n")
    assert "The task `signal_mlp_64`, within `progress`:\n\n> An MLP on signals of 40" in text
    assert "\n\n## Beyond that\n\nElsewhere, too.\n\n## Where it does not beat" in text
    assert "Beyond that" not in card(*stored, False)


def test_a_run_names_the_task_within(tmp_path):
    config = Config(
        task=Component("augment", ("task=quadratic:dim=2", "rescale=global")),
        optimizer=Component("sgd"),
        estimator=NRES(particles=2, horizon=4, window=2, sigma=0.1),
        outer_steps=1,
        evaluation=EvaluationConfig(seeds=0),
    )
    metaopt.train(config, out=tmp_path / "run", quiet=True)
    said = json.loads((tmp_path / "run" / "optimizer" / "config.json").read_text())
    assert said["trained_on"]["tasks"] == ["quadratic"]
    after = dataclasses.replace(config, start_from=str(tmp_path / "run"), outer_steps=2)
    metaopt.train(after, out=tmp_path / "after", quiet=True)
    said = json.loads((tmp_path / "after" / "optimizer" / "config.json").read_text())
    assert said["started_from"]["trained_on"]["outer_steps"] == 1
    cost = trained_on(tmp_path / "after").cost
    assert "3 outer steps, 24 unroll steps" in cost, cost


def test_it_says_what_theta_started_from():
    stored = [json.loads((GENERAL / f"{name}.json").read_text()) for name in ("config", "eval")]
    text = card(*stored, False)
    assert text.count("NRES, seed 1: ") == 2
    assert "\nmetaopt train zoo_gated_muon --out runs/general_start\n" in text
    assert text.index("3,000 outer steps") < text.index("\n\nThen:\n\n```bash\n")
    assert text.index("Then:") < text.index("--start-from runs/general_start")
