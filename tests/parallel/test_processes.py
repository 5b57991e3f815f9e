"""One run in several processes: the same numbers, and an end in bounded time when one dies."""

import dataclasses
import os
import shutil
import signal
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from runs import bits, metrics

from metaopt.commands import main as command_line
from metaopt.config.recipes import RECIPES
from metaopt.core.errors import UserError
from metaopt.parallel.processes import ADDRESS, COUNT, INDEX, join
from metaopt.parallel.sharding import particle_mesh
from metaopt.training.loop import train

pytestmark = pytest.mark.slow

STEPS = 120
EIGHT = dataclasses.replace(
    RECIPES["tiny"],
    estimator=dataclasses.replace(RECIPES["tiny"].estimator, particles=8),
    outer_steps=STEPS,
)
COMMAND = ["train", "tiny", "--estimator.particles", 8, "--evaluation.seeds", 0]
PAIR = ["launch", "-n", 2, "--", *COMMAND, "--checkpoint-every", 20]


def close(path, other):
    """Two runs' metrics, equal up to the order of sums; counts equal.

    Differences of nearly equal losses multiply rounding, and 120 updates pass it on.
    """
    ours, theirs = metrics(path), metrics(other)
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        for name in ("step", "unroll_steps", "resets", "loss", "grad_norm"):
            assert a[name] == pytest.approx(b[name], rel=1e-4, abs=1e-6), (name, a["step"])


def state_of(config, run):
    """The state that a finished run has saved, on one device."""
    state = train(config, run).state
    return [leaf.astype(np.float64) for leaf in bits(state)]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The run on one device."""
    path = tmp_path_factory.mktemp("one") / "run"
    train(EIGHT, path)
    return path


@pytest.fixture(scope="module")
def pair(cli, tmp_path_factory):
    """The run in two processes, undisturbed, and what was printed."""
    path = tmp_path_factory.mktemp("pair") / "run"
    process = cli(*PAIR, "--outer-steps", STEPS, "--out", path)
    assert process.returncode == 0, process.stderr
    return path, process


def test_devices_and_processes_change_nothing_but_the_order_of_sums(cli, one, pair, tmp_path):
    train(EIGHT, tmp_path / "four", mesh=particle_mesh(4))
    eight = cli(
        *COMMAND, "--devices", 8, "--outer-steps", STEPS, "--out", tmp_path / "eight", "--quiet"
    )
    assert eight.returncode == 0, eight.stderr
    expected = state_of(EIGHT, one)
    for run in (tmp_path / "four", tmp_path / "eight", pair[0]):
        close(run, one)
        for a, b in zip(state_of(EIGHT, run), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


def test_process_0_alone_writes_and_prints(pair, one):
    path, process = pair
    names = lambda run: {p.name for p in run.iterdir()}
    assert names(path) == names(one) | {"report.html"}
    assert process.stdout.count("Starting ") == process.stdout.count("Report: ") == 1
    assert "on 2 cpu devices" in process.stdout
    assert process.stderr == ""


def test_two_processes_go_on_where_one_stopped_and_one_where_two_did(cli, one, pair, tmp_path):
    """The two with more particles as well."""
    longer = dataclasses.replace(EIGHT, outer_steps=STEPS + 20)
    shutil.copytree(one, tmp_path / "one")
    shutil.copytree(one, tmp_path / "two")
    shutil.copytree(pair[0], tmp_path / "pair")
    shutil.copytree(one, tmp_path / "more")
    straight = train(longer, tmp_path / "one")
    alone = train(longer, tmp_path / "pair")
    assert straight.resumed_at == alone.resumed_at == STEPS
    close(tmp_path / "pair", tmp_path / "one")

    twelve = dataclasses.replace(longer.estimator, particles=12)
    train(dataclasses.replace(longer, estimator=twelve), tmp_path / "more", on_notice=print)
    go_on = ["--outer-steps", STEPS + 20, "--estimator.particles", 12, "--out", tmp_path / "two"]
    process = cli(*PAIR, *go_on)
    assert process.returncode == 0, process.stderr
    assert "Resuming with 12 particles where there were 8." in process.stdout
    close(tmp_path / "two", tmp_path / "more")


def process_of(launcher, index):
    """The id of one of a launcher's processes."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    wanted = f"{INDEX}={index}".encode()
    (found,) = (
        pid for pid in children if wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    )
    return int(found)


def signal_after(launcher, run, lines, number):
    """Sends process 1 alone a signal once the metrics hold so many lines."""
    file = run / "metrics.jsonl"
    while launcher.poll() is None:
        if file.exists() and file.read_bytes().count(b"\n") >= lines:
            os.kill(process_of(launcher, 1), number)
            break
        time.sleep(0.01)
    return launcher.communicate(timeout=60)


def test_one_of_two_stopped_or_killed_ends_the_other_and_the_pair_goes_on(cli, pair, tmp_path):
    run = tmp_path / "run"
    command = [*PAIR, "--outer-steps", STEPS, "--out", run]

    launcher = cli(*command, start=True)
    said, errors = signal_after(launcher, run, 20, signal.SIGTERM)
    assert launcher.returncode == 128 + signal.SIGTERM, errors
    assert "The same command resumes there" in said
    newest = max(int(path.name) for path in (run / "checkpoints").iterdir())
    assert newest == (run / "metrics.jsonl").read_bytes().count(b"\n")  # both at the same step

    launcher = cli(*command, start=True)
    _, errors = signal_after(launcher, run, newest + 20, signal.SIGKILL)
    assert launcher.returncode == 128 + signal.SIGKILL
    assert "process 1 of 2 was killed by SIGKILL" in errors
    assert "The same command resumes from the last checkpoint." in errors
    assert "Traceback" not in errors

    process = cli(*command)
    assert process.returncode == 0, process.stderr
    assert metrics(run) == metrics(pair[0])
    for a, b in zip(state_of(EIGHT, run), state_of(EIGHT, pair[0]), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--", "list"], "launch starts train or compare, got 'list'"),
        (["-n", "0", "--", "train"], "at least one process, got 0"),
    ],
)
def test_launch_says_what_it_takes(arguments, said, capsys):
    assert command_line.main(["launch", *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "given",
    [{COUNT: "2"}, {COUNT: "2", INDEX: "0"}, {ADDRESS: "a:1", COUNT: "2", INDEX: "2"}],
    ids=["count alone", "no address", "index too large"],
)
def test_variables_that_contradict_themselves_are_named(given, monkeypatch):
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="several processes need JAX_COORDINATOR_ADDRESS=HOST:PORT"):
        join()
    assert not jax.distributed.is_initialized()
