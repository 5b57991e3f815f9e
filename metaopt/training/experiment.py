"""From a configuration to the pure pieces that run it."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import optax
from jax.sharding import Mesh

from metaopt.config.components import call, make
from metaopt.config.registry import find, provider
from metaopt.config.schema import (
    Config,
    SteinConfig,
    from_json,
    parse_args,
    short_names,
    to_json,
    trained_tasks,
)
from metaopt.core import inner
from metaopt.core.check import check_problem, check_task
from metaopt.core.errors import UserError
from metaopt.core.needs import needs
from metaopt.core.own_numbers import are_double
from metaopt.core.running import is_statistics
from metaopt.core.theta import unflatten_theta
from metaopt.core.types import (
    GradientEstimator,
    Key,
    LearnedOptimizer,
    Task,
    Theta,
    UnrolledProblem,
)
from metaopt.core.vector import UNCHANGED, Vector, on_tree, on_vector, vector_of
from metaopt.estimators.mixture import mixture
from metaopt.estimators.options import Options
from metaopt.estimators.stein import population_of, stein
from metaopt.integrations.searches import require_known
from metaopt.training.outer_optimizer import (
    at_least,
    frozen,
    of_each,
    outer_optimizer,
    starting_at,
)
from metaopt.training.save import flat_theta


class Experiment(NamedTuple):
    """The pieces of a run.

    Attributes:
      problem: what is unrolled; the first of a mixture, with the data of all.
      estimator: ``(mesh or None) -> GradientEstimator``, the meta-gradient's estimator with its
        particles over the devices of a mesh, see `metaopt.parallel.sharding`.
      tx: the outer optimizer.
      training: the task and the learned optimizer, where the problem is inner training.
      named: whether that optimizer is of the catalogue, so that `metaopt.load` can make it.
      vector: how estimator and outer optimizer see theta: as a vector, where it is the problem's
        tree everywhere else.
      one: of a population of thetas, the problem of one of them; else ``None``.
    """

    problem: UnrolledProblem
    estimator: Callable[[Mesh | None], GradientEstimator]
    tx: optax.GradientTransformation
    training: tuple[Task, LearnedOptimizer] | None
    named: bool
    vector: Vector = UNCHANGED
    one: UnrolledProblem | None = None


class Own(NamedTuple):
    """Pieces that are in no catalogue; those that are ``None`` are the configuration's.

    Attributes:
      problem: what is unrolled.
      task, optimizer: of which the problem is the training, where no problem is given.
      estimator: the options of an estimator, or one that is made already, for one device.
      tx: the outer optimizer.
    """

    problem: UnrolledProblem | None = None
    task: Task | None = None
    optimizer: LearnedOptimizer | None = None
    estimator: Options | GradientEstimator | None = None
    tx: optax.GradientTransformation | None = None

    @property
    def given(self) -> bool:
        """Whether something is here that no name stands for."""
        return any(piece is not None for piece in self if not isinstance(piece, Options))

    @property
    def double(self) -> bool:
        """Whether numbers are float64 by default: for what is here, as JAX was told."""
        return are_double() and self.given


NOTHING = Own()
"""Everything is in the catalogues."""


def build(config: Config, own: Own = NOTHING) -> Experiment:
    """Makes the pieces, and finds every fault of the configuration before anything runs.

    Args:
      config: what to make.
      own: what is made already.

    Raises:
      UserError: naming the value at fault and the valid ones.

    Examples:
      >>> build(Config()).training is not None
      True
    """
    _check_numbers(config)
    _check_types(own)
    training = None
    if own.problem is not None:
        problem = own.problem
    elif config.problem.name == "training" or own.task or own.optimizer:
        task = own.task or make("task", config.task)
        optimizer = own.optimizer or make("learned optimizer", config.optimizer)
        test_steps = config.estimator.horizon if config.test_every else None
        problem = _training(config, task, optimizer, test_steps=test_steps)
        training = task, optimizer
    else:
        problem = make("problem", config.problem)
    problem = _checked(config, own, problem, training and training[0])
    if config.test_every is not None and problem.test_loss is None:
        raise UserError("test_every is set, but the problem has no test loss: leave it out.")
    if training is not None:
        _require_no_end(config.estimator, training[1])
    is_made = isinstance(own.estimator, GradientEstimator)
    vector = UNCHANGED if is_made else vector_of(problem.init_theta)
    if config.mixture or config.mixture_weights or config.normalise_mixture:
        problem, estimator = _mixture(config, problem, vector)
    elif is_made:
        estimator = _made(cast(GradientEstimator, own.estimator))
    else:
        estimator = _estimator(config.estimator, on_vector(problem, vector))
    estimator(None)  # finds what is at fault in its options
    if config.start_from is not None:
        problem = problem._replace(init_theta=_starting_from(config.start_from, problem))
    tx = own.tx or outer_optimizer(config.outer)
    if config.outer.frozen:
        tx = frozen(tx, config.outer.frozen, problem)
        start = starting_at(problem.init_theta, config.outer.frozen)
        problem = problem._replace(init_theta=start)
    if own.tx or config.outer.frozen:
        tx = on_tree(tx, vector)
    is_named = training is not None and not own.optimizer
    made = Experiment(problem, estimator, tx, training, is_named, vector)
    at_least(1, "outer.population", config.outer.population)
    if config.outer.population == 1 and config.outer.stein != SteinConfig():
        raise UserError("outer.stein is for several thetas: give outer.population, too.")
    if config.outer.search is not None:
        _require_searchable(config, own, problem)
    return made if config.outer.population == 1 else _population(config, made)


def _population(config: Config, of_one: Experiment) -> Experiment:
    """The pieces of a population, of those of one theta."""
    thetas, chosen = config.outer.population, config.outer.stein
    arguments = {f.name: getattr(chosen, f.name) for f in dataclasses.fields(chosen)}
    try:
        problem = population_of(of_one.problem, thetas)
        estimator = lambda mesh: stein(of_one.estimator(mesh), thetas, **arguments)
        estimator(None)
    except ValueError as error:
        raise UserError(f"outer.population={thetas}, outer.stein: {error}") from error
    return of_one._replace(
        problem=problem,
        estimator=estimator,
        tx=of_each(of_one.tx),
        vector=Vector(*map(jax.vmap, of_one.vector)),
        one=of_one.problem,
    )


def _require_searchable(config: Config, own: Own, problem: UnrolledProblem) -> None:
    """Refuses what somebody else's search has no use for."""
    search = config.outer.search
    require_known(str(search))
    for name, is_given in (
        ("outer.population", config.outer.population != 1),
        ("a mixture", bool(config.mixture)),
        (f"estimator={config.estimator.name}", not hasattr(config.estimator, "sigma")),
        ("outer.frozen", bool(config.outer.frozen)),
        ("an estimator that is made already", isinstance(own.estimator, GradientEstimator)),
        ("an outer optimizer of your own", own.tx is not None),
        ("data that is streamed", problem.stream is not None),
        (
            "a theta with RunningStatistics",
            any(map(is_statistics, jax.tree.leaves(_theta_of(problem), is_leaf=is_statistics))),
        ),
    ):
        if is_given:
            raise UserError(f"outer.search={search} does not go with {name}: leave one out.")


