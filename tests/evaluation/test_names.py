"""Names are shown as they are in pictures, pages and tables, whatever characters they have."""

import html

import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from rich.console import Console

from metaopt import evaluate
from metaopt.evaluation import plots
from metaopt.learned_optimizers import sgd
from metaopt.plotting.style import literal, to_svg
from metaopt.tasks import quadratic
from metaopt.training import plots as of_runs
from metaopt.training.run_curves import RunCurves
from metaopt.training.sweep import Sweep

MINE, TASK = "_gain_$1 [red]<i>", "$x$ & <b>_[/a]"


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("names")
    theta = {"log_lr": jnp.float32(-1.0)}
    return folder, evaluate(
        {MINE: (sgd(), theta)},
        tasks={TASK: quadratic()},
        baselines=["sgd"],
        num_steps=4,
        seeds=2,
        rates=(0.1, 1.0),
        out=folder,
    )


def test_pictures_and_page(found):
    folder, evaluation = found
    mine, task = html.escape(MINE, quote=False), html.escape(TASK, quote=False)
    for draw in (plots.curves, plots.profile, plots.horizons, plots.rates, plots.speedups):
        drawn = to_svg(draw(evaluation))
        assert f"{mine}" in drawn, draw  # in the legend, though it begins with "_"
    assert f">{task}<" in to_svg(plots.curves(evaluation))
    page = (folder / "report.html").read_text()
    assert "<i>" not in page.replace("<i>and", "") and "<b>_" not in page
    assert html.escape(TASK) in page and html.escape(MINE) in page


def test_tables_on_a_terminal(found):
    console = Console(width=200, record=True)
    for part in (found[1].table(), found[1].summary()):
        console.print(part)
    said = console.export_text()
    assert MINE in said and TASK in said


def test_a_comparison_of_runs():
    axis = {name: np.arange(1.0, 4.0) for name in of_runs.AXES} | {"seconds": np.arange(1.0, 4.0)}
    curve = RunCurves(MINE, None, np.ones((1, 3)), axis)
    assert html.escape(MINE, quote=False) in to_svg(of_runs.run_curves([curve]))
    console = Console(width=200, record=True)
    console.print(Sweep([curve]).table())
    assert MINE in console.export_text()


def test_what_matplotlib_reads_as_formulas_is_drawn_as_it_is():
    for name in ("a$b$c", r"\$a$", "$", "_x", "two\nlines"):
        with matplotlib.rc_context({"svg.fonttype": "none"}):
            figure = matplotlib.figure.Figure()
            figure.text(0, 0, literal(name))
            assert f">{name.replace(chr(10), ' ')}<" in to_svg(figure).replace("> ", ">")
