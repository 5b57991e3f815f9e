"""A distribution of somebody else's: one of each kind, found everywhere it should be."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CACHE, ROOT

import metaopt

pytestmark = pytest.mark.slow

MODULE = '''
import dataclasses
from typing import ClassVar
import jax.numpy as jnp
import optax
from metaopt import LearnedOptimizer, Component, OuterConfig, estimators, recipe, tasks


def their_task(*, dim: int = 2):
    """A task of theirs."""
    return tasks.quadratic(dim=dim)


def their_vector_task():
    """One whose loss is a vector."""
    return tasks.quadratic()._replace(loss=lambda config, params, batch, key: params)


def their_problem():
    """A problem of theirs."""
    return tasks.linear_recursion(dim=2)


def their_optimizer(*, rate: float = 0.1):
    """An optimizer of theirs."""
    return LearnedOptimizer(
        init=lambda key: {"log_rate": jnp.log(jnp.float32(rate))},
        optimizer=lambda theta, num_steps=None: optax.with_extra_args_support(
            optax.sgd(jnp.exp(theta["log_rate"]))
        ),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Theirs(estimators.Options):
    """What their estimator takes."""

    name: ClassVar[str] = "their_estimator"
    antithetic: ClassVar[bool] = True
    scale: float = 0.1
    """Theirs alone."""


@estimators.takes(Theirs)
def their_estimator(problem, *, particles, horizon, scale, particles_per_chunk=None, mesh=None):
    """An estimator of theirs."""
    return estimators.full_es(
        problem, particles=particles, horizon=horizon, sigma=scale, mesh=mesh
    )


NUMBER = 3
TASKS = {"their_task": their_task, "their_vector_task": their_vector_task}
BASELINES = {"their_baseline": lambda rate: optax.sgd(rate)}
RECIPES = {
    "their_recipe": dataclasses.replace(
        recipe("tiny"), task=Component("their_task"), optimizer=Component("their_optimizer"),
        outer_steps=5,
    )
}
'''

ENTRY_POINTS = """
[metaopt.tasks]
theirs = theirs:TASKS
[metaopt.problems]
their_problem = theirs:their_problem
[metaopt.learned_optimizers]
their_optimizer = theirs:their_optimizer
[metaopt.estimators]
their_estimator = theirs:their_estimator
[metaopt.baselines]
theirs = theirs:BASELINES
[metaopt.recipes]
theirs = theirs:RECIPES
[metaopt.checkpoints]
theirs = their_checkpoints
"""


def distribution(folder: Path, name: str, entry_points: str) -> None:
    """What pip leaves of an installed distribution."""
    info = folder / f"{name}-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(entry_points)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs the command line where their distribution, and a broken one, are installed."""
    site, work = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("work")
    (site / "theirs.py").write_text(MODULE)
    shipped = ROOT / "checkpoints" / "mlp-digits"
    shutil.copytree(shipped, site / "their_checkpoints" / "their-shipped")
    (site / "their_checkpoints" / "__init__.py").write_text("")
    distribution(site, "theirs", ENTRY_POINTS)
    broken = "[metaopt.tasks]\nbroken = not_installed_here:TASKS\n"
    broken += "quadratic = theirs:their_task\n[metaopt.baselines]\nnumber = theirs:NUMBER\n"
    distribution(site, "broken-distribution", broken + "[metaopt.checkpoints]\nbroken = nowhere\n")
    environment = {"PYTHONPATH": str(site), "JAX_COMPILATION_CACHE_DIR": CACHE, "COLUMNS": "200"}

    def command(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "metaopt", *arguments],
            env=os.environ | environment, cwd=work, capture_output=True, text=True, check=False,
        )  # fmt: skip

    command.work = work
    return command


def test_list_shows_them_and_warns_of_what_is_broken(run):
    done = run("list")
    assert done.returncode == 0, done.stderr
    for name in ("task", "problem", "optimizer", "estimator", "baseline", "recipe"):
        assert f"their_{name}" in done.stdout
    assert "their-shipped" in done.stdout and "A task of theirs." in done.stdout
    said = run("list", "their_task", "their_baseline", "their_recipe").stdout
    assert "dim=2" in said and "their_baseline, a baseline" in said and "a recipe" in said
    warned = "".join(sorted(done.stderr.splitlines(keepends=True)))
    for said in (
        "broken-distribution is installed, but its metaopt.tasks (not_installed_here:TASKS) do not",
        "broken-distribution is installed, but its metaopt.checkpoints (nowhere) do not load",
        "'quadratic' of broken-distribution (metaopt.tasks) is left out: metaopt has one of that",
        "'number' of broken-distribution (metaopt.baselines) is left out: it is no function.",
    ):
        assert f"metaopt: warning: {said}" in warned
    assert warned.count("\n") == 4
    assert "ModuleNotFoundError: No module named 'not_installed_here'" in done.stderr


def test_all_of_them_train_and_are_evaluated(run):
    done = run("train", "their_recipe", "--estimator", "their_estimator", "--estimator.scale", ".2")
    assert done.returncode == 0, done.stderr
    assert "their_optimizer on their_task by their_estimator" in done.stdout
    done = run(
        "evaluate", "runs/their_recipe", "--baselines", "their_baseline",
        "--num-steps", "4", "--seeds", "2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "their_baseline" in done.stdout and "their_task" in done.stdout


def test_a_fault_of_their_task_is_named(run):
    done = run("train", "tiny", "--task", "their_vector_task", "--out", "runs/v")
    assert done.returncode == 2
    assert "task 'their_vector_task': loss must be a float scalar, got float32[" in done.stderr


def test_who_loads_it_without_their_distribution_is_told(run):
    assert run("train", "their_recipe", "--out", "runs/alone").returncode == 0
    assert run("export", "runs/alone", "--name", "exported").returncode == 0
    assert "theirs 0.1 has to be installed" in (run.work / "exported/CARD.md").read_text()
    with pytest.raises(metaopt.UserError, match=r"made with theirs 0\.1, which is not installed"):
        metaopt.load(run.work / "exported")


def test_their_problem_and_estimator_are_diagnosed(run):
    done = run(
        "train", "tiny", "--problem", "their_problem", "--out", "runs/p", "--outer-steps", "2"
    )
    assert done.returncode == 0, done.stderr
    done = run("diagnose", "runs/p", "--estimators", "their_estimator", "--budget", "100")
    assert done.returncode == 0, done.stderr
    assert "their_estimator" in done.stdout


def test_their_recipe_problem_and_runs_are_compared(run):
    done = run(
        "compare", "their_recipe", "--problem", "their_problem", "--estimators", "nres",
        "their_estimator", "--outer-steps", "2", "--out", "runs/c",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = run("compare", "their_recipe", "runs/c/their_recipe_nres", "--outer-steps", "2")
    assert done.returncode == 0, done.stderr
    assert "their_recipe_nres " in done.stdout


def test_what_they_ship_is_loaded(run):
    done = run("evaluate", "their-shipped", "--tasks", "their_task", "--num-steps", "4",
               "--seeds", "2", "--baselines", "sgd")  # fmt: skip
    assert done.returncode == 0, done.stderr