def _theta_of(problem: UnrolledProblem) -> Theta:
    return jax.eval_shape(problem.init_theta, jax.random.key(0))


def _training(
    config: Config, task: Task, optimizer: LearnedOptimizer, **arguments: Any
) -> UnrolledProblem:
    given = parse_args(config.problem.args) if config.problem.name == "training" else {}
    return call(inner.training, "problem 'training'", given | arguments, task, optimizer)


def _check_types(own: Own) -> None:
    for name, value in own._asdict().items():
        kind = {"problem": UnrolledProblem, "task": Task, "optimizer": LearnedOptimizer}.get(name)
        if kind is not None and value is not None and not isinstance(value, kind):
            raise UserError(
                f"{name} must be a metaopt.{kind.__name__}, got {value!r}; what has a name is "
                f"asked for by a metaopt.Config({name}=metaopt.Component(NAME))."
            )
    if own.problem is not None and (own.task is not None or own.optimizer is not None):
        raise UserError("hand over a problem, or a task and an optimizer, not both.")
    if not isinstance(own.estimator, Options | GradientEstimator | None):
        raise UserError(
            "estimator must be options, such as metaopt.estimators.PES(particles=8), or a "
            f"metaopt.GradientEstimator, got {own.estimator!r}."
        )
    if own.tx is not None and not (hasattr(own.tx, "init") and hasattr(own.tx, "update")):
        raise UserError(
            f"tx must be an optax transformation, such as optax.adam(0.1), got {own.tx!r}."
        )


