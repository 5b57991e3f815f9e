"""A run has one writer, whose locks, pipes and terminals may all go away."""

import errno
import os
import signal
import socket
import subprocess
import threading
import time

import pytest
from runs import metrics

import metaopt
from metaopt.core.errors import UserError
from metaopt.training import lock
from metaopt.training.lock import only_writer

pytestmark = pytest.mark.slow

TRAIN = ["train", "tiny", "--evaluation.seeds", 0, "--out", "run"]


def wait_for(condition, process):
    """Until something holds; or the process has ended."""
    while not condition() and process.poll() is None:
        time.sleep(0.01)


def lines(folder):
    file = folder / "run" / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


@pytest.fixture
def running(cli, tmp_path):
    """A long run in a process of its own, some outer steps done."""
    process = cli(*TRAIN, "--outer-steps", 1_000_000, start=True, cwd=tmp_path)
    wait_for(lambda: lines(tmp_path) > 5, process)
    yield process
    process.kill()
    process.communicate()


def test_a_second_writer_is_told_who_writes_and_the_first_is_unharmed(running, cli, tmp_path):
    second = cli(*TRAIN, "--outer-steps", 1_000_000, cwd=tmp_path)
    holder = f"process {running.pid} on {socket.gethostname()}"
    assert second.returncode == 2
    assert second.stderr == (
        f"metaopt: run is being written by {holder}: wait until that ends, stop it, or choose "
        "another --out.\n"
    )
    with pytest.raises(UserError, match="is being written by process"):
        metaopt.train("tiny", out=tmp_path / "run", quiet=True)
    running.send_signal(signal.SIGHUP)  # its terminal was closed
    said, errors = running.communicate(timeout=60)
    assert running.returncode == 128 + signal.SIGHUP, errors
    assert "The same command resumes there" in said
    steps = [row["step"] for row in metrics(tmp_path / "run")]
    assert steps == list(range(1, len(steps) + 1))
    assert not (tmp_path / "run" / "run.lock").exists()


def test_a_killed_writer_leaves_no_lock(running, tmp_path):
    running.kill()
    running.wait()
    assert (tmp_path / "run" / "run.lock").exists()  # it names a process that is gone
    with only_writer(tmp_path / "run"):
        pass


def test_a_run_whose_output_nobody_reads_saves_and_ends(cli, tmp_path):
    process = cli(*TRAIN, "--outer-steps", 1_000_000, start=True, cwd=tmp_path, text=False)
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=120) == 128 + signal.SIGPIPE
    assert process.stderr.read() == b""
    process.stderr.close()
    (newest,) = sorted(map(int, os.listdir(tmp_path / "run" / "checkpoints")))[-1:]
    assert newest == lines(tmp_path) > 0


def test_a_hang_up_that_is_ignored_stays_ignored(cli, tmp_path):
    """As under nohup: the run ends by itself."""
    usual = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a new process inherits it
    command = (*TRAIN, "--outer-steps", 2000, "--checkpoint-every", 1000)
    process = cli(*command, start=True, cwd=tmp_path)
    signal.signal(signal.SIGHUP, usual)
    wait_for(lambda: lines(tmp_path) > 5, process)
    process.send_signal(signal.SIGHUP)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert lines(tmp_path) == 2000


def test_processes_end_with_the_one_that_launched_them(cli, tmp_path):
    pair = ("launch", "-n", 2, "--", *TRAIN, "--outer-steps", 1_000_000)
    launcher = cli(*pair, start=True, cwd=tmp_path, stdout=subprocess.DEVNULL)
    wait_for(lambda: lines(tmp_path) > 5, launcher)
    launcher.kill()
    launcher.communicate()
    # Its run can be written as soon as process 0 has saved and left.
    deadline = time.monotonic() + 60
    while (tmp_path / "run" / "run.lock").exists():
        assert time.monotonic() < deadline, "the processes have outlived their launcher"
        time.sleep(0.05)
    (newest,) = sorted(map(int, os.listdir(tmp_path / "run" / "checkpoints")))[-1:]
    assert newest == lines(tmp_path)


def test_two_threads_are_two_writers(tmp_path):
    seen, inside, leave = [], threading.Event(), threading.Event()

    def other():
        with only_writer(tmp_path / "run"):
            inside.set()
            leave.wait(60)

    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(60)
    with pytest.raises(UserError, match=f"process {os.getpid()} on"), only_writer(tmp_path / "run"):
        seen.append("both")
    leave.set()
    thread.join()
    with only_writer(tmp_path / "run"):
        seen.append("alone")
    assert seen == ["alone"]
    assert not (tmp_path / "run").exists()  # nothing was written


def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match="has no locks .*not supported"):
        run = metaopt.train("tiny", outer_steps=2, out=tmp_path / "run", quiet=True)
    assert run.finished


@pytest.mark.parametrize("fault", ["a file", "a folder for a lock"])
def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path, fault):
    run = tmp_path / "run"
    if fault == "a file":
        run.write_text("")
    else:
        (run / "run.lock").mkdir(parents=True)
    with pytest.raises(UserError, match="run cannot be used as a run directory"), only_writer(run):
        pass
