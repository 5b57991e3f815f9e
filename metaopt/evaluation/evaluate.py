"""An evaluation to be believed: learned optimizers against tuned baselines, on several tasks.

All train from the same fresh initialisations on the same batches; `metaopt.evaluation.measures`
says what counts. Where a task is a family, seed i gives the same member to all, and a baseline's
rate is tuned for the whole distribution.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp

from metaopt.config.schema import Component
from metaopt.core.errors import UserError
from metaopt.core.files import make_folder
from metaopt.core.types import Task
from metaopt.evaluation import grids
from metaopt.evaluation.baselines import RATES, baseline
from metaopt.evaluation.inputs import (
    Trained,
    check,
    num_steps_of,
    tasks_by_label,
    trained_by_name,
)
from metaopt.evaluation.measures import Row, summarise
from metaopt.evaluation.report import Evaluation, write
from metaopt.evaluation.trials import LONGER, Trial, horizons_of, measured_every, run_trial


def evaluate(
    optimizers: str | Path | Sequence[str | Path] | Mapping[str, Trained],
    *,
    tasks: Sequence[str | Component] | Mapping[str, Task] = (),
    baselines: Sequence[str] = ("adam", "adamw", "sgdm", "lion"),
    num_steps: int | None = None,
    seeds: int = 5,
    rates: Sequence[float] = RATES,
    split: str = "test",
    grid: bool = False,
    out: str | Path | None = None,
    anew: bool = False,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> Evaluation:
    """Every optimizer on every task, against baselines whose learning rates were swept.

    Args:
      optimizers: trained ones, each as `metaopt.load` takes it; or name -> (optimizer, theta).
      tasks: names in the catalogue, also as ``"digits_mlp:hidden=[64]"``; or name -> task, of your
        own; if none is given, those that the optimizers were trained on.
      baselines: names of baselines, as `metaopt list` shows them; the first is the reference.
      num_steps: T; if not given, that of the first optimizer's training.
      seeds: runs of each, at least 2; fewer than 5 say little.
      rates: learning rates of the sweeps.
      split: whose loss decides: ``"train"``, ``"valid"`` or ``"test"``.
      grid: also measure meta-generalisation over width, depth and horizon on ``digits_mlp``.
      out: a folder for ``report.html``, ``evaluation.json``, ``curves.npz`` and the cache, from
        which an interrupted evaluation goes on; ``None`` writes nothing.
      anew: do not use the cache.
      on_progress: called with what is about to be run, how many are done, and how many there are.

    Raises:
      UserError: naming the value at fault and the valid ones; nothing has run then.

    Example:
      >>> from metaopt.learned_optimizers import sgd
      >>> optimizer = sgd()
      >>> found = evaluate(
      ...     {"mine": (optimizer, {"log_lr": jnp.float32(-1.0)})},
      ...     tasks=["quadratic"], baselines=["sgd"], num_steps=4, seeds=2, rates=(0.1, 1.0),
      ... )
      >>> found
      <Evaluation of mine against sgd on quadratic: 2 seeds of 4 steps>
    """
    trained, origins = trained_by_name(optimizers)
    swept = {name: baseline(name) for name in dict.fromkeys(baselines)}
    check(trained, swept, seeds, rates, split)
    made = tasks_by_label(tasks, origins)
    T = num_steps if num_steps is not None else num_steps_of(origins)
    if T < 1:
        raise UserError(f"num_steps must be at least 1, got {T}.")
    every = measured_every(T)
    cache = make_folder(Path(out)) / "cache" if out is not None else None
    thetas = jnp.array(rates, jnp.float32)
    total = len(made) * (len(trained) + len(swept))
    total += grid * len(grids.WIDTHS) * len(grids.DEPTHS) * (len(trained) + 1)
    done = 0

    def run(task, what, data, optimizer, thetas, horizons, count=seeds) -> Trial:
        nonlocal done
        if on_progress is not None:
            on_progress(what, done, total)
        trial, _ = run_trial(
            task, optimizer, thetas, data,
            horizons=horizons, every=every, seeds=count, cache=cache, anew=anew,
        )  # fmt: skip
        done += 1
        return trial

    trials: dict[str, dict[str, Trial]] = {}
    rows: list[Row] = []
    for label, task in made.items():
        data, of = task.data(), {}
        for name, (optimizer, theta) in trained.items():
            alone = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], theta)
            of[name] = run(task, f"{name} on {label}", data, optimizer, alone, horizons_of(T))
        for name, optimizer in swept.items():
            of[name] = run(task, f"{name} on {label}", data, optimizer, thetas, (LONGER * T,))
        trials[label] = of
        rows += summarise(
            label, task.loss_cap, of,
            rates=tuple(rates), baselines=tuple(swept), num_steps=T, every=every, split=split,
        )  # fmt: skip
    reference, *_ = swept
    measured = grids.measure_grids(
        trained, (reference, swept[reference]), thetas,
        horizons=(horizons_of(T)[0], T, horizons_of(T)[-1]), every=every, split=split, run=run,
    ) if grid else ()  # fmt: skip
    found = Evaluation(
        optimizers=tuple(trained),
        baselines=tuple(swept),
        tasks=tuple(made),
        num_steps=T,
        every=every,
        seeds=seeds,
        rates=tuple(rates),
        split=split,
        trials=trials,
        caps={label: task.loss_cap for label, task in made.items()},
        rows=tuple(rows),
        grids=measured,
    )
    if out is not None:
        write(found, Path(out))
    return found
