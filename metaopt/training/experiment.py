"""From a configuration to the pure pieces that run it."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from metaopt.config.components import call, make
from metaopt.config.registry import choose
from metaopt.config.schema import Config, EstimatorConfig, OuterConfig, trained_tasks
from metaopt.core import inner
from metaopt.core.errors import UserError
from metaopt.core.theta import theta_paths, unflatten_theta
from metaopt.core.types import (
    GradientEstimator,
    Key,
    LearnedOptimizer,
    Task,
    Theta,
    UnrolledProblem,
)
from metaopt.estimators import ESTIMATORS
from metaopt.estimators.horizons import Horizon, growing, log_uniform
from metaopt.estimators.mixture import mixture
from metaopt.pretrained.artefact import read_artefact
from metaopt.pretrained.shipped import find

OUTER_OPTIMIZERS = {
    "adam": optax.adam,
    "adamw": optax.adamw,
    "rmsprop": optax.rmsprop,
    "sgd": optax.sgd,
}


class Experiment(NamedTuple):
    """The pieces of a run.

    Attributes:
      problem: what is unrolled; the first of a mixture, with the data of all.
      estimator: the meta-gradient's estimator.
      tx: the outer optimizer.
      training: the task and the learned optimizer, where the problem is inner training.
    """

    problem: UnrolledProblem
    estimator: GradientEstimator
    tx: optax.GradientTransformation
    training: tuple[Task, LearnedOptimizer] | None


def build(config: Config, mesh: Mesh | None = None) -> Experiment:
    """Makes the pieces, and finds every fault of the configuration before anything runs.

    Args:
      config: the run.
      mesh: devices for the particles; see `metaopt.parallel.sharding`.

    Raises:
      UserError: naming the value at fault and the valid ones.

    Example:
      >>> build(Config()).training is not None
      True
    """
    for name in ("outer_steps", "checkpoint_every", "keep_checkpoints", "log_every"):
        _at_least(1, name, getattr(config, name))
    if config.evaluation.seeds < 2 and config.evaluation.seeds != 0:
        raise UserError(
            "evaluation.seeds must be at least 2, or 0 for no evaluation, got "
            f"{config.evaluation.seeds}."
        )
    if config.evaluation.num_steps is not None:
        _at_least(1, "evaluation.num_steps", config.evaluation.num_steps)
    if config.problem.name == "training":
        task = make("task", config.task)
        optimizer = make("learned optimizer", config.optimizer)
        problem, training = inner.training(task, optimizer), (task, optimizer)
    else:
        problem, training = make("problem", config.problem), None
    if config.test_every is not None:
        _at_least(1, "test_every", config.test_every)
        if problem.test_loss is None:
            raise UserError("test_every is set, but the problem has no test loss: leave it out.")
    estimator = _estimator(config, problem, mesh)
    if config.mixture or config.normalise_mixture:
        problem, estimator = _mixture(config, problem, estimator, mesh)
    if config.start_from is not None:
        problem = problem._replace(init_theta=_starting_from(config.start_from, problem))
    tx = _outer(config.outer)
    if config.outer.frozen:
        tx = _frozen(tx, config.outer.frozen, problem)
    return Experiment(problem, estimator, tx, training)


def _estimator(config: Config, problem: UnrolledProblem, mesh: Mesh | None) -> GradientEstimator:
    chosen = config.estimator
    factory: Callable[..., Any] = choose("estimator", chosen.name, ESTIMATORS)
    taken = inspect.signature(factory).parameters
    default = vars(EstimatorConfig())
    # What an estimator does not know is an error, unless nobody asked for it.
    arguments = {
        name: value
        for name, value in vars(chosen).items()
        if (name in taken or value != default[name]) and value is not None
    }
    for name in ("name", "shortest_horizon", "growth_steps", "final_sigma", "sigma_steps"):
        arguments.pop(name, None)
    arguments |= {"horizon": _horizon(chosen), "mesh": mesh}
    if chosen.final_sigma is not None:
        arguments["sigma"] = _sigma(chosen, chosen.final_sigma)
    return call(factory, f"estimator {chosen.name!r}", arguments, problem)


def _mixture(
    config: Config, first: UnrolledProblem, estimator: GradientEstimator, mesh: Mesh | None
) -> tuple[UnrolledProblem, GradientEstimator]:
    if config.problem.name != "training" or not config.mixture:
        raise UserError(
            "a mixture needs problem=training and at least one task in --mixture, got "
            f"problem={config.problem.name}, mixture={list(config.mixture)}."
        )
    optimizer = make("learned optimizer", config.optimizer)
    problems, parts = [first], {config.task.name: estimator}
    for component in trained_tasks(config)[1:]:
        task, name = make("task", component), component.name
        name = f"{name}_{len(parts) + 1}" if name in parts else name
        problems.append(inner.training(task, optimizer))
        parts[name] = _estimator(config, problems[-1], mesh)
    if any(problem.stream for problem in problems):
        raise UserError("the tasks of a mixture cannot be streamed: leave out stream_rows.")
    data = lambda: tuple(problem.data() for problem in problems)
    return first._replace(data=data), mixture(parts, normalise=config.normalise_mixture)


def _starting_from(what: str, problem: UnrolledProblem) -> Callable[[Key], Theta]:
    directory = find(what)
    fresh = jax.eval_shape(problem.init_theta, jax.random.key(0))
    try:
        theta = unflatten_theta(read_artefact(directory).flat, fresh)
    except UserError as error:
        raise UserError(f"start_from: {directory}: {error}") from error
    return lambda key: theta


def _horizon(config: EstimatorConfig) -> int | Horizon:
    if config.shortest_horizon is None:
        return config.horizon
    try:
        if config.growth_steps is None:
            return log_uniform(config.shortest_horizon, config.horizon)
        return growing(config.shortest_horizon, config.horizon, updates=config.growth_steps)
    except ValueError as error:
        raise UserError(f"estimator.shortest_horizon: {error}") from error


def _sigma(config: EstimatorConfig, final: float) -> optax.Schedule:
    steps = config.sigma_steps or 0
    _at_least(1, "estimator.sigma_steps", steps)
    for name, value in (("sigma", config.sigma), ("final_sigma", final)):
        if not value > 0:
            raise UserError(f"estimator.{name} must be above 0, got {value}.")
    fraction = lambda step: jnp.minimum(step / steps, 1.0)
    return lambda step: config.sigma * (final / config.sigma) ** fraction(step)


def _outer(config: OuterConfig) -> optax.GradientTransformation:
    optimizer = choose("outer optimizer", config.optimizer, OUTER_OPTIMIZERS)
    _at_least(0, "outer.warmup_steps", config.warmup_steps)
    if not config.learning_rate > 0:
        raise UserError(f"outer.learning_rate must be above 0, got {config.learning_rate}.")
    if config.clip_norm is not None and not config.clip_norm > 0:
        raise UserError(f"outer.clip_norm must be above 0 or None, got {config.clip_norm}.")
    peak, warmup = config.learning_rate, config.warmup_steps
    if config.decay_steps is None:
        after = optax.constant_schedule(peak)
    elif config.decay_steps > warmup:
        after = optax.cosine_decay_schedule(peak, config.decay_steps - warmup, alpha=0.01)
    else:
        raise UserError(
            f"outer.decay_steps must be above warmup_steps={warmup}, got {config.decay_steps}."
        )
    schedule = optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), after], [warmup])
    clip = (
        optax.identity()
        if config.clip_norm is None
        else optax.clip_by_global_norm(config.clip_norm)
    )
    if config.drop_step is None:
        return optax.chain(clip, optimizer(schedule))
    drop_step = config.drop_step
    _at_least(1, "outer.drop_step", drop_step)
    dropped = lambda step: schedule(step) * jnp.where(step < drop_step, 1.0, 0.1)
    return optax.chain(clip, optimizer(dropped))


def _frozen(
    tx: optax.GradientTransformation, frozen: tuple[str, ...], problem: UnrolledProblem
) -> optax.GradientTransformation:
    """The outer optimizer on what is not frozen; the rest neither moves nor counts in clipping."""
    theta = jax.eval_shape(problem.init_theta, jax.random.key(0))
    # "a/b/c" has the prefixes "a", "a/b" and "a/b/c".
    paths = {path: path.split("/") for path in theta_paths(theta)}
    prefixes = {"/".join(p[:n]): None for p in paths.values() for n in range(1, len(p) + 1)}
    for prefix in frozen:
        choose("part of theta in outer.frozen", prefix, prefixes)
    still = [any(f"{path}/".startswith(f"{prefix}/") for prefix in frozen) for path in paths]
    if all(still):
        raise UserError(f"outer.frozen must leave a part of theta to train, got {frozen!r}.")
    labels = ["frozen" if is_still else "learned" for is_still in still]
    return optax.multi_transform(
        {"learned": tx, "frozen": optax.set_to_zero()},
        jax.tree.unflatten(jax.tree.structure(theta), labels),
    )


def _at_least(least: int, name: str, value: int) -> None:
    if value < least:
        raise UserError(f"{name} must be at least {least}, got {value}.")
