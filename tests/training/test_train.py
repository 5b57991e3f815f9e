"""The host loop: the same bits however a run is cut, and a directory that nothing is lost from."""

import dataclasses
import re
import shutil

import numpy as np
import pytest
from runs import TINY, after, bits, metrics
from safetensors.numpy import load_file

from metaopt import load
from metaopt.config.recipes import RECIPES
from metaopt.config.schema import (
    Component,
    Config,
    OuterConfig,
    from_json,
    to_json,
)
from metaopt.estimators import GPES, PES
from metaopt.parallel.sharding import particle_mesh
from metaopt.training.experiment import build
from metaopt.training.loop import train
from metaopt.training.program import program
from metaopt.training.run_directory import RunDirectory

SMALL_DIGITS = Config(
    task=Component("digits_mlp", ("hidden=[4]", "batch_size=8")),
    optimizer=Component("mlp", ("hidden=[4]",)),
    estimator=PES(particles=4, horizon=6, window=2),
    outer=OuterConfig(decay_steps=30),
    outer_steps=9,
    checkpoint_every=4,
)


@pytest.mark.slow
@pytest.mark.parametrize("config, devices", [(TINY, 1), (SMALL_DIGITS, 2)], ids=["tiny", "digits"])
def test_a_run_cut_in_pieces_ends_with_the_same_bits(tmp_path, config, devices):
    mesh = particle_mesh(devices)
    whole = train(config, tmp_path / "whole", mesh=mesh)
    assert whole.finished and int(whole.state.step) == config.outer_steps

    cut = train(config, tmp_path / "cut", mesh=mesh, should_stop=after(1))
    assert not cut.finished and 0 < int(cut.state.step) < config.outer_steps
    again = train(config, tmp_path / "cut", mesh=mesh, should_stop=after(2))
    assert again.resumed_at == int(cut.state.step)
    final = train(config, tmp_path / "cut", mesh=mesh)

    for a, b in zip(bits(whole.state), bits(final.state), strict=True):
        np.testing.assert_array_equal(a, b)
    assert metrics(tmp_path / "cut") == metrics(tmp_path / "whole")
    assert [row["step"] for row in metrics(tmp_path / "cut")] == [*range(1, config.outer_steps + 1)]


