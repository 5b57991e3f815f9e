"""`metaopt diagnose --noise` against variances known on paper, and as a person meets it."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaopt import UnrolledProblem
from metaopt.commands import main as command_line
from metaopt.diagnosis.noises import NoiseRow, compare_noises
from metaopt.estimators import nres

pytestmark = pytest.mark.slow


def test_variances_of_the_mean_estimate_are_those_on_paper():
    """Eight pairs in eight phases, a linear loss of eight numbers with |g| = 1.

    `test_noise_kinds` says where the numbers come from.
    """
    g = np.random.default_rng(0).normal(size=8).astype(np.float32)
    g /= np.linalg.norm(g)
    problem = UnrolledProblem(
        init=lambda theta, data, horizon, key: jnp.int32(0),
        step=lambda theta, state, data: (state + 1, jnp.vdot(g, theta)),
        init_theta=lambda key: jnp.zeros(8),
        data=lambda: (),
    )
    make = partial(nres, problem, particles=8, horizon=16, window=2, sigma=0.5)
    expected = {"gaussian": 72 / 64, "orthogonal": 37 / 64, "orthogonal_fixed": 21 / 64}
    made = [("nres", noise, make(noise=noise)) for noise in expected]
    rows = compare_noises(
        jnp.zeros(8), (), made, particles=8, episode=8, updates=800, key=jax.random.key(3)
    )
    for row in rows:
        assert abs(row.variance - expected[row.noise]) < 5 * row.variance_error
        assert row.variance_error < 0.1 * expected["gaussian"]
        assert abs(row.ratio - expected[row.noise] / (72 / 64)) < 5 * row.ratio_error + 1e-9
        assert row.norm == pytest.approx(1, abs=0.1)
        assert row.updates == 6400 and row.nonfinite == 0
    assert [row.verdict for row in rows] == ["same", "less", "less"]


def test_a_verdict_takes_two_standard_errors():
    row = lambda ratio, error: NoiseRow("nres", "rademacher", 4, 10, 0, 1, 0.1, ratio, error, 1)
    assert [row(0.9, 0.06).verdict, row(0.9, 0.04).verdict, row(1.1, 0.04).verdict] == [
        "same",
        "less",
        "more",
    ]


def test_the_command(capsys, tmp_path):
    out = tmp_path / "noises"
    arguments = ["diagnose", "tiny", "--budget", "2000", "--out", str(out)]
    assert command_line.main([*arguments, "--noise", "orthogonal", "rademacher"]) == 0
    said = capsys.readouterr().out
    assert "over gaussian" in said and f"Written: {out / 'noises.json'}" in said
    content = json.loads((out / "noises.json").read_text())
    assert [row["noise"] for row in content["noises"]] == ["gaussian", "orthogonal", "rademacher"]
    assert content["of"]["parameters"] == 1 and content["noises"][0]["estimator"] == "nres"


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (["--noise", "cauchy"], "noise must be 'gaussian'"),
        (["--noise", "orthogonal", "--estimators", "bptt"], "for evolution strategies"),
        (["--noise", "orthogonal", "--reuse", "4"], "leave one out"),
        (["--noise", "orthogonal", "--budget", "0"], "budget must be at least 1"),
    ],
)
def test_what_is_wrong_is_a_sentence(wrong, sentence, capsys, tmp_path):
    assert command_line.main(["diagnose", "tiny", "--out", str(tmp_path / "x"), *wrong]) == 2
    said = capsys.readouterr().err
    assert sentence in " ".join(said.split()) and "Traceback" not in said
