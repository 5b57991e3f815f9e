"""Losses that are negative, 0 or lost: what every command says of them is right."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import metaopt
from metaopt import Task
from metaopt.commands import main as command_line
from metaopt.evaluation import plots
from metaopt.learned_optimizers import LEARNED_OPTIMIZERS
from metaopt.pretrained.gains import changes_in
from metaopt.tasks import TASKS

pytestmark = pytest.mark.slow


def _task(loss, start, data=lambda: {name: np.zeros(1, np.float32) for name in SPLITS}) -> Task:
    return Task(
        data=data,
        init=lambda config, key: start(key),
        batch=lambda data, config, split, key: data[split],
        loss=loss,
    )


SPLITS = ("train", "valid", "test")


def density():
    """A Gaussian's negative log-likelihood on narrow data: starts above 0, ends below it."""
    rows = lambda seed: np.random.default_rng(seed).normal(0.3, 0.01, 64).astype(np.float32)

    def loss(config, p, x, key):
        return jnp.mean(p["log"] + 0.919 + jnp.square((x - p["mean"]) / jnp.exp(p["log"])) / 2)

    start = lambda key: {"mean": 0.3 + 0.01 * jax.random.normal(key, ()), "log": jnp.float32(0.0)}
    return _task(loss, start, lambda: {name: rows(i) for i, name in enumerate(SPLITS)})


def below():
    """A quadratic from a fixed distance, less 100: a loss that is always below 0."""
    circle = lambda key: 2 * jnp.array([jnp.cos(a := jax.random.uniform(key)), jnp.sin(a)])
    return _task(lambda config, p, x, key: jnp.square(p).sum() - 100, circle)


def lost():
    """A loss that is NaN from the start."""
    return _task(lambda config, p, x, key: jnp.log(-jnp.square(p)).mean(), lambda key: jnp.ones(2))


def solved():
    """A loss of 0 from the start."""
    return _task(lambda config, p, x, key: jnp.maximum(0.0, -p).sum(), lambda key: jnp.ones(2))


@pytest.fixture
def main(monkeypatch, capsys, tmp_path):
    """The command line in this process and an empty folder; the tasks here are installed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr("metaopt.training.placement.prepare_jax", lambda devices=None: None)
    for task in (density, below, lost, solved):
        monkeypatch.setitem(TASKS, task.__name__, task)

    def run(*argv):
        assert command_line.main([*map(str, argv)]) == 0
        return " ".join(capsys.readouterr().out.split())

    return run


def short(task, *more):
    return ("train", "tiny", "--task", task, "--task.args", "--outer-steps", 4, *more)


def listed(main, name):
    """What `metaopt list` says of a run."""
    return main("list").partition(name)[2]


def test_a_negative_loss_goes_all_the_way_with_the_right_verdict(main, tmp_path):
    """SGD at the rate where it starts hardly moves: worse than Adam, whatever the sign."""
    said = main(*short("density", "--out", "runs/density"))
    stored = json.loads((tmp_path / "runs/density/evaluation.json").read_text())
    mean, final = changes_in(stored)[:2]
    assert mean.theirs < 0 < mean.ours and mean.start > 0.9
    assert mean.verdict == final.verdict == "higher"
    assert mean.difference.mean == pytest.approx(mean.ours - mean.theirs, rel=1e-4)
    assert -1 < mean.progress.mean < -0.9
    headline = f"{mean.difference} higher mean test loss than tuned adam ({mean.theirs:.4g})"
    page = (tmp_path / "runs/density/report.html").read_text()
    first, rest = mean.headline()
    assert headline in said and f"<b>{first}</b> {rest}" in page
    assert headline in listed(main, "runs/density")
    (row, *_) = stored["rows"]
    assert all(0 < speedup < 0.5 for speedup in row["speedups"])

    main("export", "runs/density", "--name", "density")
    card = (tmp_path / "density/CARD.md").read_text()
    assert f"- Against tuned adam in the mean loss on `density`: {headline}." in card
    assert f"| **difference to adam** | {mean.difference.text(sign='+')} |" in card

    said = main("evaluate", "density", "--baselines", "adam", "--seeds", 4, "--out", "out")
    assert headline in said  # the same evaluation: one set of rates, caps and seeds
    assert json.loads((tmp_path / "out/evaluation.json").read_text())["tasks"] == ["density"]


def test_better_is_called_better_below_0(main):
    """Against baselines that are given rates at which they hardly move."""
    good = LEARNED_OPTIMIZERS["sgd"](), {"log_lr": jnp.log(jnp.float32(0.4))}
    how = {"tasks": ["below"], "num_steps": 8, "seeds": 4, "rates": (1e-3, 2e-3)}
    found = metaopt.evaluate({"good": good}, baselines=["sgd", "adam"], **how)
    change = found.change()
    assert change.verdict == "lower" and change.difference.mean == pytest.approx(-3.8, abs=0.2)
    # |x|^2 falls from 4 by the factor 0.2^2 a step, and by 0.996^2 for the reference.
    ours, theirs = (np.trapezoid(4 * factor ** np.arange(0, 17, 2)) / 8 for factor in (0.2, 0.996))
    assert change.progress.mean == pytest.approx((4 - ours) / (4 - theirs) - 1, rel=1e-2)
    assert found.row("below", "good").scores == pytest.approx([(4 - ours) / (4 - theirs)] * 4, 1e-2)
    assert (found.row("below", "good").speedups > 8).all()
    assert "at the end of the sweep" in found.to_html()
    (axes,) = plots.curves(found).axes
    assert axes.get_yscale() == "linear"
    positive = metaopt.evaluate({"good": good}, baselines=["sgd"], **how | {"tasks": ["quadratic"]})
    assert plots.curves(positive).axes[0].get_yscale() == "log"


def test_where_nothing_is_finite_every_report_says_so(main, tmp_path):
    said = main(*short("lost", "--out", "runs/lost"))
    assert "no finite loss to compare with that of tuned adam" in said
    page = (tmp_path / "runs/lost/report.html").read_text()
    assert "<b>No finite loss</b>" in page and "nan" not in page.partition("<details>")[0]
    assert "The meta-loss was not finite in any of the 4 outer steps" in page
    assert "no finite loss" in listed(main, "runs/lost")
    main("export", "runs/lost", "--name", "lost")
    card = (tmp_path / "lost/CARD.md").read_text()
    assert "in the mean loss on `lost`: no loss is finite" in card


def test_a_run_that_blows_up_at_once_has_a_report(main, tmp_path):
    """Every outer step's meta-loss is lost, though the task is a good one."""
    main(*short("quadratic", "--optimizer.args", "learning_rate=1e25", "--out", "runs/r"))
    page = (tmp_path / "runs/r/report.html").read_text()
    assert "The meta-loss was not finite in any of the 4 outer steps" in page
    assert "4/4" in page  # runs diverged


