"""The host loop around the pure outer step: dispatch, log, checkpoint, stop, resume."""

import dataclasses
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from metaopt.config.schema import Config
from metaopt.core import backoff
from metaopt.core.data_stream import Feed
from metaopt.core.errors import UserError
from metaopt.core.own_numbers import IMPLEMENTATION, are_double, own_numbers
from metaopt.core.resize import particles_of
from metaopt.core.types import MetaState, PyTree, Theta
from metaopt.parallel.processes import max_over_processes, on_primary
from metaopt.parallel.sharding import particle_mesh, replicate
from metaopt.training.checkpoints import Checkpoints, Restored
from metaopt.training.experiment import NOTHING, Experiment, Own, build
from metaopt.training.metrics import metrics_writer
from metaopt.training.program import lower_and_start, program
from metaopt.training.run_directory import RunDirectory, disk_faults
from metaopt.training.save import save_population, save_run
from metaopt.training.whole_episodes import best_by_validation

DISPATCH_SECONDS = 0.3
"""How long a dispatch should take: long against its overhead, short against a person's patience."""

MAX_DISPATCH = 256
"""Outer steps in a dispatch, at most; the metrics of all of them come back at once."""


KEY_OF_TEST = 0x74657374
"""The test metric draws from a stream of its own, the same for every run and every outer step."""


class Progress(NamedTuple):
    """What the loop says of itself after each dispatch.

    Attributes:
      outer_steps: how many there are to be in all.
      row: the last one's metrics, as in ``metrics.jsonl``.
      rate: unroll steps a second in this call, compilation left out.
      test: the newest test metric of this call, such as ``"test loss 0.35"``; empty if it was not
        measured yet.
    """

    outer_steps: int
    row: dict[str, Any]
    rate: float
    test: str = ""


class Result(NamedTuple):
    """A run after `train`.

    Attributes:
      state: where it stands.
      theta: the meta-parameters, as the problem has them.
      experiment: its pieces.
      data: the problem's data, on the device.
      totals: ``unroll_steps`` and ``seconds`` (wall-clock, compilation included) so far.
      resumed_at: the outer step it went on from.
      finished: whether all its outer steps are done.
      validation: of a population of thetas, the loss of each ``[n]``; ``theta`` is the best one.
    """

    state: MetaState
    theta: Theta
    experiment: Experiment
    data: PyTree
    totals: dict[str, Any]
    resumed_at: int
    finished: bool
    validation: np.ndarray | None = None


def train(
    config: Config,
    out: Path,
    *,
    experiment: Experiment | None = None,
    mesh: Mesh | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
    on_notice: Callable[[str], None] = warnings.warn,
) -> Result:
    """Runs a configuration in a directory, from its last checkpoint where it has one.

    Stopped at any moment and called again, it ends with the same bits as if it had never stopped.

    Args:
      config: the run.
      out: its directory.
      experiment: its pieces, where they are made already, by `experiment_of`.
      mesh: devices for the particles, see `metaopt.parallel.sharding.particle_mesh`; the first
        one alone if not given.
      on_progress: called after each dispatch.
      should_stop: asked before each dispatch; where it says so the run is saved and returned.
      on_notice: told in a sentence what a person should know, such as a damaged checkpoint.

    Raises:
      UserError: where the configuration is at fault, the directory cannot be used, or theta makes
        everything non-finite however small the steps; the run is saved then. Or where the disk is
        full or cannot be written: then it resumes from its newest checkpoint.
    """
    double = experiment is not None and are_double()  # as it was made
    with own_numbers(double), disk_faults(RunDirectory(Path(out))):
        return _train(config, Path(out), experiment, mesh, on_progress, should_stop, on_notice)


def experiment_of(config: Config, directory: RunDirectory, own: Own = NOTHING) -> Experiment:
    """A run's pieces, as `metaopt.training.experiment.build` makes them.

    Once it has a checkpoint a run needs no start any more: where that came from may be gone.

    Raises:
      UserError: as `build`.
    """
    if on_primary(directory.newest_checkpoint) is not None:
        config = dataclasses.replace(config, start_from=None)
    return build(config, own)


