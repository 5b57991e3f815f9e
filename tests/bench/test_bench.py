"""The benchmark's figures mean what they say; how large they are is nothing for a test."""

import dataclasses

import jax.numpy as jnp
import pytest

from metaopt.bench import outer_steps as bench
from metaopt.bench import scaling as bench_scaling
from metaopt.commands import main as command_line
from metaopt.config.recipes import RECIPES
from metaopt.parallel.sharding import particle_mesh
from metaopt.training.experiment import build
from metaopt.training.program import program

TINY = RECIPES["tiny"]


@pytest.mark.slow
def test_the_figures_of_a_case_belong_together():
    options = {"devices": 1, "profile": None, "import_s": 2.0}
    got = bench.time_case(bench.Case(TINY), seconds=0.01, **options)
    per_outer = 2 * TINY.estimator.particles * TINY.estimator.window
    assert got["steps_per_s"] * got["outer_ms"] / 1e3 == pytest.approx(per_outer)
    assert got["gflops"] == pytest.approx(got["steps_per_s"] * got["flops_per_step"] / 1e9)
    assert 0 < got["flops_fraction"] < 1 and got["matmul_gflops"] > got["gflops"]
    assert (
        got["first_update_s"]
        >= got["import_s"] + got["build_s"] + got["trace_s"] + got["compile_s"]
    )
    # 4 parameters, the log rate's step and horizon counters and the key: read and written once.
    assert 2 * 4 * 4 < got["state_bytes_per_step"] < 200


def test_a_robots_steps_are_a_fraction_of_the_simulators_own():
    pytest.importorskip("mujoco")
    case = bench.Case(TINY, robot=("half_cheetah.xml", 5))
    got = bench.time_case(case, seconds=0.01, devices=1, profile=None)
    simulated = got["open_loop_steps_per_s"]
    assert simulated > 0 and got["steps_per_s"] == pytest.approx(
        got["open_loop_fraction"] * simulated
    )


def test_memory_does_not_grow_with_the_horizon():
    mesh = particle_mesh(1)

    def memory(horizon):
        estimator = dataclasses.replace(TINY.estimator, horizon=horizon)
        experiment = build(dataclasses.replace(TINY, estimator=estimator))
        pieces = program(experiment, mesh, seed=0, at_most=4)
        compiled = pieces.steps.lower(pieces.like, pieces.data, jnp.int32(1)).compile()
        found = compiled.memory_analysis()
        return found.temp_size_in_bytes + found.argument_size_in_bytes

    assert memory(8) == memory(8000)


def test_more_rows_are_the_same_rows_again():
    experiment = build(TINY)
    problem = experiment.problem._replace(data=lambda: {"train": {"x": jnp.arange(3)}})
    rows = bench._with_rows(problem, 7).data()["train"]["x"]
    assert rows.tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_an_unknown_case_is_named(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("metaopt.training.placement.prepare_jax", lambda devices=None: None)
    assert command_line.main(["bench", "digits_w2", "--out", str(tmp_path / "b")]) == 2
    assert "unknown case 'digits_w2': did you mean 'digits_w" in capsys.readouterr().err
    assert command_line.main(["bench", "--seconds", "0"]) == 2
    (tmp_path / "file").touch()
    assert command_line.main(["bench", "lorenz", "--out", str(tmp_path / "file" / "b")]) == 2
    assert "b cannot be written (Not a directory): choose" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_the_devices_are_varied_with_work_that_they_divide():
    points = [
        p for p in bench_scaling._points() if p[0] in (bench_scaling.STRONG, bench_scaling.WEAK)
    ]
    particles = [(axis, devices, c.estimator.particles) for axis, _, c, devices in points]
    strong, weak = bench_scaling.STRONG, bench_scaling.WEAK
    assert particles == [(strong, 1, 64), (weak, 1, 8), (strong, 2, 64), (weak, 2, 16),
                         (strong, 4, 64), (weak, 4, 32)]  # fmt: skip
