"""What other people's machines do to a run, one after another; a quarter of an hour.

    pytest tests/stress/hostile.py

Second writers at ten offsets, launchers that are killed, every file of a run with five damages,
twenty hostile paths and ten environments. The suite has the shorter forms.
"""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "training"))

from test_damage import COMMAND, damage
from test_environments import HOSTILE, SOMEBODY, started

import metaopt
from metaopt.commands.main import main
from metaopt.training import placement

TRAIN = ["train", "tiny", "--evaluation.seeds", "0", "--quiet", "--out", "run"]
METAOPT = [sys.executable, "-m", "metaopt"]


def lines(folder):
    return (folder / "run" / "metrics.jsonl").read_bytes().count(b"\n")


@pytest.mark.parametrize("offset", [0, 0.3, 0.6, 1, 1.5, 2, 2.5, 3, 4, 6])
def test_a_second_writer_at_any_moment(offset, cli, tmp_path):
    command = [*TRAIN, "--outer-steps", 2000, "--checkpoint-every", 50]
    first = cli(*command, start=True, cwd=tmp_path)
    time.sleep(offset)
    second = cli(*command, start=True, cwd=tmp_path)
    said = [process.communicate(timeout=300)[1] for process in (first, second)]
    codes = [process.returncode for process in (first, second)]
    assert 0 in codes and set(codes) <= {0, 2}, said  # both where one had finished before
    for code, text in zip(codes, said, strict=True):
        assert text == "" if code == 0 else text.count("\n") == 1 and "being written by" in text
    assert lines(tmp_path) == 2000


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP, signal.SIGTERM])
@pytest.mark.parametrize("offset", [2, 5, 8])
def test_a_launcher_that_is_killed_leaves_nobody_behind(number, offset, cli, tmp_path):
    command = ["launch", "-n", 2, "--", *TRAIN, "--outer-steps", 3000, "--checkpoint-every", 100]
    launcher = cli(*command, start=True, cwd=tmp_path, stdout=None, stderr=None)
    time.sleep(offset)
    launcher.send_signal(number)
    launcher.wait(timeout=120)
    deadline = time.monotonic() + 150
    while (tmp_path / "run" / "run.lock").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    again = cli(*command, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert lines(tmp_path) == 3000


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(placement, "prepare_jax", lambda devices=None: None)
        assert main([*COMMAND, "--outer-steps", "3", "--out", str(folder)]) == 0
    return folder


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("how", ["gone", "empty", "cut", "bytes", "the other kind"])
def test_every_file_of_a_run_is_damaged(how, whole, tmp_path, monkeypatch, capsys):
    """Resumed to its end, or refused in a sentence with everything left as it was."""
    monkeypatch.setattr(placement, "prepare_jax", lambda devices=None: None)
    files = [path.relative_to(whole) for path in sorted(whole.rglob("*"))]
    outcomes = {0: 0, 2: 0}
    for number, file in enumerate(files):
        copy = tmp_path / str(number)
        shutil.copytree(whole, copy)
        damage(copy / file, how)
        code = main([*COMMAND, "--outer-steps", "5", "--out", str(copy)])
        said = capsys.readouterr().err
        outcomes[code] += 1
        assert code == 0 or said.startswith("metaopt: "), (file, said)
        assert code or metaopt.Run(copy).finished, file
        shutil.rmtree(copy)
    print(f"{how}: {len(files)} files and folders, {outcomes}")


PATHS = [
    "proj [old]", "[a-z]", "a*b", "what?", "{a,b}", "back\\slash", "# hash", "100%", "a:b",
    'say "hi"', "it's", "two  spaces", " leading", "trailing ", "new\nline", "tab\there", "-rf",
    "~", "$HOME", "Übung-π-実験", os.fsdecode(b"caf\xe9"), "[red]x[bold]", "<b>&amp;", "...",
    "a" * 200,
]  # fmt: skip


@pytest.mark.parametrize("name", PATHS, ids=range(len(PATHS)))
def test_a_hostile_path(name, tmp_path, monkeypatch):
    """Trained, resumed by a relative, an absolute and a linked path, moved, read, evaluated."""
    monkeypatch.setattr(placement, "prepare_jax", lambda devices=None: None)
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    command = ["train", "tiny", "--evaluation.seeds", "2", "--evaluation.num-steps", "2"]
    assert main([*command, "--outer-steps", "2"]) == 0
    assert main([*command, "--outer-steps", "3", "--out", f"{tmp_path}/{name}/runs/tiny"]) == 0
    (tmp_path / "link").symlink_to(tmp_path / name)
    assert main([*command, "--outer-steps", "4", "--out", f"{tmp_path}/link/runs/tiny"]) == 0
    (tmp_path / name / "runs").rename(tmp_path / name / "moved")
    run = metaopt.Run(tmp_path / name / "moved" / "tiny")
    assert run.finished and run.metrics["step"].tolist() == [1, 2, 3, 4]
    assert callable(run.load(8).update)
    evaluate = ["evaluate", "moved/tiny", "--baselines", "sgd", "--num-steps", "2", "--seeds", "2"]
    assert main([*evaluate, "--out", f"./{name}"]) == 0
    assert (tmp_path / name / name / "report.html").exists()


NO_CACHE = ("XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR", "MPLCONFIGDIR", "TFDS_DATA_DIR")
ENVIRONMENTS = {
    "no home": {"without": ("HOME", *NO_CACHE)},
    "unknown user": {"without": ("HOME", *NO_CACHE), "before": SOMEBODY.split()},
    "read-only home": {"without": NO_CACHE, "HOME": "/proc"},
    "a file for a home": {"without": NO_CACHE, "HOME": "/dev/null"},
    "ASCII": {name: HOSTILE[name] for name in ("LC_ALL", "PYTHONUTF8", "PYTHONCOERCECLOCALE")},
    "closed streams": {"shell": ">&- <&-"},
    "rbg": {"JAX_DEFAULT_PRNG_IMPL": "rbg"},
    "unsafe_rbg": {"JAX_DEFAULT_PRNG_IMPL": "unsafe_rbg", "JAX_THREEFRY_PARTITIONABLE": "0"},
    "flags": {"XLA_FLAGS": HOSTILE["XLA_FLAGS"]},
    "NaN are errors": {"JAX_DEBUG_NANS": "1"},
    "warnings are errors": {"PYTHONWARNINGS": "error"},
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_an_environment(name, whole, tmp_path):
    """A run with its evaluation is what it is elsewhere, to the bit."""
    options = dict(ENVIRONMENTS[name])
    command = [*options.pop("before", ()), *METAOPT, *COMMAND, "--outer-steps", "3", "--out", "π"]
    done = started(command, tmp_path, **options)
    assert (done.returncode, done.stderr) == (0, "")
    assert metaopt.load_theta(tmp_path / "π") == metaopt.load_theta(whole)
    assert (tmp_path / "π" / "report.html").exists()
