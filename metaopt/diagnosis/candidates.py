"""What is diagnosed, from a recipe or a run: its problem, a theta and the estimators to measure."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from metaopt.config import registry
from metaopt.config.registry import catalogue, choose
from metaopt.config.schema import Config, options_of
from metaopt.core.errors import UserError
from metaopt.core.types import GradientEstimator, Theta, UnrolledProblem
from metaopt.diagnosis.diagnose import Candidate
from metaopt.estimators.options import Options, changed_to
from metaopt.estimators.stagger import Stagger
from metaopt.training.experiment import build
from metaopt.training.run import load_theta
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


def subject_of(target: str) -> Subject:
    """A run at the theta that it saved, or a recipe at the theta where it starts.

    Args:
      target: a run's directory, which holds a ``config.json``, or a recipe's name.

    Raises:
      UserError: where it is neither, or the run has no theta that can be read.

    Examples:
      >>> subject_of("tiny").description
      'recipe tiny at its start'
    """
    directory = RunDirectory(Path(target))
    if directory.config.is_file() or (
        directory.path.is_dir() and target not in catalogue("recipe")
    ):
        config = _first_task(directory.read_config())
        problem = build(config).problem
        theta = load_theta(directory.path)
        name = f"{directory.path.resolve().name}-trained"
        return Subject(name, f"run {target} at its saved theta", config, problem, theta)
    config = choose("recipe or run", target, catalogue("recipe"))
    problem = build(config).problem
    theta_key, _ = jax.random.split(jax.random.key(config.seed))  # as `metaopt.train` does it
    theta = problem.init_theta(theta_key)
    return Subject(target, f"recipe {target} at its start", config, problem, theta)


def _first_task(config: Config) -> Config:
    """A mixture's first task and one theta alone; what the run started from may be gone."""
    alone: dict[str, Any] = {"mixture": (), "mixture_weights": (), "normalise_mixture": False}
    one = dataclasses.replace(config.outer, population=1, search=None)
    return dataclasses.replace(config, **alone, outer=one, start_from=None)


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
      names: of estimators, as `metaopt list` shows them.
      reuses: values of K for those that take one; by default multiples of W between W and T that
        divide T.

    Raises:
      UserError: for an unknown name, or a value that an estimator refuses.

    Examples:
      >>> subject = subject_of("tiny")
      >>> made = candidates(subject.config, subject.problem, ["pes", "gpes", "full_es"])
      >>> [candidate.label for candidate in made]
      ['pes K=2', 'gpes K=4', 'full_es']
    """
    run = config.estimator
    made = []
    for name in dict.fromkeys(names):
        kind = options_of(name)
        if kind.of_another is not None:
            other = kind.of_another
            raise UserError(f"{name} has the particles of {other}, all in step: diagnose {other}.")
        options = _with(changed_to(kind, run), **_common(run))
        every = reuses or _reuses(options.horizon, options.depth)
        reusing = hasattr(options, "reuse")
        for one in [_with(options, reuse=k) for k in every] if reusing else [options]:
            make = _maker(one, problem)
            try:
                make(1, "balanced")
            except (TypeError, ValueError) as error:
                raise UserError(f"estimator {name!r}: {error}") from error
            windows = one.horizon // one.depth
            made.append(Candidate(name, one.noise_period, one.horizon, windows, make))
    if reuses and not any(hasattr(options_of(name), "reuse") for name in names):
        raise UserError("--reuse is for estimators that take it, as gpes does: name one of them.")
    return made


def _common(run: Options) -> dict[str, Any]:
    """What is measured of whatever estimator."""
    # Shaped estimates have a unit of their own: no reference would be theirs.
    common: dict[str, Any] = {"shortest_horizon": None, "growth_steps": None, "shaping": "raw"}
    # A population is burnt in to first lengths: no visit goes on.
    common |= {"continue_from": None}
    # Where episodes end early: a population is burnt in with what has ended left in place, where it
    # says 0, so that its one estimate is over the whole horizon as it is.
    common |= {"scale_to_horizon": False}
    return common | {"first_episode": "burn_in", "window": window_of(run)}


def noise_candidates(
    config: Config, problem: UnrolledProblem, name: str, kinds: Sequence[str]
) -> tuple[Candidate, list[GradientEstimator]]:
    """An evolution strategy, and it under each kind of noise, with the configured particles.

    Args:
      config: a run's. Its loss shaping is not used, and of a distribution of horizons the longest.
      problem: what it unrolls.
      name: of the estimator.
      kinds: of noise.

    Raises:
      UserError: for an unknown name or kind, or an estimator that has no noise.
    """
    (first, *_) = candidates(config, problem, [name])
    options = _with(changed_to(options_of(name), config.estimator), **_common(config.estimator))
    if not hasattr(options, "noise"):
        raise UserError(f"--noise is for evolution strategies, such as nres, got {name!r}.")
    if getattr(options, "reuse", ...) is None:
        options = _with(options, reuse=first.reuse)
    factory, made = registry.find("estimator", name), []
    for kind in kinds:
        try:
            made.append(factory(problem, **_with(options, noise=kind).arguments()))
        except (TypeError, ValueError) as error:
            raise UserError(f"estimator {name!r}: {error}") from error
    return first, made


def _with(options: Options, **values: Any) -> Options:
    """The options with those of the values that they have a field for."""
    has = {f.name for f in dataclasses.fields(options)}
    return dataclasses.replace(options, **{n: value for n, value in values.items() if n in has})


def window_of(options: Options) -> int:
    """The run's window; of an estimator without one, a divisor of its horizon of 20 at most."""
    if options.depth < options.horizon:
        return options.depth
    return max(w for w in range(1, 21) if options.horizon % w == 0)


def _maker(options: Options, problem: UnrolledProblem):
    factory: Callable[..., GradientEstimator] = registry.find("estimator", options.name)

    def make(particles: int, stagger: Stagger) -> GradientEstimator:
        chosen = _with(options, particles=particles, stagger=stagger)
        return factory(problem, **chosen.arguments())

    return make


def _reuses(horizon: int, window: int) -> list[int]:
    """Multiples of W strictly between W and T that divide T, thinned out; T if there are none."""
    between = [k for k in range(2 * window, horizon, window) if horizon % k == 0] or [horizon]
    chosen = np.linspace(0, len(between) - 1, min(REUSES, len(between))).round().astype(int)
    return [between[i] for i in chosen]