def test_metrics_ahead_of_the_checkpoint_are_dropped_and_written_anew(tmp_path):
    """As after a SIGKILL: the last checkpoint is older than the last line, which is cut in half."""
    whole = train(TINY, tmp_path / "run")
    expected = metrics(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "13")
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 14, "lo')
    again = train(TINY, tmp_path / "run")
    assert again.resumed_at == 10
    assert metrics(tmp_path / "run") == expected
    for a, b in zip(bits(whole.state), bits(again.state), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_finished_run_can_be_taken_further(tmp_path):
    train(TINY, tmp_path / "a")
    longer = dataclasses.replace(TINY, outer_steps=20)
    further = train(longer, tmp_path / "a")
    straight = train(longer, tmp_path / "b")
    assert further.resumed_at == 13
    for a, b in zip(bits(further.state), bits(straight.state), strict=True):
        np.testing.assert_array_equal(a, b)
    assert metrics(tmp_path / "a") == metrics(tmp_path / "b")


@pytest.mark.slow
def test_schedules_horizons_and_test_losses_resume_to_the_bit_too(tmp_path):
    estimator = GPES(
        particles=4,
        horizon=60,
        shortest_horizon=20,
        window=10,
        sigma=0.1,
        final_sigma=0.01,
        sigma_steps=9,
        reuse=20,
        stagger="random",
        first_episode="burn_in",
        shaping="centered_rank",
    )
    config = Config(
        problem=Component("lorenz", ("test_starts=4", "start_noise=0.1")),
        estimator=estimator,
        outer=OuterConfig("sgd", 1e-5, warmup_steps=0, drop_step=5),
        outer_steps=9,
        checkpoint_every=4,
        test_every=3,
    )
    whole = train(config, tmp_path / "whole")
    train(config, tmp_path / "cut", should_stop=after(2))
    final = train(config, tmp_path / "cut")
    assert 0 < final.resumed_at < 9
    for a, b in zip(bits(whole.state), bits(final.state), strict=True):
        np.testing.assert_array_equal(a, b)
    rows = metrics(tmp_path / "cut")
    assert rows == metrics(tmp_path / "whole")
    assert [row["step"] for row in rows if "test_loss" in row] == [3, 6, 9]


def test_unroll_steps_are_counted_in_full(tmp_path):
    result = train(TINY, tmp_path / "run")
    per_step = 2 * TINY.estimator.particles * TINY.estimator.window
    assert result.totals["unroll_steps"] == 13 * per_step
    assert metrics(tmp_path / "run")[-1]["unroll_steps"] == 13 * per_step


def test_an_outer_step_needs_one_all_reduce_and_nothing_else():
    """Counted in the program that a run executes, compiled for four devices."""
    mesh = particle_mesh(4)
    pieces = program(build(TINY), mesh, seed=0, at_most=2)
    text = pieces.steps.lower(pieces.like, pieces.data, np.int32(1)).compile().as_text()
    kinds = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
    assert re.findall(rf"= .* ({kinds})(?:-start)?\(", text) == ["all-reduce"]


def test_only_so_many_checkpoints_are_kept(tmp_path):
    train(dataclasses.replace(TINY, keep_checkpoints=1), tmp_path / "run")
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["13"]


def test_log_every_thins_the_metrics(tmp_path):
    train(dataclasses.replace(TINY, log_every=5), tmp_path / "run")
    assert [row["step"] for row in metrics(tmp_path / "run")] == [5, 10]


def test_a_problem_of_the_catalogue_trains_too(tmp_path):
    config = dataclasses.replace(
        TINY, problem=Component("linear_recursion", ("dim=2", "loss=quadratic"))
    )
    result = train(config, tmp_path / "run")
    assert result.finished and result.theta.shape == (2,)
    written = load_file(tmp_path / "run" / "theta.safetensors")
    np.testing.assert_array_equal(written["theta"], result.theta)
    assert not (tmp_path / "run" / "optimizer").exists()


def test_the_trained_optimizer_loads_as_it_was_left(tmp_path):
    result = train(TINY, tmp_path / "run")
    tx = load(tmp_path / "run", num_steps=8)
    updates, _ = tx.update(np.ones(2, np.float32), tx.init(np.zeros(2, np.float32)))
    np.testing.assert_allclose(updates, -np.exp(result.theta["log_lr"]), rtol=1e-6)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("finished") / "run"
    train(TINY, path)
    return path


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def test_another_configuration_is_refused_by_its_fields(run):
    other = dataclasses.replace(
        TINY, seed=5, estimator=dataclasses.replace(TINY.estimator, sigma=0.2)
    )
    before = sorted(p.read_bytes() for p in run.rglob("*") if p.is_file())
    with pytest.raises(ValueError) as error:
        train(other, run)
    said = str(error.value)
    assert "seed: 0 there, 5 here" in said and "estimator.sigma: 0.1 there, 0.2 here" in said
    assert "choose another --out" in said
    assert sorted(p.read_bytes() for p in run.rglob("*") if p.is_file()) == before


def test_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"holds something else than a run .*choose another --out"):
        train(TINY, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_is_no_run_directory(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ValueError, match="cannot be used as a run directory"):
        train(TINY, tmp_path / "run")


@pytest.mark.parametrize(
    "damage, said",
    [
        (lambda d: (d / "theta.safetensors").write_bytes(b"x" * 20), "is damaged"),
        (lambda d: (d / "config.json").write_text("{"), "is damaged"),
        (lambda d: (d / "config.json").write_text('{"schema": 1}'), "is damaged"),
        (lambda d: (d / "theta.safetensors").unlink(), "holds no trained optimizer"),
        (lambda d: (d / "config.json").write_text('{"schema": 9, "optimizer": 0}'), "upgrade"),
    ],
)
def test_a_damaged_optimizer_is_refused(run, damage, said):
    damage(run / "optimizer")
    with pytest.raises(ValueError) as error:
        load(run)
    assert said in str(error.value)


def test_loading_what_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="holds no trained optimizer"):
        load(tmp_path / "nothing")


@pytest.mark.parametrize("config", RECIPES.values(), ids=RECIPES)
def test_configurations_survive_json(config):
    assert from_json(to_json(config)) == config


@pytest.mark.parametrize(
    "text, said",
    [
        ('{"sead": 1}', "unknown field 'sead'"),
        ('{"estimator": {"sigmma": 1}}', "unknown field estimator.'sigmma'"),
        ('{"estimator": 3}', "estimator must be a"),
        ("[]", "the configuration must be a Config, or an object in JSON"),
        ("{", "cannot be read"),
    ],
)
def test_a_damaged_configuration_is_refused(tmp_path, text, said):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError) as error:
        RunDirectory(tmp_path).open(TINY)
    assert said in str(error.value)
