"""`metaopt diagnose` against variances and gradients known on paper, and as a person meets it."""

import dataclasses
import json
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaopt import estimators
from metaopt.commands import main as command_line
from metaopt.config import registry, schema
from metaopt.config.recipes import RECIPES
from metaopt.config.schema import Component, Config, to_json
from metaopt.diagnosis.candidates import candidates
from metaopt.diagnosis.diagnose import Candidate, affordable_budget, diagnose, population
from metaopt.diagnosis.moments import sample, squared_distance
from metaopt.estimators import NRES
from metaopt.parallel.sharding import particle_mesh
from metaopt.tasks import linear_recursion

pytestmark = pytest.mark.slow

HORIZON, WINDOW, DIM, SIGMA = 8, 2, 3, 0.3
BUDGET = 400_000
THETA = jnp.array([0.3, -0.2, 0.5])
CONFIG = Config(
    problem=Component("linear_recursion", (f"dim={DIM}",)),
    estimator=NRES(horizon=HORIZON, window=WINDOW, sigma=SIGMA),
)
PROBLEM = linear_recursion(dim=DIM)


def jacobian():
    """d L_t / d theta_s for every loss t and every step s whose theta is varied, [T, T, d]."""

    def losses(thetas):
        state = PROBLEM.init(THETA, (), HORIZON, jax.random.key(0))
        return jax.lax.scan(lambda s, theta: PROBLEM.step(theta, s, ()), state, thetas)[1]

    return np.asarray(jax.jacobian(losses)(jnp.tile(THETA, (HORIZON, 1))), np.float64)


def predicted(reuse):
    """1/M sum_j [2|h^j|^2 + d n_j sum_c |h_c^j|^2] - |1/M sum_j h^j|^2."""
    all_steps = jacobian()
    starts = range(0, HORIZON, WINDOW)
    variance = -np.square(all_steps.sum(axis=1).mean(axis=0)).sum()
    for start in starts:
        in_window = all_steps[start : start + WINDOW].mean(axis=0)
        blocks = [in_window[c : c + reuse].sum(axis=0) for c in range(0, start + 1, reuse)]
        bracket = 2 * np.square(sum(blocks)).sum()
        bracket += DIM * len(blocks) * sum(np.square(h).sum() for h in blocks)
        variance += bracket / len(starts)
    return variance


@pytest.fixture(scope="module")
def diagnosis():
    names = ["full_es", "pes", "gpes", "nres", "truncated_es"]
    full, *others = candidates(CONFIG, PROBLEM, names, [4, 6])
    key = jax.random.key(0)
    rows, reference = diagnose(THETA, (), [full, *others], full, budget=BUDGET, key=key)
    return {(row.estimator, row.reuse): row for row in rows}, reference


@pytest.mark.parametrize("name, reuse", [("pes", 2), ("gpes", 4), ("gpes", 6), ("nres", 8)])
def test_variances_are_those_of_the_formula(diagnosis, name, reuse):
    row = diagnosis[0][name, reuse]
    assert row.variance == pytest.approx(predicted(reuse), rel=0.05)
    assert abs(row.variance - predicted(reuse)) < 4 * row.variance_error
    assert (row.cost, row.window) == (2 * WINDOW, WINDOW)
    assert (row.work, row.depth) == (row.variance * 4, row.variance * 2)


def test_full_es_has_d_plus_1_times_the_squared_gradient(diagnosis):
    rows, reference = diagnosis
    row, truth = rows["full_es", None], jacobian().sum(axis=1).mean(axis=0)
    assert row.variance == pytest.approx((DIM + 1) * truth @ truth, rel=0.05)
    assert (row.cost, row.window) == (2 * HORIZON, HORIZON)
    chance = np.sqrt(reference.variance / reference.particles)
    assert np.linalg.norm(reference.mean - truth) < 4 * chance


def test_only_the_truncated_one_is_biased(diagnosis):
    for (name, _), row in diagnosis[0].items():
        if name == "truncated_es":
            assert row.biased and row.bias > 5 * row.resolution
            assert row.cost == 3 * WINDOW
        else:
            assert not row.biased


