"""What is diagnosed, from a recipe or a run: its problem, a theta and the estimators to measure."""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from metaopt.config.recipes import RECIPES
from metaopt.config.registry import choose
from metaopt.config.schema import Config
from metaopt.core.errors import UserError
from metaopt.core.theta import unflatten_theta
from metaopt.core.types import GradientEstimator, Theta, UnrolledProblem
from metaopt.diagnosis.diagnose import Candidate
from metaopt.estimators import ESTIMATORS
from metaopt.estimators.horizons import as_horizon
from metaopt.estimators.stagger import Stagger
from metaopt.pretrained import load as pretrained
from metaopt.training.experiment import build
from metaopt.training.run_directory import RunDirectory

REUSES = 4
"""Values of K between W and T that are measured where none are asked for, at most."""


class Subject(NamedTuple):
    """What is diagnosed.

    Attributes:
      name: for a folder's name.
      description: for people.
      config: the run's or the recipe's.
      problem: what it unrolls.
      theta: where.
    """

    name: str
    description: str
    config: Config
    problem: UnrolledProblem
    theta: Theta


def find(target: str) -> Subject:
    """A run at the theta that it saved, or a recipe at the theta where it starts.

    Args:
      target: a run's directory, which holds a ``config.json``, or a recipe's name.

    Raises:
      UserError: where it is neither, or the run has no theta that can be read.

    Example:
      >>> find("tiny").description
      'recipe tiny at its start'
    """
    directory = RunDirectory(Path(target))
    if directory.config.is_file() or (directory.path.is_dir() and target not in RECIPES):
        config = _first_task(directory.read_config())
        problem = build(config).problem
        theta = _saved_theta(directory, config, problem)
        name = f"{directory.path.resolve().name}-trained"
        return Subject(name, f"run {target} at its saved theta", config, problem, theta)
    config = choose("recipe or run", target, RECIPES)
    problem = build(config).problem
    theta_key, _ = jax.random.split(jax.random.key(config.seed))  # as `metaopt.train` does it
    theta = problem.init_theta(theta_key)
    return Subject(target, f"recipe {target} at its start", config, problem, theta)


def _first_task(config: Config) -> Config:
    """A mixture's first task alone; what the run started from may be gone."""
    return dataclasses.replace(config, mixture=(), normalise_mixture=False, start_from=None)


def _saved_theta(directory: RunDirectory, config: Config, problem: UnrolledProblem) -> Theta:
    if config.problem.name == "training":
        return pretrained.read(directory.path)[1]
    file = directory.path / "theta.safetensors"
    try:
        flat = load(file.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{directory.path} holds no theta: `metaopt train` saves one.") from error
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    return unflatten_theta(flat, jax.eval_shape(problem.init_theta, jax.random.key(0)))


def candidates(
    config: Config,
    problem: UnrolledProblem,
    names: Sequence[str],
    reuses: Sequence[int] = (),
) -> list[Candidate]:
    """The estimators of these names, each with those of the configured values that it takes.

    Args:
      config: a run's. Its particles, stagger and loss shaping are not used, and of a distribution
        of horizons the longest is.
      problem: what it unrolls.
      names: in `metaopt.estimators.ESTIMATORS`.
      reuses: values of K for those that take one; by default multiples of W between W and T that
        divide T.

    Raises:
      UserError: for an unknown name, or a value that an estimator refuses.

    Example:
      >>> subject = find("tiny")
      >>> made = candidates(subject.config, subject.problem, ["pes", "gpes", "full_es"])
      >>> [candidate.label for candidate in made]
      ['pes K=2', 'gpes K=4', 'full_es']
    """
    horizon, window = as_horizon(config.estimator.horizon).longest, config.estimator.window
    values = vars(config.estimator) | {"horizon": horizon, "first_episode": "burn_in"}
    # Shaped estimates have a unit of their own: no reference would be theirs.
    values |= {"shaping": "raw", "stagger": "balanced"}
    made = []
    for name in dict.fromkeys(names):
        factory: Callable[..., GradientEstimator] = choose("estimator", name, ESTIMATORS)
        if name == "es_single":
            raise UserError("es_single has the particles of nres, all in step: diagnose nres.")
        takes = inspect.signature(factory).parameters
        given = {key: value for key, value in values.items() if key in takes}
        given.pop("particles", None)
        given.pop("reuse", None)
        windows = horizon // window if "window" in takes else 1
        fixed = {"pes": window, "nres": horizon}.get(name)
        for reuse in (reuses or _reuses(horizon, window)) if "reuse" in takes else [fixed]:
            chosen = given | ({"reuse": reuse} if "reuse" in takes else {})
            make = _maker(factory, problem, chosen)
            try:
                make(1, "balanced")
            except (TypeError, ValueError) as error:
                raise UserError(f"estimator {name!r}: {error}") from error
            made.append(Candidate(name, reuse, horizon, windows, make))
    if reuses and not any("reuse" in inspect.signature(ESTIMATORS[n]).parameters for n in names):
        raise UserError("--reuse is for estimators that take it, as gpes does: name one of them.")
    return made


def _maker(factory: Callable[..., GradientEstimator], problem: UnrolledProblem, given: dict):
    def make(particles: int, stagger: Stagger) -> GradientEstimator:
        arguments: dict[str, Any] = given | ({"stagger": stagger} if "stagger" in given else {})
        return factory(problem, particles=particles, **arguments)

    return make


def _reuses(horizon: int, window: int) -> list[int]:
    """Multiples of W strictly between W and T that divide T, thinned out; T if there are none."""
    between = [k for k in range(2 * window, horizon, window) if horizon % k == 0] or [horizon]
    chosen = np.linspace(0, len(between) - 1, min(REUSES, len(between))).round().astype(int)
    return [between[i] for i in chosen]
