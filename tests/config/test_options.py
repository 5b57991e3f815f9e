"""An estimator says what it takes: in Python, in JSON, on the command line, and of old runs."""

import dataclasses
import inspect
import json

import pytest

from metaopt.commands import main as command_line
from metaopt.config.recipes import RECIPES, recipe
from metaopt.config.schema import Config, from_json, mismatches, options_of, to_json
from metaopt.core.errors import UserError
from metaopt.estimators import BPTT, ESTIMATORS, GPES, NRES, FullES
from metaopt.exporting.command import to_command
from metaopt.training.experiment import build

ALL_OF_0_1 = {
    "particles": 16, "horizon": 200, "shortest_horizon": None, "growth_steps": None, "window": 20,
    "sigma": 0.05, "final_sigma": None, "sigma_steps": None, "reuse": None, "stagger": "balanced",
    "first_episode": "short", "particles_per_chunk": None, "shaping": "raw",
}  # fmt: skip
"""What version 0.1 wrote into ``config.json`` for whatever estimator."""

every_estimator = pytest.mark.parametrize("name", ESTIMATORS)


@every_estimator
def test_options_are_the_keywords_of_the_factory(name):
    """Every option gets to the factory under a keyword, and every keyword has an option."""
    options = options_of(name)(**({"reuse": 40} if name == "gpes" else {}))
    keywords = [
        p.name
        for p in inspect.signature(ESTIMATORS[name]).parameters.values()
        if p.kind is p.KEYWORD_ONLY
    ]
    assert {*options.arguments(), "mesh"} == set(keywords)
    assert options.name == name
    assert options.antithetic == ("sigma" in keywords)
    assert options.depth == (20 if "window" in keywords else 200)


@every_estimator
def test_json_and_the_command_line_say_the_same(name):
    extra = {"reuse": 40} if name == "gpes" else {}
    config = Config(estimator=options_of(name)(particles=6, horizon=40, **extra), seed=3)
    assert from_json(to_json(config)) == config
    words = to_command(config, out="runs/x").split()[1:]
    assert command_line._parse(words).config == config


def test_a_field_set_to_its_default_is_honoured():
    """`--estimator.window 20` is not the same as saying nothing, where a recipe has another."""
    command = command_line._parse(["train", "lorenz", "--estimator.window", "20"])
    assert command.config.estimator.window == 20
    command = command_line._parse(["train", "lorenz_bptt", "--estimator.no-remat"])
    assert command.config.estimator == BPTT(particles=1, horizon=2000, remat=False)
    with pytest.raises(UserError, match="'full_es' takes no argument 'window'"):
        command_line._parse(["train", "tiny", "--estimator", "full_es", "--estimator.window", "20"])


@every_estimator
def test_configurations_of_0_1_are_read(name):
    extra = {"reuse": 40} if name == "gpes" else {}
    old = json.loads(to_json(Config(estimator=options_of(name)(**extra))))
    old["estimator"] = {"name": name} | ALL_OF_0_1 | extra
    read = from_json(json.dumps(old))
    assert read.estimator == options_of(name)(**extra)
    assert mismatches(read, Config(estimator=options_of(name)(**extra))) == []


def test_what_0_1_would_have_refused_is_refused():
    old = json.loads(to_json(Config(estimator=FullES())))
    old["estimator"] |= {"window": 10}
    with pytest.raises(UserError, match=r"unknown field estimator\.'window'"):
        from_json(json.dumps(old))


def test_another_estimator_is_another_run():
    (said, *_) = mismatches(Config(), Config(estimator=FullES()))
    assert said == "estimator.name: 'nres' there, 'full_es' here"
    assert len(mismatches(Config(estimator=NRES()), Config(estimator=GPES(reuse=40)))) == 2


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_commands(name):
    config = dataclasses.replace(recipe(name), seed=7)
    assert command_line._parse(to_command(config).split()[1:]).config == config


def test_gpes_needs_its_reuse():
    with pytest.raises(UserError, match="estimator 'gpes': it needs a value for reuse"):
        build(Config(estimator=GPES()))


def test_an_estimator_that_does_not_say_what_it_takes(monkeypatch):
    bare = lambda problem: None
    monkeypatch.setattr("metaopt.config.schema.find", lambda kind, name: bare)
    with pytest.raises(UserError, match="does not say what it takes: mark its factory"):
        options_of("bare")