def test_a_bias_is_found_in_many_dimensions_where_the_means_are_farther_apart_by_chance():
    draws = np.random.default_rng(0).normal(size=(300, 40, 200))
    shifted = np.concatenate([draws[:, :10] + 0.05, draws[:, 10:]], axis=1)
    for samples, truth in ((draws, 0.0), (shifted, 200 * 0.05**2)):
        found = np.array([squared_distance(one[:10], one[10:]) for one in samples])
        squares, errors = found.T
        assert abs(squares.mean() - truth) < 4 * squares.std() / np.sqrt(300)
        if not truth:
            assert np.sqrt(np.square(errors).mean()) == pytest.approx(squares.std(), rel=0.1)
    apart = np.square(draws[:, :10].mean(1) - draws[:, 10:].mean(1)).sum(1).mean()
    assert apart > 5 * errors.mean()


def test_without_a_budget_it_takes_what_the_time_allows(monkeypatch):
    (full,) = candidates(CONFIG, PROBLEM, ["full_es"])
    chosen = []
    for seconds in (1e-9, 0.5):
        monkeypatch.setattr("metaopt.diagnosis.diagnose.SECONDS", seconds)
        chosen.append(affordable_budget(full, THETA, (), key=jax.random.key(0)))
    assert chosen[0] == 20_000 < chosen[1]
    assert f"{chosen[1]}".rstrip("0") in ("1", "2", "5")