def test_a_loss_of_0_from_the_start_leaves_nothing_to_divide_by(main, tmp_path):
    said = main(*short("solved", "--out", "runs/solved"))
    assert "no difference from the mean test loss of tuned adam (0) on any seed" in said
    assert "Tuned adam makes no progress from the initial loss (0)" in said
    stored = json.loads((tmp_path / "runs/solved/evaluation.json").read_text())
    assert stored["aggregates"][0]["score"]["value"] is None


def test_a_baseline_that_reaches_0_is_no_division(main):
    said = main(
        *short("quadratic", "--evaluation.num-steps", 1500, "--evaluation.seeds", 2, "--out", "r")
    )
    assert "mean test loss than tuned adam" in said


def test_every_task_of_a_mixture_is_evaluated_listed_and_named(main, tmp_path):
    mixture = ("--mixture", "below", "quadratic dim=9")
    said = main(*short("quadratic", *mixture, "--out", "runs/mix"))
    stored = json.loads((tmp_path / "runs/mix/evaluation.json").read_text())
    tasks = ["quadratic", "below", "quadratic:dim=9"]
    assert stored["tasks"] == tasks
    page = (tmp_path / "runs/mix/report.html").read_text()
    assert "Each task of the mixture" in page and "quadratic_2" in page  # a panel each
    about = listed(main, "runs/mix")
    main("export", "runs/mix", "--name", "mix")
    card = (tmp_path / "mix/CARD.md").read_text()
    for task in tasks:
        assert task in said and f"{task}: " in about and f"On `{task}`, test split" in card
    assert "The task `quadratic` (dim=9):" in card and "The task `below`:" in card
    described = json.loads((tmp_path / "mix/config.json").read_text())
    assert described["trained_on"]["tasks"] == ["quadratic", "below", "quadratic"]
    assert described["trained_range"]["largest_tensor"] == 9
    main("evaluate", "mix", "--baselines", "adam", "--seeds", 2, "--out", "out")
    assert json.loads((tmp_path / "out/evaluation.json").read_text())["tasks"] == tasks
