"""Comparisons of recipes, configurations, estimators, runs that exist and problems of one's own."""

import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console
from runs import TINY, metrics

import metaopt
from metaopt import Component, Metric, UserError
from metaopt.core.interval import interval
from metaopt.estimators import NRES, PES
from metaopt.tasks import linear_recursion

pytestmark = pytest.mark.slow

SIZES = {"particles": 4, "horizon": 8, "window": 2, "sigma": 0.1}
RETURN = Metric("return", higher_is_better=True)
PROBLEM = linear_recursion(dim=3)._replace(
    test_loss=lambda theta, data, key: 5.0 - ((theta - 1) ** 2).sum(), test_metric=RETURN
)


def text(sweep):
    console = Console(width=120, file=io.StringIO())
    console.print(sweep.table())
    return console.file.getvalue()


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Two estimators on a problem of one's own, two seeds, and where their runs are."""
    out = tmp_path_factory.mktemp("compared")
    lines = {
        "nres": dataclasses.replace(TINY, estimator=NRES(**SIZES)),
        "pes": dataclasses.replace(TINY, estimator=PES(**SIZES)),
    }
    options = {"problem": PROBLEM, "name": "mine", "seeds": 2, "outer_steps": 4, "quiet": True}
    return metaopt.compare(lines, out=out, **options), out


def test_a_problem_of_ones_own_is_compared_by_its_return(compared):
    sweep, out = compared
    assert [one.name for one in sweep.curves] == ["nres", "pes"]
    for one in sweep.curves:
        thetas = [metaopt.load_theta(out / one.name / f"seed{n}") for n in range(2)]
        assert one.metric == RETURN and one.values.shape == (2, 4)
        np.testing.assert_allclose(one.last, [5 - ((t - 1) ** 2).sum() for t in thetas], rtol=1e-5)
        assert one.best == one.values.mean(axis=0).max()
    assert sweep.plot().axes[0].get_ylabel() == "test return, higher is better"
    assert repr(sweep) == "<Sweep of nres, pes: test return, higher is better, 2 seeds>"


def test_its_table_has_the_spread_over_seeds(compared):
    said = text(compared[0])
    first = compared[0].curves[0]
    assert "test return, higher is better; mean over seeds ± 95%" in said
    assert str(interval(first.last)) in said and "highest" in said
    assert f"{first.last.min():.3g}..{first.last.max():.3g}" in said


def test_the_runs_of_a_comparison_are_compared_again(compared, tmp_path):
    """As a folder of seeds, as several runs of one name, and as they are alone."""
    sweep, out = compared
    _, pes = sweep.curves
    again = metaopt.compare([out / "nres", out / "pes"], out=tmp_path / "a", quiet=True)
    for one, other in zip(sweep.curves, again.curves, strict=True):
        np.testing.assert_array_equal(one.values, other.values)
    runs = [metaopt.Run(out / "pes" / f"seed{n}") for n in range(2)]
    together = metaopt.compare({"both": runs, "one": runs[1]}, out=tmp_path / "b", quiet=True)
    np.testing.assert_array_equal(together.curves[0].values, pes.values)
    np.testing.assert_array_equal(together.curves[1].values, pes.values[1:])
    assert "–" in text(together)
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == [
        "compare.json", "compare.png"
    ]  # fmt: skip
    (stored, _) = json.loads((tmp_path / "b" / "compare.json").read_text())
    assert stored["metric"]["name"] == "return" and np.shape(stored["values"]) == (2, 4)


def test_a_run_and_a_recipe_are_compared_by_what_both_have(compared, tmp_path):
    out = compared[1]
    lines = ["tiny", str(out / "nres" / "seed0")]
    found = metaopt.compare(lines, outer_steps=3, out=tmp_path, quiet=True)
    assert [one.metric for one in found.curves] == [None, None]
    assert [one.values.shape for one in found.curves] == [(1, 3), (1, 4)]


def test_a_problem_of_the_catalogue_takes_the_place_of_the_recipes(tmp_path):
    component = Component("lorenz", ("test_starts=3",))
    line = {"it": dataclasses.replace(TINY, estimator=NRES(**SIZES))}
    found = metaopt.compare(line, problem=component, outer_steps=2, out=tmp_path, quiet=True)
    assert found.curves[0].metric == Metric()
    assert metaopt.Run(tmp_path / "it" / "seed0").config.problem == component
    alone = dataclasses.replace(line["it"], problem=component, outer_steps=2)
    run = metaopt.train(alone, out=tmp_path / "alone", quiet=True)
    last = metrics(tmp_path / "it" / "seed0")[-1]
    assert metrics(run.path)[-1] == last and "test_loss" in last


@pytest.mark.parametrize(
    "what, options, said",
    [
        ([], {}, "at least one recipe or run and one seed"),
        (["tiny"], {"seeds": 0}, "at least one recipe or run and one seed, got 1 and 0"),
        (["tny"], {}, "unknown recipe 'tny': did you mean 'tiny'?"),
        (["."], {}, "holds no run: there is no config.json, and no seed0/config.json"),
        ([TINY], {}, "give configurations names"),
        (["tiny", "tiny"], {}, "tiny is named twice"),
        ({"a/b": TINY}, {}, "a line's name has no '/'"),
        ({"a": 3}, {}, "compare takes recipes, configurations, options of an estimator and runs"),
        ({"a": [TINY]}, {}, "several things under one name have to be runs"),
        (["tiny"], {"problem": PROBLEM}, "give what is yours a name"),
        (["tiny"], {"problem": "lorentz"}, "unknown problem 'lorentz'"),
        ({"a": TINY, "b": dataclasses.replace(TINY, log_every=0)}, {}, "log_every must be"),
    ],
)  # fmt: skip
def test_faults_are_found_before_anything_runs(what, options, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        metaopt.compare(what, quiet=True, **options)
    assert said in str(error.value) and list(tmp_path.iterdir()) == []