def test_the_budget_is_spent_and_counted(diagnosis):
    for row in diagnosis[0].values():
        assert BUDGET <= row.unroll_steps < 1.05 * BUDGET
        assert row.nonfinite == 0
        # Burning in takes a particle over (M - 1)/2 windows on average.
        windows = (HORIZON // row.window + 1) / 2
        assert row.unroll_steps == row.particles * row.cost * windows


def test_devices_make_populations_of_their_own():
    """The same ones, each on some device: four of 8 particles, at 80 unroll steps."""
    (nres,) = candidates(CONFIG, PROBLEM, ["nres"])
    estimator = nres.make(8, "balanced")
    alone, spread = (
        sample(estimator, THETA, (), budget=320, key=jax.random.key(0), mesh=mesh)
        for mesh in (None, particle_mesh(4))
    )
    assert (alone.particles, alone.unroll_steps) == (spread.particles, spread.unroll_steps)
    assert (alone.particles, alone.unroll_steps) == (32, 320)
    assert spread.variance == pytest.approx(alone.variance, rel=1e-5)
    np.testing.assert_allclose(spread.mean, alone.mean, rtol=1e-5)


def test_too_many_phases_are_drawn_at_random():
    def sizes(horizon, budget):
        config = Config(estimator=NRES(horizon=horizon, window=1))
        (nres,) = candidates(config, PROBLEM, ["nres"])
        return population(nres, THETA, (), budget)

    assert sizes(16, 1) == (16, "balanced")
    assert sizes(16, 10**9) == (1024, "balanced")
    assert sizes(2000, 10**9) == (1024, "random")


def test_nothing_finite_is_said_not_hidden():
    broken = PROBLEM._replace(step=lambda theta, s, data: (s, jnp.float32(jnp.nan) * theta[0]))
    (full,) = candidates(CONFIG, broken, ["full_es"])
    (row,), _ = diagnose(THETA, (), [full], full, budget=100, key=jax.random.key(0))
    assert row.particles == 0 and row.nonfinite > 0
    assert np.isnan([row.variance, row.variance_error, row.bias, row.resolution]).all()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plain(estimators.Options):
    """What an estimator takes that has no noise, phases or window."""

    name: ClassVar[str] = "plain"


def test_an_estimator_gets_what_its_options_say(monkeypatch):
    seen = []

    @estimators.takes(Plain)
    def plain(problem, *, particles, horizon, particles_per_chunk):
        seen.append((particles, horizon))

    monkeypatch.setattr(registry, "find", lambda kind, name: plain)
    monkeypatch.setattr(schema, "find", registry.find)
    (made,) = candidates(CONFIG, PROBLEM, ["plain"])
    assert isinstance(made, Candidate) and (made.reuse, made.windows) == (None, 1)
    made.make(5, "random")
    assert seen[-1] == (5, HORIZON)


@pytest.fixture
def here(monkeypatch, capsys, tmp_path):
    """Runs the command line in this process, an empty folder: ``here(...) -> code, out, err``."""
    monkeypatch.setattr("metaopt.training.placement.prepare_jax", lambda devices=None: None)
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.chdir(tmp_path)

    def run(*args):
        try:
            code = command_line.main([*map(str, args)])
        except SystemExit as exit:
            code = exit.code
        return code, *capsys.readouterr()

    return run


def test_a_recipe_and_then_a_finished_run(here, tmp_path):
    chosen = ["--estimators", "nres", "full_es", "--budget", 500]
    code, out, _ = here("diagnose", "tiny", *chosen)
    assert code == 0
    for said in ("tr Cov", "not resolved", "nres K=8", "recipe tiny", "diagnose.json"):
        assert said in out
    folder = tmp_path / "runs" / "diagnose-tiny"
    assert {path.name for path in folder.iterdir()} == {"diagnose.json", "variance.png"}
    assert (folder / "variance.png").read_bytes().startswith(b"\x89PNG")
    recipe = json.loads((folder / "diagnose.json").read_text())
    assert [row["estimator"] for row in recipe["rows"]] == ["nres", "full_es"]
    assert recipe["reference"]["estimator"] == "full_es"
    assert recipe["reference"]["unroll_steps"] >= 4 * 500

    short = ["--outer-steps", 2, "--evaluation.seeds", 0, "--quiet", "--out", "run"]
    assert here("train", "tiny", *short)[0] == 0
    chosen[1:2] = []
    assert here("diagnose", "run", *chosen, "--quiet", "--out", "there") == (0, "", "")
    run = json.loads((tmp_path / "there" / "diagnose.json").read_text())
    assert run["of"]["subject"] == "run run at its saved theta"
    assert run["of"]["parameters"] == recipe["of"]["parameters"] == 1
    # Theta has moved, and so has its gradient; everything else is the same.
    assert run["reference"]["norm"] != recipe["reference"]["norm"]


FAULTS = [
    (["tiyn"], "unknown recipe or run 'tiyn': did you mean 'tiny'?"),
    (["empty"], "empty holds no run: there is no config.json"),
    (["unfinished"], "unfinished holds no trained optimizer"),
    (["problem"], "problem holds no theta"),
    (["tiny", "--estimators", "nrse"], "unknown estimator 'nrse': did you mean 'nres'?"),
    (["tiny", "--estimators", "es_single"], "diagnose nres"),
    (["tiny", "--reuse", "3"], "reuse must be a multiple of window=2 up to horizon=8, got 3"),
    (["tiny", "--estimators", "nres", "--reuse", "4"], "name one of them"),
    (["tiny", "--budget", "0"], "budget must be at least 1 unroll step, got 0"),
    (["tiny", "--budget", "many"], "budget"),
    (["tiny", "--out", "file/there"], "file/there cannot be written"),
]


@pytest.mark.parametrize("args, said", FAULTS, ids=[" ".join(args) for args, _ in FAULTS])
def test_a_fault_is_one_sentence_and_code_2(here, args, said, tmp_path):
    (tmp_path / "file").write_text("")
    for name, config in [("empty", None), ("unfinished", RECIPES["tiny"]), ("problem", CONFIG)]:
        (tmp_path / name).mkdir()
        if config:
            (tmp_path / name / "config.json").write_text(to_json(config))
    code, _, errors = here("diagnose", *args)
    assert code == 2
    assert said in " ".join(errors.split())
    assert "Traceback" not in errors
    assert not (tmp_path / "runs").exists()


def test_a_run_of_an_estimator_without_a_window_is_diagnosed(here, tmp_path):
    code, _, errors = here("diagnose", "lorenz_bptt", "--estimators", "bptt", "--budget", 10)
    assert code == 0, errors
    stored = json.loads((tmp_path / "runs" / "diagnose-lorenz_bptt" / "diagnose.json").read_text())
    assert stored["of"]["window"] == 20 and stored["of"]["sigma"] is None