def _train(config, out, experiment, mesh, on_progress, should_stop, on_notice) -> Result:
    began = time.perf_counter()
    mesh = particle_mesh(jax.process_count()) if mesh is None else mesh
    directory = RunDirectory(out)
    experiment = experiment or experiment_of(config, directory)
    experiment.estimator(mesh)  # a fault is found before anything is written
    on_primary(lambda: directory.open(config))
    pieces = program(experiment, mesh, seed=config.seed, at_most=MAX_DISPATCH)
    data, like = pieces.data, pieces.like
    with (
        Checkpoints(directory.checkpoints, config.keep_checkpoints) as checkpoints,
        Feed(experiment.problem.stream, data, lambda tree: replicate(tree, mesh)) as feed,
    ):
        restored = checkpoints.restore(like) or on_primary(lambda: _never_saved(directory, config))
        resumed_at = step = 0 if restored is None else int(restored.state.step)
        steps, started = pieces.steps, Future[MetaState]()
        if step < config.outer_steps:
            lowered, started = lower_and_start(pieces, feed(step), begin=restored is None)
            steps = lowered.compile()
        if restored is None:
            restored = Restored(started.result(), {"unroll_steps": 0, "seconds": 0.0}, damaged=[])
        state, totals, damaged = restored
        if state.key.dtype != like.key.dtype:
            raise UserError(
                f"{out} was begun by an earlier version with other random numbers "
                f"({jax.random.key_impl(state.key)}; now they are always {IMPLEMENTATION}): choose "
                "another --out."
            )
        for fault in damaged:
            on_notice(f"The checkpoint {fault} is damaged; it was set aside.")
        if damaged:
            on_notice(f"Resuming from outer step {step}.")
        if (were := particles_of(state)) != (now_are := particles_of(like)):
            _require_unfinished(config, out, step, were)
            state = pieces.resize(state, feed(step))
            on_notice(f"Resuming with {now_are} particles where there were {were}.")
        on_primary(lambda: directory.write(config))

        test, metric = experiment.problem.test_loss, experiment.problem.test_metric
        if test is not None:
            on_primary(lambda: directory.write_test_metric(metric))
        unravel, tested = experiment.vector.unravel, ""
        measure = jax.jit(lambda theta, *rest: test(unravel(theta), *rest))
        test_key = replicate(jax.random.key(KEY_OF_TEST), mesh)
        compiled = time.perf_counter()
        before, diverged = dict(totals), False
        with metrics_writer(directory, step, config.log_every) as writer:
            boundaries = [config.checkpoint_every, config.test_every, feed.steps]
            dispatches = _dispatches(
                steps, state, feed, config.outer_steps, [n for n in boundaries if n], should_stop
            )
            for state, rows in dispatches:
                now = time.perf_counter()
                totals["seconds"] = before["seconds"] + now - began
                for row in rows:
                    step += 1
                    totals["unroll_steps"] += row["unroll_steps"]
                    row |= {"step": step} | totals
                if test is not None and is_tested(config, step):
                    rows[-1][metric.key] = float(measure(state.theta, feed(step), test_key))
                    tested = metric.text(rows[-1][metric.key])
                logged = lambda row: row["step"] % config.log_every == 0 or metric.key in row
                writer.write([row for row in rows if logged(row)])
                for row in rows:
                    if row["backed_off"]:
                        on_notice(backoff.notice(row))
                rate = (totals["unroll_steps"] - before["unroll_steps"]) / (now - compiled)
                on_progress(Progress(config.outer_steps, rows[-1], rate, tested))
                if diverged := any(map(backoff.has_diverged, rows)):
                    break
                if step % config.checkpoint_every == 0:
                    writer.flush()  # a checkpoint never knows of more than the metrics do
                    checkpoints.save(state, totals)
        checkpoints.save(state, totals)
    whole = {"outer_steps": step} | totals
    theta, validation = _leave_behind(
        directory, config, experiment, unravel(state.theta), data, whole
    )
    if diverged:
        raise UserError(backoff.DIVERGED)
    finished = step >= config.outer_steps
    return Result(state, theta, experiment, data, totals, resumed_at, finished, validation)


def _leave_behind(directory, config, experiment, theta, data, totals):
    """Saves theta, or all of a population and the best; returns it, and the losses of all."""
    validation = None
    if experiment.one is not None:
        thetas, horizon = theta, config.estimator.horizon
        theta, validation = best_by_validation(experiment.one, thetas, data, horizon)
        on_primary(lambda: save_population(directory, thetas, validation))
    task = experiment.training[0] if experiment.training and experiment.named else None
    on_primary(lambda: save_run(directory, config, theta, totals, task))
    return theta, validation


def _never_saved(directory: RunDirectory, config: Config) -> None:
    """Refuses to begin a run anew that had a checkpoint."""
    directory.require_never_saved(config.checkpoint_every)


def _require_unfinished(config: Config, out: Path, step: int, particles: int) -> None:
    """Refuses another number of particles where no outer step is left for them."""
    if step >= config.outer_steps:
        raise UserError(
            f"{out} is finished, with {particles} particles: raise outer_steps to resume with "
            f"{config.estimator.particles}, or leave estimator.particles as it was."
        )


def is_tested(config: Config, step: int) -> bool:
    """Whether the test metric is measured after an outer step: the last one always is.

    Examples:
      >>> [step for step in range(1, 6) if is_tested(Config(outer_steps=5, test_every=2), step)]
      [2, 4, 5]
    """
    return step == config.outer_steps or (
        config.test_every is not None and step % config.test_every == 0
    )


def _dispatches(
    steps: Callable,
    state: MetaState,
    feed: Callable[[int], PyTree],
    last: int,
    boundaries: list[int],
    should_stop: Callable[[], bool],
) -> Iterator[tuple[MetaState, list[dict[str, Any]]]]:
    """The state after each dispatch and the metrics of its outer steps, up to outer step ``last``.

    A dispatch takes as many steps as fill `DISPATCH_SECONDS`, crosses no multiple of any of
    ``boundaries`` and has ended before it is handed out. There is none any more once
    ``should_stop`` has said so, in one process of several.
    """
    step, count = int(state.step), 1
    while step < last:
        nearest = min(boundary - step % boundary for boundary in boundaries)
        count, stop = max_over_processes(
            min(count, last - step, nearest, MAX_DISPATCH), should_stop()
        )
        if stop:
            return
        began = time.perf_counter()
        state, metrics = steps(state, feed(step), np.int32(count))
        columns = {name: np.asarray(column)[:count].tolist() for name, column in metrics.items()}
        seconds = time.perf_counter() - began
        step += count
        yield (
            state,
            [
                dict(zip(columns, values, strict=True))
                for values in zip(*columns.values(), strict=True)
            ],
        )
        count = max(1, round(count * DISPATCH_SECONDS / seconds))
