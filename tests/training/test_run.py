"""Meta-training from Python: one call that resumes, and a run as an object."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest
from conftest import CACHE
from runs import TINY, bits, metrics

import metaopt
from metaopt import Component, UserError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return metaopt.train(TINY, out=tmp_path_factory.mktemp("run") / "tiny", quiet=True)


def test_a_run_says_what_it_is(run):
    assert run.finished and run.outer_steps == 13 and run.config == TINY
    assert "windows of 2 of 8 inner steps; 13 of 13 outer steps; log_lr = " in repr(run)
    assert metaopt.Run(run.path) == run and os.fspath(run) == str(run.path)
    np.testing.assert_array_equal(run.metrics["step"], np.arange(1, 14))
    assert run.metrics["loss"].dtype == np.float64 and run.metrics["resets"].dtype == np.int64


def test_its_theta_and_its_optimizer_are_the_trained_ones(run):
    theta = metaopt.load_theta(run)
    tx = run.load(num_steps=8)
    params = {"w": jax.numpy.ones(3)}
    updates, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_allclose(updates["w"], -np.exp(theta["log_lr"]), rtol=1e-6)


def test_the_same_call_again_changes_nothing(run):
    before = (run.path / "metrics.jsonl").read_bytes()
    again = metaopt.train(run.config, out=run.path, quiet=True)
    assert again == run and (run.path / "metrics.jsonl").read_bytes() == before


def test_a_finished_run_trains_on(run, tmp_path):
    longer = dataclasses.replace(TINY, outer_steps=15)
    whole = metaopt.train(longer, out=tmp_path / "whole", quiet=True)
    metaopt.train(TINY, out=tmp_path / "parts", quiet=True)
    parts = metaopt.train(longer, out=tmp_path / "parts", quiet=True)
    assert metrics(whole.path) == metrics(parts.path)
    for a, b in zip(bits(whole.theta), bits(parts.theta), strict=True):
        np.testing.assert_array_equal(a, b)


def test_it_runs_in_a_thread(run, tmp_path):
    found = []
    work = lambda: found.append(metaopt.train(TINY, out=tmp_path / "thread", quiet=True))
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert metrics(found[0].path) == metrics(run.path)


def test_a_problem_has_a_theta_too(tmp_path):
    config = dataclasses.replace(TINY, problem=Component("linear_recursion"), outer_steps=2)
    run = metaopt.train(config, out=tmp_path / "run", quiet=True)
    assert run.theta.shape == (5,) and run.theta.dtype == np.float32
    assert repr(run).startswith(f"<Run {run.path}: linear_recursion by nres")


def test_an_interrupt_saves(tmp_path):
    """As Ctrl-C in a script, or a notebook's interrupt."""
    code = (
        "import dataclasses, metaopt\n"
        "config = dataclasses.replace(metaopt.recipe('tiny'), outer_steps=100_000)\n"
        "try:\n"
        "    metaopt.train(config, out='run')\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted at', metaopt.Run('run').outer_steps)\n"
    )
    env = os.environ | {"JAX_COMPILATION_CACHE_DIR": CACHE}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=env, **pipes)
    lines = tmp_path / "run" / "metrics.jsonl"
    while process.poll() is None and not (lines.exists() and lines.stat().st_size):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    done = metaopt.Run(tmp_path / "run").outer_steps
    assert f"interrupted at {done}" in said and "The same command resumes there." in said
    assert (tmp_path / "run" / "checkpoints" / str(done)).is_dir()


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: metaopt.train(TINY), "say where the run goes: metaopt.train"),
        (lambda: metaopt.train("tny", out="x"), "unknown recipe 'tny': did you mean 'tiny'?"),
        (lambda: metaopt.recipe("lorentz"), "did you mean 'lorenz'?"),
        (lambda: metaopt.compare([]), "at least one recipe or run and one seed"),
        (lambda: metaopt.compare(["tny"], out="x"), "unknown recipe 'tny'"),
        (lambda: metaopt.load_theta("nowhere"), "unknown trained optimizer 'nowhere'"),
        (lambda: metaopt.read_metrics("nowhere"), "holds no metrics"),
        (lambda: metaopt.catalogue("taks"), "unknown kind of catalogue 'taks'"),
    ],
)
def test_a_fault_is_a_sentence(call, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        call()
    assert said in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_recipes_are_compared(tmp_path):
    found = metaopt.compare(["tiny"], seeds=2, outer_steps=4, out=tmp_path / "c", quiet=True)
    (curves,) = found.curves
    assert curves.values.shape == (2, 4) and curves.axes["sequential_steps"].tolist() == [
        2,
        4,
        6,
        8,
    ]
    assert found.plot().axes and (tmp_path / "c" / "compare.json").is_file()


def test_metrics_are_drawn(run):
    figure = metaopt.plot_metrics(run)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["loss", "snr", "half_cosine"]
    with pytest.raises(UserError, match="unknown metric 'los': did you mean 'loss'"):
        metaopt.plot_metrics(run, ["los"])
