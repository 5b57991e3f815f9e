"""What clusters do to a run: it is killed, its disk fills up; nothing is lost."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from conftest import CACHE, ROOT

from metaopt.parallel.processes import ADDRESS, COUNT, INDEX, LOST

pytestmark = pytest.mark.slow

MAIN = "metaopt"

CHILD = os.environ | {"JAX_COMPILATION_CACHE_DIR": CACHE, "COLUMNS": "200"}


def test_killed_eight_times_a_run_ends_with_the_same_bits():
    script = ROOT / "tests" / "stress" / "survive.py"
    command = [sys.executable, str(script), "--kills", "8"]
    process = subprocess.run(command, env=CHILD, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith("8 kills, ") and " 0 in a save" not in process.stdout


FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (14_000, resource.RLIM_INFINITY))  # bytes of a file
from metaopt.commands.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_disk_that_fills_up_ends_a_run_with_a_sentence(cli, tmp_path):
    """The metrics outgrow the limit; with more room the same command resumes."""
    command = ["train", "tiny", "--out", "run", "--evaluation.seeds", "0", "--quiet"]
    process = subprocess.run(
        [sys.executable, "-c", FULL, *command],
        env=CHILD | {"JAX_ENABLE_COMPILATION_CACHE": "false"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    names = [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()]
    saved = max(int(name) for name in names if name.isdecimal())
    assert f"resumes from outer step {saved}.\n" in process.stderr
    assert "metaopt: run cannot be written (File too large): mend that" in process.stderr
    process = cli(*command, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count("\n") == 50


def test_checkpoints_that_become_read_only(cli, tmp_path):
    # Root may write anywhere, unless it gives that up.
    like_others = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"]
    start = [*(like_others if os.geteuid() == 0 else []), sys.executable, "-m", MAIN]
    command = ["train", "tiny", "--outer-steps", "500", "--evaluation.seeds", "0", "--quiet"]
    command += ["--checkpoint-every", "50"]
    checkpoints = tmp_path / "runs" / "tiny" / "checkpoints"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([*start, *command], env=CHILD, cwd=tmp_path, **pipes)
    while process.poll() is None and not (checkpoints / "50").exists():
        time.sleep(0.01)
    checkpoints.chmod(0o555)
    _, errors = process.communicate(timeout=120)
    checkpoints.chmod(0o755)
    assert process.returncode == 2, errors
    saved = max(int(path.name) for path in checkpoints.iterdir() if path.name.isdecimal())
    assert f"resumes from outer step {saved}.\n" in errors
    assert "metaopt: runs/tiny cannot be written (Permission denied): mend that" in errors
    process = cli(*command, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert (checkpoints.parent / "metrics.jsonl").read_bytes().count(b"\n") == 500


def test_a_disk_that_fills_up_for_one_of_two_processes_ends_both(cli, tmp_path):
    """Process 0 writes the metrics: it says what is wrong, and the other does not wait for ever."""
    command = ["train", "tiny", "--out", "run", "--evaluation.seeds", "0", "--quiet"]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    pair = []
    for index, start in enumerate(([sys.executable, "-c", FULL], [sys.executable, "-m", MAIN])):
        told = {ADDRESS: address, COUNT: "2", INDEX: str(index)}
        env = CHILD | told | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        pair.append(subprocess.Popen([*start, *command], env=env, cwd=tmp_path, **pipes))
    said = [process.communicate(timeout=180)[1] for process in pair]
    assert pair[0].returncode == 2, said[0]
    assert "metaopt: process 0 of 2: run cannot be written (File too large)" in said[0]
    # Whoever notices first: ours, with a sentence, or JAX, which aborts.
    lost = pair[1].returncode == LOST and "process 1 of 2 lost the others (" in said[1]
    assert lost or pair[1].returncode == -signal.SIGABRT, said[1]
    process = cli(*command, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count("\n") == 50
