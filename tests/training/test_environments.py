"""A run in the environments that containers, clusters, editors and shells make for it.

One process has most of them at once; ``tests/stress/environments.py`` has one after another.
"""

import os
import shutil
import subprocess
import sys
import threading

import jax
import pytest
from conftest import CACHE

import metaopt
from metaopt.commands.main import main
from metaopt.training import placement

pytestmark = pytest.mark.slow

RUN = ["train", "tiny", "--outer-steps", "2", "--evaluation.seeds", "0"]
PLAIN = os.environ | {"JAX_COMPILATION_CACHE_DIR": CACHE}
HOSTILE = {
    "HOME": "/proc",  # cannot be written
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2",
    "JAX_DEFAULT_PRNG_IMPL": "rbg",
    "JAX_THREEFRY_PARTITIONABLE": "0",
    "JAX_DEBUG_NANS": "1",
}


def started(command, folder, *, without=(), shell="", **environment):
    """A process with another environment; ``shell``: what a shell does to its streams."""
    env = {name: value for name, value in (PLAIN | environment).items() if name not in without}
    words = ["sh", "-c", f'exec "$@" {shell}', "sh", *command]
    options = {"env": env, "cwd": folder, "capture_output": True, "text": True, "check": False}
    return subprocess.run(words, timeout=120, **options)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in, and JAX as the other tests have it."""
    monkeypatch.setattr(placement, "prepare_jax", lambda devices=None: None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_hostile_environment_changes_nothing(here):
    without = ("XDG_CACHE_HOME", "MPLCONFIGDIR")
    strict = [sys.executable, "-W", "error", "-m", "metaopt"]
    command = [*strict, *RUN, "--out", "π"]
    done = started(command, here, without=without, shell="<&-", **HOSTILE)
    assert (done.returncode, done.stderr) == (0, "")
    assert r"Report: \udccf\udc80/report.html" in done.stdout
    assert (here / "π" / "report.html").exists()
    assert main([*RUN, "--quiet"]) == 0
    assert metaopt.load_theta(here / "π") == metaopt.load_theta(here / "runs" / "tiny")


SOMEBODY = "setpriv --reuid 54321 --regid 54321 --clear-groups --inh-caps=+dac_override "
SOMEBODY += "--ambient-caps=+dac_override"  # to read what is root's


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root may be somebody else"
)
def test_an_unknown_user_without_a_home(tmp_path):
    nothing = ("HOME", "XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR")
    command = [*SOMEBODY.split(), sys.executable, "-m", "metaopt", *RUN, "--quiet"]
    done = started(command, tmp_path, without=nothing)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "runs" / "tiny" / "report.html").exists()


@pytest.mark.parametrize("shell", [">&- 2>&- <&-", ">/dev/full"], ids=["closed", "full"])
def test_standard_streams_that_take_nothing(shell, tmp_path):
    done = started([sys.executable, "-m", "metaopt", *RUN], tmp_path, shell=shell)
    said = "" if "&-" in shell else "metaopt: [Errno 28] No space left on device.\n"
    assert (done.returncode, done.stderr) == (2 if said else 0, said)
    if not said:
        lines = (tmp_path / "runs" / "tiny" / "metrics.jsonl").read_text().splitlines()
        assert len(lines) == 2 and all(line.startswith("{") for line in lines)


def test_a_warning_that_is_an_error_is_a_sentence(here, capsys):
    assert main(RUN) == 0
    (here / "runs" / "tiny" / "metrics.jsonl").unlink()
    assert main([*RUN[:2], "--outer-steps", "3", *RUN[4:]]) == 2  # the tests run under -W error
    said = capsys.readouterr().err
    lost = "has lost 2 of its 2 lines up to outer step 2"
    assert said == f"metaopt: runs/tiny/metrics.jsonl {lost}.\n"


def test_files_that_an_editor_for_windows_has_saved(here):
    assert main(RUN) == 0
    for name in ("config.json", "metrics.jsonl"):
        file = here / "runs" / "tiny" / name
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert main([*RUN[:2], "--outer-steps", "3", *RUN[4:]]) == 0
    assert metaopt.read_metrics("runs/tiny")["step"].tolist() == [1, 2, 3]


def test_the_command_line_after_jax_was_used_and_in_a_thread(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    jax.block_until_ready(jax.numpy.ones(2))
    codes = []
    thread = threading.Thread(target=lambda: codes.append(main([*RUN, "--devices", "2"])))
    thread.start()
    thread.join()
    assert codes == [0]
    assert main([*RUN, "--out", "other", "--devices", "64"]) == 2
    assert capsys.readouterr().err == "metaopt: devices must be 1 to 4, got 64.\n"
