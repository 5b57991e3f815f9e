"""An episode of a run in pictures."""

import dataclasses
import io
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image
from runs import TINY

import metaopt
from metaopt import Component, UserError
from metaopt.commands import main as command_line
from metaopt.evaluation import render
from metaopt.tasks import linear_recursion
from metaopt.training.loop import train

COLOURS = np.arange(8, dtype=np.uint8)[:, None, None, None] * np.full((1, 6, 9, 3), 20, np.uint8)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Of a problem that draws eight grey pictures, a tenth of a second each."""
    config = dataclasses.replace(TINY, problem=Component("linear_recursion"), outer_steps=2)
    train(config, tmp_path / "run")
    drawn = linear_recursion()._replace(
        render=lambda theta, data, key, seconds: (COLOURS[: round(10 * seconds)], 10.0)
    )
    monkeypatch.setattr("metaopt.training.placement.prepare_jax", lambda devices=None: None)
    monkeypatch.setattr(render, "make", lambda kind, component: drawn)
    return tmp_path / "run"


def test_an_animation_and_a_strip_in_the_report(run, capsys):
    assert command_line.main(["render", str(run), "--seconds", "0.5"]) == 0
    assert capsys.readouterr().out == f"Animation: {run / 'episode.gif'}\n"
    with Image.open(run / "episode.gif") as animation:
        assert (animation.n_frames, animation.size) == (5, (9, 6))
        assert animation.info["duration"] == 100
    strip = np.asarray(Image.open(io.BytesIO((run / "episode.png").read_bytes())))
    np.testing.assert_array_equal(strip, np.concatenate(COLOURS[:5], axis=1))
    assert "<img alt='An episode" in (run / "report.html").read_text()


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the program ffmpeg is not here")
def test_an_mp4_of_any_size(run, tmp_path):
    render.render_run(run, tmp_path / "a.mp4", seconds=0.5)
    assert (tmp_path / "a.mp4").read_bytes()[4:8] == b"ftyp"
    command = ["ffmpeg", "-i", str(tmp_path / "a.mp4"), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    pixels = subprocess.run(command, capture_output=True, check=True).stdout
    frames = np.frombuffer(pixels, np.uint8).reshape(5, 6, 10, 3)
    np.testing.assert_allclose(frames[:, 0, 0, 0], COLOURS[:5, 0, 0, 0], atol=4)


def test_where_ffmpeg_is_not_or_fails_a_sentence_says_so(run, tmp_path, monkeypatch, capsys):
    for out, said in (
        ("a.avi", "ends in .gif or .mp4, got"),
        ("a.mp4", "needs the program ffmpeg"),
    ):
        monkeypatch.setenv("PATH", str(tmp_path))
        assert command_line.main(["render", str(run), "--out", str(tmp_path / out)]) == 2
        assert said in capsys.readouterr().err
    broken = tmp_path / "ffmpeg"
    broken.write_text("#!/bin/sh\necho Unknown encoder >&2; exit 1\n")
    broken.chmod(0o755)
    with pytest.raises(UserError, match=r"ffmpeg made no MP4 \(Unknown encoder\): choose a .gif"):
        render.render_run(run, tmp_path / "a.mp4")
    assert not (tmp_path / "a.mp4").exists()


def test_what_cannot_be_drawn_is_said(run, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    assert command_line.main(["render", str(run), "--out", str(tmp_path / "file" / "a.gif")]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert command_line.main(["render", str(run), "--seconds", "0"]) == 2
    assert "--seconds must be above 0, got 0.0" in capsys.readouterr().err
    monkeypatch.undo()
    with pytest.raises(UserError, match="problem 'linear_recursion', which does not say how it is"):
        render.render_run(run)
    metaopt.train(dataclasses.replace(TINY, outer_steps=1), out=tmp_path / "tiny", quiet=True)
    with pytest.raises(UserError, match="problem 'training', which does not say how it is drawn"):
        render.render_run(tmp_path / "tiny")
