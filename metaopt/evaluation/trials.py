"""Inner runs for measurement: many seeds and rates at once, losses on all splits along the way.

One jitted program a task and an optimizer does runs of any length. Run i has the same member of the
task family, initialisation and batches whatever trains it, from a stream of keys that meta-training
does not draw from. A constant-rate baseline's first T steps are its run of T steps, so one sweep of
long runs answers for all shorter ones.
"""

import hashlib
import io
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metaopt.core import inner
from metaopt.core.files import write_atomically
from metaopt.core.sizes import bytes_of
from metaopt.core.types import Key, LearnedOptimizer, PyTree, Task, Theta
from metaopt.core.unroll import unroll
from metaopt.parallel.chunks import in_chunks

SPLITS = ("train", "valid", "test")

KEY_OF_EVALUATION = 0x6D657461
"""Evaluation runs draw from a stream of their own, the same for every optimizer."""

MOST_ROWS = 512
"""A split with more rows is measured on so many of them, the same at every measurement."""

LONGER = 4
"""How many times T the baselines run, and by how much the horizons differ from T."""


class Trial(NamedTuple):
    """What an optimizer did on a task.

    Attributes:
      curves: horizon -> ``[M, seeds, points + 1, 3]`` losses on `SPLITS`, for each of M thetas;
        point 0 is before the first step.
      seconds_per_step: of one run alone, its training steps without measurements.
      state_bytes: of the optimizer's state.
      params_bytes: of the parameters.
    """

    curves: dict[int, np.ndarray]
    seconds_per_step: float
    state_bytes: int
    params_bytes: int

    def at(self, horizon: int, every: int) -> np.ndarray:
        """Losses of runs of ``horizon`` steps; the start of longer ones where there are only those.

        Only right for optimizers that do not look at their horizon.
        """
        if horizon in self.curves:
            return self.curves[horizon]
        return self.curves[max(self.curves)][:, :, : horizon // every + 1]


def measured_every(num_steps: int, most_points: int = 25) -> int:
    """Steps between two measurements: divides ``num_steps``, into about ``most_points`` parts.

    Example:
      >>> measured_every(200), measured_every(8), measured_every(42)
      (8, 1, 1)
    """
    return max(d for d in range(1, max(1, num_steps // most_points) + 1) if num_steps % d == 0)


def horizons_of(num_steps: int) -> tuple[int, ...]:
    """T/4 to 4T by factors of 2, each rounded down to whole measurements.

    Example:
      >>> horizons_of(200), horizons_of(2)
      ((48, 96, 200, 400, 800), (1, 2, 4, 8))
    """
    every = measured_every(num_steps)
    exact = (num_steps // 4, num_steps // 2, num_steps, 2 * num_steps, 4 * num_steps)
    return tuple(sorted({max(every, h // every * every) for h in exact}))


def run_trial(
    task: Task,
    optimizer: LearnedOptimizer,
    thetas: Theta,
    data: PyTree,
    *,
    horizons: tuple[int, ...],
    every: int,
    seeds: int,
    cache: Path | None = None,
    anew: bool = False,
) -> tuple[Trial, bool]:
    """Runs of each horizon from ``seeds`` starts with each of M thetas, or what the cache has.

    Args:
      task: what is trained, on its ``"train"`` split.
      optimizer: what trains it.
      thetas: M of its meta-parameters, stacked on axis 0 of every leaf.
      data: the task's.
      horizons: multiples of ``every``.
      every: inner steps between two measurements.
      seeds: runs for each theta and horizon.
      cache: a folder with results of earlier calls, by a hash of the program and of all that goes
        into it: what was changed is never mistaken for what it was.
      anew: run even so.

    Returns:
      The trial, and whether it came from the cache.
    """
    points = max(horizons) // every
    key = jax.random.key(KEY_OF_EVALUATION)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(seeds))
    steps = lambda n: jnp.int32(n)
    program = jax.jit(_runs(task, optimizer, every, points))
    lowered = program.lower(thetas, keys, data, steps(horizons[0]), steps(1))
    file = None
    if cache is not None:
        name = _hash(lowered.as_text(), (thetas, jax.random.key_data(keys), data), horizons)
        file = cache / f"{name}.npz"
        if not anew and (found := _read(file)) is not None:
            return found, True
    compiled = lowered.compile()
    curves = {
        h: np.asarray(compiled(thetas, keys, data, steps(h), steps(h // every)))[
            :, :, : h // every + 1
        ]
        for h in horizons
    }
    theta = jax.tree.map(lambda leaf: leaf[0], thetas)
    seconds = _seconds_per_step(task, optimizer, theta, data, keys[0])
    state = _start(task, optimizer, theta, data, keys[0])
    trial = Trial(curves, seconds, bytes_of(state.opt_state), bytes_of(state.params))
    if file is not None:
        _write(file, trial)
    return trial, False


def _runs(task: Task, optimizer: LearnedOptimizer, every: int, points: int):
    problem = inner.training(task, optimizer)

    def run(theta, key, data, horizon, count):
        def advance(i, carry):
            state, losses = carry
            state, _ = unroll(problem, theta, state, data, every)
            return state, losses.at[i + 1].set(_measure(task, state, data))

        state = problem.init(theta, data, horizon, key)
        losses = jnp.full((points + 1, len(SPLITS)), jnp.nan, jnp.float32)
        losses = losses.at[0].set(_measure(task, state, data))
        return jax.lax.fori_loop(0, count, advance, (state, losses))[1]

    def runs(thetas, keys, data, horizon, count):
        thetas_count, seeds = len(jax.tree.leaves(thetas)[0]), len(keys)
        pick = lambda i: jax.tree.map(lambda leaf: leaf[i], thetas)
        start = jax.eval_shape(lambda: problem.init(pick(0), data, horizon, keys[0]))
        # Gradients and what is in work are about as much again.
        size = 2 * bytes_of((start.params, start.opt_state))
        if thetas_count == 1:  # one theta, not a copy for each run
            theta = pick(0)
            one = lambda key: run(theta, key, data, horizon, count)
            return in_chunks(one, keys, bytes_each=size)[None]
        entries = (jnp.repeat(jnp.arange(thetas_count), seeds), jnp.tile(keys, thetas_count))
        one_of = lambda entry: run(pick(entry[0]), entry[1], data, horizon, count)
        losses = in_chunks(one_of, entries, bytes_each=size)
        return losses.reshape(thetas_count, seeds, *losses.shape[1:])

    return runs


def _measure(task: Task, state: inner.TrainingState, data: PyTree) -> jax.Array:
    """The losses on `SPLITS`, ``[3]``: on whole splits, or on fixed batches of large ones."""
    key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), 1)

    def on(number: int, split: str) -> jax.Array:
        draw = lambda key: task.batch(data, state.config, split, key)
        loss = lambda batch: task.loss(state.config, state.params, batch, key)
        if _rows(jax.eval_shape(lambda: draw(None))) <= MOST_ROWS:
            return loss(draw(None))
        fixed = jax.random.fold_in(jax.random.key(KEY_OF_EVALUATION), number)
        batches = max(1, MOST_ROWS // _rows(jax.eval_shape(lambda: draw(fixed))))
        return jax.lax.map(lambda key: loss(draw(key)), jax.random.split(fixed, batches)).mean()

    return jnp.stack([on(i, split).astype(jnp.float32) for i, split in enumerate(SPLITS)])


def _rows(batch: PyTree) -> int:
    leaves = [leaf for leaf in jax.tree.leaves(batch) if leaf.ndim]
    return leaves[0].shape[0] if leaves else 0


def _start(task, optimizer, theta, data, key) -> inner.TrainingState:
    """Shapes of a run's state."""
    problem = inner.training(task, optimizer)
    return jax.eval_shape(lambda: problem.init(theta, data, 1, key))


def _seconds_per_step(
    task: Task, optimizer: LearnedOptimizer, theta: Theta, data: PyTree, key: Key, steps: int = 100
) -> float:
    problem = inner.training(task, optimizer)

    @jax.jit
    def advance(theta, data, key):
        state = problem.init(theta, data, steps, key)
        step = lambda i, state: problem.step(theta, state, data)[0]
        return jax.lax.fori_loop(0, steps, step, state).params

    times = []
    for _ in range(4):  # the first one compiles
        start = time.perf_counter()
        jax.block_until_ready(advance(theta, data, key))
        times.append((time.perf_counter() - start) / steps)
    return min(times[1:])


def _hash(program: str, arguments: PyTree, horizons: tuple[int, ...]) -> str:
    digest = hashlib.sha256(f"{program} {horizons}".encode())
    for leaf in jax.tree.leaves(arguments):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:24]


def _write(file: Path, trial: Trial) -> None:
    buffer = io.BytesIO()
    facts = np.array([trial.seconds_per_step, trial.state_bytes, trial.params_bytes], np.float64)
    arrays: dict[str, Any] = {str(h): losses for h, losses in trial.curves.items()}
    np.savez_compressed(buffer, facts=facts, **arrays)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, buffer.getvalue())


def _read(file: Path) -> Trial | None:
    try:
        with np.load(file) as stored:
            arrays = {name: stored[name] for name in stored.files}
        seconds, state_bytes, params_bytes = arrays.pop("facts").tolist()
    except (OSError, ValueError, KeyError, EOFError):
        return None  # not there, or damaged: it is run again
    curves = {int(h): losses for h, losses in arrays.items()}
    return Trial(curves, seconds, int(state_bytes), int(params_bytes))