def _checked(
    config: Config, own: Own, problem: UnrolledProblem, task: Task | None
) -> UnrolledProblem:
    """The problem, after a look at its shapes where it is somebody's own.

    What is in the catalogue here is looked at by its tests.
    """
    is_own = any(piece is not None for piece in (own.problem, own.task, own.optimizer))
    is_training = config.problem.name == "training"
    name = (config.task if is_training else config.problem).name
    if not is_own and not provider("task" if is_training else "problem", name):
        return problem
    data = problem.data()
    if task is not None:
        check_task(name, task, data)
    check_problem(name, problem, data)
    return problem._replace(data=lambda: data)


def _check_numbers(config: Config) -> None:
    try:
        text = to_json(config)
    except TypeError as error:
        raise UserError(
            "the configuration holds an object that JSON has not: tasks of a mixture are named by "
            'text, such as "augment task=digits_mlp rescale=tensor"; a task of your own goes to '
            "metaopt.train(task=...), or into a catalogue."
        ) from error
    from_json(text)  # every value is of its type
    for name in ("outer_steps", "checkpoint_every", "keep_checkpoints", "log_every"):
        at_least(1, name, getattr(config, name))
    if config.evaluation.seeds < 2 and config.evaluation.seeds != 0:
        raise UserError(
            "evaluation.seeds must be at least 2, or 0 for no evaluation, got "
            f"{config.evaluation.seeds}."
        )
    for name, value in (
        ("evaluation.num_steps", config.evaluation.num_steps),
        ("test_every", config.test_every),
    ):
        if value is not None:
            at_least(1, name, value)


def _require_no_end(options: Options, optimizer: LearnedOptimizer) -> None:
    """Refuses visits of an optimizer that plans for their first length alone."""
    what = getattr(options, "continue_from", None)
    if what and "num_steps" in needs(optimizer, optimizer.init(jax.random.key(0))):
        raise UserError(
            f"continue_from={what!r} is for optimizers that do not need to know how many steps "
            "they are used for, and this one does: leave it out, or draw longer horizons."
        )


def _estimator(
    options: Options, problem: UnrolledProblem
) -> Callable[[Mesh | None], GradientEstimator]:
    what, factory = f"estimator {options.name!r}", find("estimator", options.name)
    try:
        arguments = options.arguments()
    except ValueError as error:
        raise UserError(f"{what}: {error}") from error
    return lambda mesh: call(factory, what, arguments | {"mesh": mesh}, problem)


def _made(estimator: GradientEstimator) -> Callable[[Mesh | None], GradientEstimator]:
    def on(mesh: Mesh | None) -> GradientEstimator:
        if mesh is not None and mesh.size > 1:
            raise UserError(
                "an estimator that is made already runs on one device: hand over its options, "
                "such as metaopt.estimators.NRES(...), or devices=1."
            )
        return estimator

    return on


def _mixture(
    config: Config, first: UnrolledProblem, vector: Vector
) -> tuple[UnrolledProblem, Callable[[Mesh | None], GradientEstimator]]:
    if config.problem.name != "training" or not config.mixture:
        raise UserError(
            "a mixture needs problem=training and at least one task in --mixture, got "
            f"problem={config.problem.name}, mixture={list(config.mixture)}."
        )
    optimizer = make("learned optimizer", config.optimizer)
    components = trained_tasks(config)
    others = [_training(config, make("task", one), optimizer) for one in components[1:]]
    problems = dict(zip(short_names(components), (first, *others), strict=True))
    if any(problem.stream for problem in problems.values()):
        raise UserError("the tasks of a mixture cannot be streamed: leave out stream_rows.")
    of = lambda problem: _estimator(config.estimator, on_vector(problem, vector))
    parts = {name: of(problem) for name, problem in problems.items()}

    def estimator(mesh: Mesh | None) -> GradientEstimator:
        made = {name: on(mesh) for name, on in parts.items()}
        weights = config.mixture_weights or None
        try:
            return mixture(made, weights=weights, normalise=config.normalise_mixture)
        except ValueError as error:
            raise UserError(f"mixture_weights: {error}") from error

    data = lambda: tuple(problem.data() for problem in problems.values())
    return first._replace(data=data), estimator


def _starting_from(what: str, problem: UnrolledProblem) -> Callable[[Key], Theta]:
    fresh = jax.eval_shape(problem.init_theta, jax.random.key(0))
    try:
        theta = unflatten_theta(flat_theta(what), fresh)
    except UserError as error:
        raise UserError(f"start_from: {what}: {error}") from error
    return lambda key: theta
