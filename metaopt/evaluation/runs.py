"""The programs that an evaluation runs: inner runs with losses along the way, and a step's time."""

import os
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from metaopt.core import inner
from metaopt.core.sizes import bytes_of
from metaopt.core.types import Key, LearnedOptimizer, PyTree, Task, Theta, UnrolledProblem
from metaopt.core.unroll import unroll
from metaopt.parallel.chunks import bytes_in_work, in_chunks

Judged = Callable[[PyTree, PyTree], PyTree]

SPLITS = ("train", "valid", "test")

KEY_OF_EVALUATION = 0x6D657461
"""Evaluation runs draw from a stream of their own, the same for every optimizer."""

MOST_ROWS = 512
"""A split with more rows is measured on so many of them, the same at every measurement."""

TIMED = 100
"""Steps whose time is taken."""


def compiler_options() -> dict[str, int] | None:
    """XLA's level 1 on a CPU: higher ones take twice as long to compile and run no faster."""
    option = "xla_backend_optimization_level"
    on_cpu = jax.default_backend() == "cpu"
    return {option: 1} if on_cpu and option not in os.environ.get("XLA_FLAGS", "") else None


def _training(task: Task, optimizer: LearnedOptimizer) -> UnrolledProblem:
    """Runs of their own, also where meta-training repeats one."""
    return inner.training(task._replace(sequence=None), optimizer)


def runs_of(
    task: Task, optimizer: LearnedOptimizer, every: int, points: int, judged: Judged | None = None
):
    """The function that does the runs of a `metaopt.evaluation.trials.Trial`.

    Args:
      task: what is trained, on its ``"train"`` split.
      optimizer: what trains it.
      every: inner steps between two measurements.
      points: measurements that there is room for, without the one before the first step.
      judged: ``(opt_state, params) -> params`` that are measured, where these are others.

    Returns:
      ``(thetas, keys, data, horizon, count) -> {measure: [M, seeds, points + 1, 3]}``: the
      ``"loss"``, and the ``"accuracy"`` where the task has one, on `SPLITS`, of runs that are told
      of ``horizon`` steps and stop after ``count`` measurements; NaN beyond.
    """
    problem = _training(task, optimizer)

    def measured(state, data):
        if judged is not None:
            state = state._replace(params=judged(state.opt_state, state.params))
        return _measure(task, state, data)

    def run(theta, key, data, horizon, count):
        def advance(i, carry):
            state, curves = carry
            state, _ = unroll(problem, theta, state, data, every)
            return state, put(curves, i + 1, measured(state, data))

        put = lambda curves, i, now: {name: curves[name].at[i].set(now[name]) for name in curves}
        state = problem.init(theta, data, horizon, key)
        start = measured(state, data)
        empty = jnp.full((points + 1, len(SPLITS)), jnp.nan, jnp.float32)
        curves = put(dict.fromkeys(start, empty), 0, start)
        return jax.lax.fori_loop(0, count, advance, (state, curves))[1]

    def runs(thetas, keys, data, horizon, count):
        thetas_count, seeds = len(jax.tree.leaves(thetas)[0]), len(keys)
        pick = lambda i: jax.tree.map(lambda leaf: leaf[i], thetas)
        start = jax.eval_shape(lambda: problem.init(pick(0), data, horizon, keys[0]))
        # Gradients are about as much again as the state.
        size = 2 * bytes_of((start.params, start.opt_state))
        size += bytes_in_work(problem.step, pick(0), start, data)
        if thetas_count == 1:  # one theta, not a copy for each run
            theta = pick(0)
            one = lambda key: run(theta, key, data, horizon, count)
            curves = in_chunks(one, keys, bytes_each=size)
            return jax.tree.map(lambda curve: curve[None], curves)
        entries = (jnp.repeat(jnp.arange(thetas_count), seeds), jnp.tile(keys, thetas_count))
        one_of = lambda entry: run(pick(entry[0]), entry[1], data, horizon, count)
        curves = in_chunks(one_of, entries, bytes_each=size)
        shape = lambda curve: curve.reshape(thetas_count, seeds, *curve.shape[1:])
        return jax.tree.map(shape, curves)

    return runs


def _measure(task: Task, state: inner.TrainingState, data: PyTree) -> dict[str, jax.Array]:
    """Each measure on `SPLITS`, ``[3]``: on whole splits, or on fixed batches of large ones."""
    measures = {"loss": task.loss} | ({"accuracy": task.accuracy} if task.accuracy else {})
    key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), 1)

    def on(number: int, split: str) -> dict[str, jax.Array]:
        draw = lambda key: task.batch(data, state.config, split, key)

        def measured(batch: PyTree) -> dict[str, jax.Array]:
            of = {name: f(state.config, state.params, batch, key) for name, f in measures.items()}
            return {name: value.astype(jnp.float32) for name, value in of.items()}

        if _rows(jax.eval_shape(lambda: draw(None))) <= MOST_ROWS:
            return measured(draw(None))
        fixed = jax.random.fold_in(jax.random.key(KEY_OF_EVALUATION), number)
        batches = max(1, MOST_ROWS // _rows(jax.eval_shape(lambda: draw(fixed))))
        drawn = jax.lax.map(lambda key: measured(draw(key)), jax.random.split(fixed, batches))
        return jax.tree.map(lambda values: values.mean(), drawn)

    of_splits = [on(i, split) for i, split in enumerate(SPLITS)]
    return {name: jnp.stack([of[name] for of in of_splits]) for name in measures}


def _rows(batch: PyTree) -> int:
    leaves = [leaf for leaf in jax.tree.leaves(batch) if leaf.ndim]
    return leaves[0].shape[0] if leaves else 0


def start_of(task, optimizer, theta, data, key) -> inner.TrainingState:
    """The shapes of a run's state."""
    problem = _training(task, optimizer)
    return jax.eval_shape(lambda: problem.init(theta, data, 1, key))


def timed_steps(
    task: Task, optimizer: LearnedOptimizer, theta: Theta, data: PyTree, key: Key
) -> jax.stages.Lowered:
    """`TIMED` inner steps of one run alone, without measurements, for `seconds_per_step`."""
    problem = _training(task, optimizer)

    def advance(theta, data, key):
        state = problem.init(theta, data, TIMED, key)
        step = lambda i, state: problem.step(theta, state, data)[0]
        return jax.lax.fori_loop(0, TIMED, step, state).params

    return jax.jit(advance, compiler_options=compiler_options()).lower(theta, data, key)


def seconds_per_step(steps: jax.stages.Lowered, *arguments: PyTree) -> float:
    """The time of one of `timed_steps`: the best of three."""
    compiled = steps.compile()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        times.append((time.perf_counter() - start) / TIMED)
    return min(times)
