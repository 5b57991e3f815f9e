"""Inner runs for measurement: many seeds and rates at once, losses on all splits along the way.

One jitted program a task and an optimizer does runs of any length. Run i has the same member of the
task family, initialisation and batches whatever trains it, from a stream of keys that meta-training
does not draw from. A run of an optimizer that does not look at its horizon starts as its longer
ones do, so one sweep of long runs answers for all shorter ones.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metaopt.core.errors import UserError
from metaopt.core.sizes import bytes_of
from metaopt.core.types import LearnedOptimizer, PyTree, Task, Theta
from metaopt.evaluation import store
from metaopt.evaluation.runs import (
    KEY_OF_EVALUATION,
    Judged,
    compiler_options,
    runs_of,
    seconds_per_step,
    start_of,
    timed_steps,
)

LONGER = 4
"""By how much the shortest and the longest horizon differ from T."""


class Trial(NamedTuple):
    """What an optimizer did on a task.

    Attributes:
      curves: horizon -> ``[M, seeds, points + 1, 3]`` losses on the splits train, valid and test,
        for each of M thetas; point 0 is before the first step.
      seconds_per_step: of one run alone, its training steps without measurements.
      state_bytes: of the optimizer's state.
      params_bytes: of the parameters.
      accuracies: as ``curves``, fractions from 0 to 1; empty where the task has no accuracy.
    """

    curves: dict[int, np.ndarray]
    seconds_per_step: float
    state_bytes: int
    params_bytes: int
    accuracies: Mapping[int, np.ndarray] = MappingProxyType({})

    def at(self, horizon: int) -> np.ndarray:
        """Losses of runs of ``horizon`` steps.

        Raises:
          UserError: if there are none of that length, naming those that there are.
        """
        if horizon not in self.curves:
            known = ", ".join(str(one) for one in sorted(self.curves))
            raise UserError(f"there are no runs of {horizon} steps; there are of {known}.")
        return self.curves[horizon]

    def with_starts(self, horizons: tuple[int, ...], every: int) -> "Trial":
        """The same with shorter runs beside it, the starts of the longest.

        Only right for an optimizer that does not look at its horizon.
        """
        longest = max(self.curves)
        starts = lambda of: {h: of[longest][:, :, : h // every + 1] for h in horizons if of}
        return self._replace(curves=starts(self.curves), accuracies=starts(self.accuracies))


def measured_every(num_steps: int, most_points: int = 25) -> int:
    """Steps between two measurements: divides ``num_steps``, into about ``most_points`` parts.

    Examples:
      >>> measured_every(200), measured_every(8), measured_every(42)
      (8, 1, 1)
    """
    return max(d for d in range(1, max(1, num_steps // most_points) + 1) if num_steps % d == 0)


def horizons_of(num_steps: int) -> tuple[int, ...]:
    """T/4 to 4T by factors of 2, each rounded down to whole measurements.

    Examples:
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
    judged: Judged | None = None,
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
      judged: see `metaopt.evaluation.runs.runs_of`.
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
    runs = runs_of(task, optimizer, every, points, judged)
    program = jax.jit(runs, compiler_options=compiler_options())
    lowered = program.lower(thetas, keys, data, steps(horizons[0]), steps(1))
    file = None
    if cache is not None:
        arguments = (thetas, jax.random.key_data(keys), data)
        file = cache / f"{store.digest(lowered.as_text(), arguments, horizons)}.npz"
        shapes = {
            f"{name}/{h}": (*shape.shape[:2], h // every + 1, *shape.shape[3:])
            for name, shape in lowered.out_info.items()
            for h in horizons
        }
        if not anew and (kept := store.read(file, shapes, facts=3)) is not None:
            stored, (seconds, state_bytes, params_bytes) = kept
            return _trial(stored, seconds, int(state_bytes), int(params_bytes)), True
    compiled = lowered.compile()
    curves: dict[str, np.ndarray] = {}
    for h in horizons:
        with jax.debug_nans(False):  # some of the rates of a sweep diverge
            measured = compiled(thetas, keys, data, steps(h), steps(h // every))
        for name, values in measured.items():
            curves[f"{name}/{h}"] = np.asarray(values)[:, :, : h // every + 1]
    theta = jax.tree.map(lambda leaf: leaf[0], thetas)
    timed = timed_steps(task, optimizer, theta, data, keys[0])
    seconds = seconds_per_step(timed, theta, data, keys[0])
    state = start_of(task, optimizer, theta, data, keys[0])
    trial = _trial(curves, seconds, bytes_of(state.opt_state), bytes_of(state.params))
    if file is not None:
        store.write(file, curves, [seconds, trial.state_bytes, trial.params_bytes])
    return trial, False


def kept_trial(
    task: Task,
    optimizer: LearnedOptimizer,
    thetas: Theta,
    data: PyTree,
    losses: np.ndarray,
    accuracies: np.ndarray | None,
    num_steps: int,
    cache: Path | None = None,
    anew: bool = False,
) -> Trial:
    """A trial of runs whose curves are known already; its costs are measured here, once.

    Args:
      task, optimizer, thetas, data: as in `run_trial`.
      losses, accuracies: ``[M, seeds, points + 1, 3]`` of runs of ``num_steps``.
      num_steps: that.
      cache, anew: as in `run_trial`.
    """
    key = jax.random.key(KEY_OF_EVALUATION)
    theta = jax.tree.map(lambda leaf: leaf[0], thetas)
    timed = timed_steps(task, optimizer, theta, data, key)
    file = cache and cache / f"{store.digest(timed.as_text(), (), ())}.npz"
    stored = None if file is None or anew else store.read(file, {}, facts=1)
    seconds = stored[1][0] if stored else seconds_per_step(timed, theta, data, key)
    if file is not None and stored is None:
        store.write(file, {}, [seconds])
    state = start_of(task, optimizer, theta, data, key)
    measures = {} if accuracies is None else {num_steps: accuracies}
    sizes = bytes_of(state.opt_state), bytes_of(state.params)
    return Trial({num_steps: losses}, seconds, *sizes, measures)


def _trial(curves: dict[str, np.ndarray], seconds: float, state: int, params: int) -> Trial:
    """A trial from curves by ``MEASURE/HORIZON``, as the cache has them."""
    of = lambda name: {
        int(key.partition("/")[2]): values
        for key, values in curves.items()
        if key.startswith(f"{name}/")
    }
    return Trial(of("loss"), seconds, state, params, of("accuracy"))
