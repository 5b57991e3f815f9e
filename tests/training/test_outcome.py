"""A run shows what it found: its test metric by its name and direction, and a small theta."""

import dataclasses
import json

import numpy as np
import pytest
from runs import TINY

import metaopt
from metaopt import Metric, UserError
from metaopt.commands import main as command_line
from metaopt.estimators import NRES
from metaopt.tasks import linear_recursion
from metaopt.training.outcome import Measurements, measured_in, theta_lines, theta_text

OPTIONS = NRES(particles=4, horizon=8, window=2, sigma=0.1)
RETURN = Metric("return", "points", higher_is_better=True)
PROBLEM = linear_recursion(dim=3)._replace(
    test_loss=lambda theta, data, key: theta.sum() + 7.0, test_metric=RETURN
)
MINE = {"problem": PROBLEM, "name": "mine", "estimator": OPTIONS}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with ``runs/mine`` in it."""
    folder = tmp_path_factory.mktemp("outcome")
    config = dataclasses.replace(TINY, test_every=5)
    metaopt.train(config, out=folder / "runs" / "mine", quiet=True, **MINE)
    return folder


@pytest.fixture
def run(runs):
    return metaopt.Run(runs / "runs" / "mine")


def test_a_return_is_measured_as_it_is_and_after_the_last_step_in_any_case(run):
    measured = measured_in(run)
    assert measured.metric == RETURN and measured.steps.tolist() == [5, 10, 13]
    assert measured.values[-1] == pytest.approx(float(run.theta.sum()) + 7)
    column = run.metrics["test_return"]
    np.testing.assert_array_equal(column[[4, 9, 12]], measured.values)
    assert np.isnan(column[0]) and "test_loss" not in run.metrics


def test_the_best_is_the_highest_of_a_return_and_the_lowest_of_a_loss():
    steps, values = np.array([1, 2, 3]), np.array([4.0, 9.0, 5.0])
    said = Measurements(RETURN, steps, values).text()
    assert said == "test return 5 points after outer step 3 (best: 9 after 2)"
    assert Measurements(Metric(), steps, values).text().endswith("(best: 4 after 1)")
    assert Metric().best(np.array([np.nan])) is None


def test_it_is_in_the_run_the_list_the_page_and_the_board(run, runs, monkeypatch, capsys):
    said = f"{RETURN.text(measured_in(run).values[-1])} after outer step 13"
    numbers = theta_text({"theta": np.asarray(run.theta)})
    assert said in repr(run) and numbers in repr(run)
    monkeypatch.chdir(runs)
    monkeypatch.setenv("COLUMNS", "400")
    assert command_line.main(["list"]) == 0
    line = next(x for x in capsys.readouterr().out.splitlines() if "runs/mine" in x)
    assert said in line and numbers in line and "mine by nres" in line
    page = metaopt.report(run, quiet=True).read_text()
    assert (
        "test return after outer step 13" in page
        and "test return (points), higher is better</text>" in page
    )
    assert f"<pre>{numbers}</pre>" in page and "metaopt.load_theta(" in page
    board = b"".join(file.read_bytes() for file in (run.path / "tensorboard").iterdir())
    assert b"test_return" in board


def test_progress_says_the_newest(tmp_path, capsys):
    config = dataclasses.replace(TINY, outer_steps=2, test_every=1)
    run = metaopt.train(config, out=tmp_path / "run", **MINE)
    last = [line for line in capsys.readouterr().out.splitlines() if "outer step 2/2" in line]
    assert RETURN.text(measured_in(run).values[-1]) in last[0]


def test_a_large_theta_is_not_printed():
    many = {"a": np.zeros(16), "b": np.zeros(16)}
    assert theta_text({"a": np.zeros(4), "b": np.zeros(4)}).count("0") == 8
    assert theta_text(many) == "" and "".join(theta_lines(many)).count("0") == 32
    assert theta_lines({"a": np.zeros(33)}) == []


def test_load_says_what_export_says_and_load_theta_reads(run):
    said = r"has no optimizer: its problem is 'mine'\. metaopt\.load_theta reads"
    with pytest.raises(UserError, match=said):
        metaopt.load(run)
    with pytest.raises(UserError, match=said):
        metaopt.export(run, "mine")
    assert metaopt.load_theta(run).shape == (3,)


def test_metrics_are_drawn_with_the_test_metric(run):
    figure = metaopt.plot_metrics(run)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["loss", "test return (points), higher is better", "snr", "half_cosine"]
    (points,) = figure.axes[1].lines
    np.testing.assert_array_equal(points.get_xdata(), [5, 10, 13])


def test_the_running_mean_is_centred(tmp_path):
    """Of a straight line it is that line, of as many values on either side."""
    run = metaopt.train(dataclasses.replace(TINY, outer_steps=1), out=tmp_path / "r", quiet=True)
    row = json.loads((run.path / "metrics.jsonl").read_text())
    rows = [row | {"step": n, "loss": 1 + n / 10_000} for n in range(1, 401)]
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, smooth = metaopt.plot_metrics(run, ["loss"]).axes[0].lines
    steps = smooth.get_xdata()
    assert steps[0] == 5 and steps[-1] == 396
    np.testing.assert_allclose(smooth.get_ydata(), 1 + steps / 10_000)


def test_a_metrics_name_is_of_words():
    with pytest.raises(UserError, match="a metric's name is of letters"):
        Metric("a/b")
    assert Metric("mean squared error", "mm").key == "test_mean_squared_error"
