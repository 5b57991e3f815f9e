"""An outer loop that somebody else's search drives, in a run's directory like any other."""

import pickle
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from metaopt.config.schema import Config
from metaopt.core.errors import UserError
from metaopt.core.files import write_atomically
from metaopt.core.own_numbers import are_double, own_numbers
from metaopt.integrations.searches import Search, Start, make_search
from metaopt.training.experiment import Experiment
from metaopt.training.loop import KEY_OF_TEST, Progress, is_tested
from metaopt.training.metrics import metrics_writer
from metaopt.training.run_directory import RunDirectory, disk_faults
from metaopt.training.save import save_run
from metaopt.training.whole_episodes import whole_episodes

FILE = "search.pickle"


class Searched(NamedTuple):
    """A search after `search`.

    Attributes:
      step: the outer step that it stands at.
      finished: whether that is the last.
      resumes: whether it could go on from there.
    """

    step: int
    finished: bool
    resumes: bool = True


def search(
    config: Config,
    out: Path,
    *,
    experiment: Experiment,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
    on_notice: Callable[[str], None] = print,
) -> Searched:
    """Runs a configuration with ``outer.search``, from its last checkpoint where it has one.

    An outer step measures 2N thetas over whole episodes of T steps, all of the same start and
    randomness, and tells the search their mean losses, of which smaller is better. What is not
    finite counts as worse than all so far.

    Args:
      config, out, experiment, on_progress, should_stop, on_notice: as of
        `metaopt.training.loop.train`.

    Raises:
      UserError: where the search is unknown or cannot go on; as `metaopt.training.loop.train`.
    """
    directory = RunDirectory(out)
    with own_numbers(are_double()), disk_faults(directory):
        directory.open(config)
        return _search(config, directory, experiment, on_progress, should_stop, on_notice)


def _search(config, directory, experiment, on_progress, should_stop, on_notice) -> Searched:
    began = time.perf_counter()
    problem, horizon = experiment.problem, config.estimator.horizon
    theta_key, run_key = jax.random.split(jax.random.key(config.seed))
    first, unravel = ravel_pytree(problem.init_theta(theta_key))
    population = 2 * config.estimator.particles
    start = Start(np.asarray(first), float(config.estimator.sigma), population, config.seed)
    saved = _newest(directory)
    if saved is None:
        directory.require_never_saved(config.checkpoint_every)
        saved = {"step": 0, "totals": {"unroll_steps": 0, "seconds": 0.0}, "worst": 0.0}
    elif saved["population"] != population:
        raise UserError(
            f"{directory.path} was begun with {saved['population'] // 2} particles, and a search "
            "keeps the number that it began with: leave estimator.particles as it was."
        )
    step, before, worst = saved["step"], saved["totals"], saved["worst"]
    if step >= config.outer_steps:
        directory.write(config)
        return Searched(step, finished=True)
    made = make_search(config.outer.search, start, saved.get("search"))
    directory.write(config)
    data, totals = problem.data(), dict(before)
    of_each = whole_episodes(problem, horizon)
    measure = jax.jit(lambda vectors, data, key: of_each(jax.vmap(unravel)(vectors), data, key))
    metric, tested = problem.test_metric, ""
    if problem.test_loss is not None:
        directory.write_test_metric(metric)
        test = jax.jit(lambda vector, *rest: problem.test_loss(unravel(vector), *rest))

    def save() -> None:
        content = {"population": population, "step": step, "totals": totals, "worst": worst}
        _save(directory, config.keep_checkpoints, content | {"search": made.save()})

    with metrics_writer(directory, step, config.log_every) as writer:
        while step < config.outer_steps and not should_stop():
            of_step = partial(measure, data=data, key=jax.random.fold_in(run_key, step))
            losses, worst = tell_losses(made, of_step, population, worst)
            step += 1
            totals["unroll_steps"] += len(losses) * horizon
            totals["seconds"] = before["seconds"] + time.perf_counter() - began
            row = {"loss": losses.mean(), "best_loss": losses.min(), "step": step} | totals
            if problem.test_loss is not None and is_tested(config, step):
                vector = jnp.asarray(made.best(), first.dtype)
                row[metric.key] = float(test(vector, data, jax.random.key(KEY_OF_TEST)))
                tested = metric.text(row[metric.key])
            if step % config.log_every == 0 or metric.key in row:
                writer.write([row])
            rate = (totals["unroll_steps"] - before["unroll_steps"]) / (
                totals["seconds"] - before["seconds"]
            )
            on_progress(Progress(config.outer_steps, row, rate, tested))
            if step % config.checkpoint_every == 0:
                writer.flush()
                save()
    save()
    theta = unravel(jnp.asarray(made.best(), first.dtype))
    task = experiment.training[0] if experiment.training and experiment.named else None
    save_run(directory, config, theta, {"outer_steps": step} | totals, task)
    return Searched(step, step >= config.outer_steps, made.resumes)


def tell_losses(
    made: Search, measure: Callable[[jax.Array], jax.Array], population: int, worst: float
) -> tuple[np.ndarray, float]:
    """Measures and tells as many thetas as the population has, however many are asked at a time."""
    told: list[np.ndarray] = []
    while sum(map(len, told)) < population:
        thetas = made.ask()
        losses = np.asarray(measure(jnp.asarray(thetas, jnp.float32)))
        finite = np.isfinite(losses)
        worst = max([worst, *losses[finite].tolist()])
        losses = np.where(finite, losses, worst + abs(worst) + 1.0)
        made.tell(thetas, losses)
        told.append(losses)
    return np.concatenate(told), worst


def _save(directory: RunDirectory, keep: int, content: dict[str, Any]) -> None:
    """Writes a checkpoint, whole or not at all, and removes old ones."""
    folder = directory.checkpoints / str(content["step"])
    beside = folder.with_name(f"{folder.name}.tmp")
    beside.mkdir(parents=True, exist_ok=True)
    write_atomically(beside / FILE, pickle.dumps(content))
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)
    for old in _steps(directory)[:-keep]:
        shutil.rmtree(directory.checkpoints / str(old), ignore_errors=True)


def _newest(directory: RunDirectory) -> dict[str, Any] | None:
    """What was saved last, and can be read."""
    for step in reversed(_steps(directory)):
        try:
            return pickle.loads((directory.checkpoints / str(step) / FILE).read_bytes())
        except (OSError, EOFError, pickle.UnpicklingError):
            continue
    return None


def _steps(directory: RunDirectory) -> list[int]:
    names = directory.checkpoints.iterdir() if directory.checkpoints.is_dir() else ()
    return sorted(int(path.name) for path in names if path.name.isdecimal())
