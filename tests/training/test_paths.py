"""A run's folder may be called anything that a file system takes."""

import os

import numpy as np
import pytest
from runs import TINY

import metaopt
from metaopt.commands.main import main

pytestmark = pytest.mark.slow

NAMES = {
    "patterns": "proj [old] *? {a,b} \\",
    "markup": "[red]x[bold] [] [link=x] $HOME %s ~",
    "quotes": 'it\'s "so" #1 <b>&amp;',
    "whitespace": "two  lines\nand more ",
    "not ASCII": "Übung-π-実験",
    "not UTF-8": os.fsdecode(b"caf\xe9"),
    "a dash": "-rf",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_run_below_a_strange_folder_resumes_and_is_read(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("metaopt.training.placement.prepare_jax", lambda devices=None: None)
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    command = ["train", "tiny", "--evaluation.seeds", "0"]
    assert main([*command, "--outer-steps", "2"]) == 0
    assert main([*command, "--outer-steps", "3", "--out", f"{tmp_path}/{name}/runs/tiny"]) == 0
    said = capsys.readouterr().out
    shown = name.encode(errors="backslashreplace").decode()  # what UTF-8 does not have
    assert f"Resuming {tmp_path}/{shown}/runs/tiny" in said
    monkeypatch.chdir(tmp_path)
    run = metaopt.Run(tmp_path / name / "runs" / "tiny")
    assert run.finished and run.metrics["step"].tolist() == [1, 2, 3]
    assert np.isfinite(run.theta["log_lr"])
    assert callable(run.load(8).update)
    assert callable(metaopt.load(run.path, 8).update)


def test_a_run_that_was_moved_resumes(tmp_path):
    first = metaopt.train("tiny", outer_steps=2, out=tmp_path / "a", quiet=True)
    (tmp_path / "elsewhere").mkdir()
    first.path.rename(tmp_path / "elsewhere" / "b")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "b")
    again = metaopt.train("tiny", outer_steps=4, out=tmp_path / "link", quiet=True)
    assert again.metrics["step"].tolist() == [1, 2, 3, 4] and again.config.task == TINY.task
