"""An evaluation to be believed: learned optimizers against tuned baselines, on several tasks.

All train from the same fresh initialisations on the same batches; `metaopt.evaluation.measures`
says what counts. Where a task is a family, seed i gives the same member to all, and a baseline's
rate is tuned for the whole distribution.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metaopt.config import Component, from_json
from metaopt.errors import UserError
from metaopt.evaluation import grids
from metaopt.evaluation.baselines import BASELINES, RATES, baseline
from metaopt.evaluation.grids import Grid
from metaopt.evaluation.measures import Row, best, counted, mean_losses, summarise
from metaopt.evaluation.statistics import (
    Range,
    interquartile_mean,
    probability_of_improvement,
    with_interval,
)
from metaopt.evaluation.trials import SPLITS, Trial, measured_every, run_trial
from metaopt.experiment import make
from metaopt.pretrained import artefact
from metaopt.pretrained import load as pretrained
from metaopt.pretrained.shipped import find
from metaopt.registry import catalogue, choose
from metaopt.run.directory import write_atomically
from metaopt.types import LearnedOptimizer, Task, Theta

LONGER = 4
"""How many times T the baselines run, and by how much the horizons differ from T."""

Trained = tuple[LearnedOptimizer, Theta]


class Aggregate(NamedTuple):
    """An optimizer over all tasks; each with a 95% interval of the stratified bootstrap.

    Attributes:
      optimizer: its name.
      score, speedup: interquartile means; see `metaopt.evaluation.measures`.
      improvement: the probability that a run of it scores above one of the reference baseline.
      bounded: whether some of the speed-ups are only lower bounds.
      diverged, runs: how many did, of how many.
    """

    optimizer: str
    score: Range
    speedup: Range
    improvement: Range
    bounded: bool
    diverged: int
    runs: int


@dataclass(frozen=True, repr=False)
class Evaluation:
    """What `evaluate` found; shows itself in a notebook.

    Attributes:
      optimizers, baselines, tasks: names; the first baseline is the reference.
      num_steps: T, inner steps of a run.
      every: inner steps between two measurements.
      seeds: runs of each optimizer, and each rate, on each task.
      rates: ``[R]`` learning rates of the baselines' sweeps.
      split: the split whose loss decides: rates, scores, speed-ups.
      trials: task -> optimizer -> all loss curves.
      caps: task -> the largest loss that counts, ``None`` for the loss before the first step.
      rows: a row for each task and optimizer.
      grids: meta-generalisation, where it was asked for.
    """

    optimizers: tuple[str, ...]
    baselines: tuple[str, ...]
    tasks: tuple[str, ...]
    num_steps: int
    every: int
    seeds: int
    rates: tuple[float, ...]
    split: str
    trials: dict[str, dict[str, Trial]]
    caps: dict[str, float | None]
    rows: tuple[Row, ...]
    grids: tuple[Grid, ...] = ()

    @property
    def reference(self) -> str:
        """The baseline that scores and speed-ups are relative to."""
        return self.baselines[0]

    def curves(self, task: str, optimizer: str, horizon: int | None = None) -> np.ndarray:
        """Counted losses ``[M, seeds, points + 1, 3]`` at M rates; of T steps if not said."""
        trial = self.trials[task][optimizer]
        return counted(trial.at(horizon or self.num_steps, self.every), self.caps[task])

    def tuned(self, task: str, optimizer: str, horizon: int | None = None) -> np.ndarray:
        """The same ``[seeds, points + 1, 3]`` at the rate with the best mean loss on ``split``."""
        losses = self.curves(task, optimizer, horizon)
        return losses[best(mean_losses(losses, self.split))]

    def stacked(self, optimizer: str, what: str) -> np.ndarray:
        """``[tasks, seeds]`` of a field: ``"scores"``, ``"speedups"`` or ``"bounded"``."""
        return np.stack([getattr(row, what) for row in self.rows if row.optimizer == optimizer])

    def aggregates(self) -> list[Aggregate]:
        """Every optimizer over all tasks, learned ones first."""
        reference = self.stacked(self.reference, "scores")

        def of(name: str) -> Aggregate:
            scores, speedups = self.stacked(name, "scores"), self.stacked(name, "speedups")
            # Against itself it is one half; two samples of the same runs would add nothing.
            half = Range(0.5, 0.5, 0.5)
            return Aggregate(
                optimizer=name,
                score=with_interval(interquartile_mean, scores),
                speedup=with_interval(interquartile_mean, speedups),
                improvement=half
                if name == self.reference
                else with_interval(probability_of_improvement, scores, reference),
                bounded=bool(self.stacked(name, "bounded").any()),
                diverged=sum(row.diverged for row in self.rows if row.optimizer == name),
                runs=scores.size,
            )

        return [of(name) for name in (*self.optimizers, *self.baselines)]

    def table(self):
        """A `rich.table.Table` of every optimizer on every task."""
        from metaopt.evaluation.report import table

        return table(self)

    def summary(self):
        """A `rich.table.Table` of the aggregates over all tasks."""
        from metaopt.evaluation.report import summary

        return summary(self)

    def plot_curves(self):
        """A matplotlib figure: loss against inner step with 95% bands, a panel a task."""
        from metaopt.evaluation.figures import curves

        return curves(self)

    def to_html(self) -> str:
        """A self-contained page with all pictures."""
        from metaopt.evaluation.report import page

        return page(self)

    def to_json(self) -> str:
        """All numbers but the curves; a number that is not finite is null."""
        from metaopt.evaluation.report import to_json

        return to_json(self)

    def _repr_html_(self) -> str:
        from metaopt.evaluation.report import body

        return body(self)

    def __repr__(self) -> str:
        return (
            f"<Evaluation of {', '.join(self.optimizers)} against {', '.join(self.baselines)} on "
            f"{', '.join(self.tasks)}: {self.seeds} seeds of {self.num_steps} steps>"
        )


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
      baselines: names in `metaopt.evaluation.baselines.BASELINES`; the first is the reference.
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
      >>> from learned_optimizers import sgd
      >>> optimizer = sgd()
      >>> found = evaluate(
      ...     {"mine": (optimizer, {"log_lr": jnp.float32(-1.0)})},
      ...     tasks=["quadratic"], baselines=["sgd"], num_steps=4, seeds=2, rates=(0.1, 1.0),
      ... )
      >>> found
      <Evaluation of mine against sgd on quadratic: 2 seeds of 4 steps>
    """
    trained, origins = _trained(optimizers)
    swept = {name: baseline(name) for name in dict.fromkeys(baselines)}
    _check(trained, swept, seeds, rates, split)
    made = _made(tasks, origins)
    T = num_steps if num_steps is not None else _num_steps_of(origins)
    if T < 1:
        raise UserError(f"num_steps must be at least 1, got {T}.")
    every = measured_every(T)
    cache = _folder(out) / "cache" if out is not None else None
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
        _write(found, Path(out))
    return found


def horizons_of(num_steps: int) -> tuple[int, ...]:
    """T/4 to 4T by factors of 2, each rounded down to whole measurements.

    Example:
      >>> horizons_of(200), horizons_of(2)
      ((48, 96, 200, 400, 800), (1, 2, 4, 8))
    """
    every = measured_every(num_steps)
    exact = (num_steps // 4, num_steps // 2, num_steps, 2 * num_steps, 4 * num_steps)
    return tuple(sorted({max(every, h // every * every) for h in exact}))


def _trained(optimizers) -> tuple[dict[str, Trained], list[str | Path]]:
    """Optimizers by name, and where they came from."""
    if isinstance(optimizers, Mapping):
        return dict(optimizers), []
    if isinstance(optimizers, str | Path):
        optimizers = [optimizers]
    short = [Path(one).resolve().name for one in optimizers]
    found = {}
    for one, name in zip(optimizers, short, strict=True):
        name = str(one) if short.count(name) > 1 else name
        found[f"learned {name}" if name in BASELINES else name] = pretrained.read(one)
    return found, list(optimizers)


def _check(trained, swept, seeds, rates, split) -> None:
    if not trained:
        raise UserError("name at least one trained optimizer.")
    if not swept:
        raise UserError(f"name at least one baseline; valid: {', '.join(sorted(BASELINES))}.")
    if both := sorted(set(trained) & set(swept)):
        raise UserError(f"{both[0]!r} is a baseline's name: call the trained optimizer otherwise.")
    if seeds < 2:
        raise UserError(f"seeds must be at least 2, got {seeds}.")
    if not rates or not all(rate > 0 for rate in rates):
        raise UserError(f"rates must be positive numbers, at least one, got {tuple(rates)}.")
    choose("split", split, dict.fromkeys(SPLITS))


def _made(tasks, origins) -> dict[str, Task]:
    if isinstance(tasks, Mapping):
        if not tasks:
            raise UserError("name at least one task.")
        return dict(tasks)
    if isinstance(tasks, str):
        tasks = [tasks]
    components = [_component(task) for task in tasks] or _tasks_of(origins)
    return {_label(component): make("task", component) for component in components}


def _component(task: str | Component) -> Component:
    if isinstance(task, Component):
        return task
    name, *args = re.split(r":(?=\w+=)", task)
    return Component(name, tuple(args))


def _label(component: Component) -> str:
    return ":".join((component.name, *component.args))


def _described(origin: str | Path) -> tuple[Component, int] | None:
    """The task and the horizon that a trained optimizer comes from, where that is known."""
    try:
        recipe = artefact.read_artefact(find(origin)).description["recipe"]
        config = from_json(json.dumps(recipe))
    except (KeyError, UserError):  # imported, say
        return None
    return config.task, config.evaluation.num_steps or config.estimator.horizon


def _tasks_of(origins: list[str | Path]) -> list[Component]:
    known = [found[0] for origin in origins if (found := _described(origin)) is not None]
    if not known:
        names = ", ".join(sorted(catalogue("task")))
        raise UserError(f"no task is given, and the optimizers name none; valid tasks: {names}.")
    return list(dict.fromkeys(known))


def _num_steps_of(origins: list[str | Path]) -> int:
    for origin in origins:
        if (found := _described(origin)) is not None:
            return found[1]
    raise UserError("num_steps is not given, and the optimizers do not say theirs.")


def _folder(out: str | Path) -> Path:
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{out} cannot be used ({error.strerror}): choose another folder."
        ) from error
    return out


def _write(found: Evaluation, out: Path) -> None:
    import io

    curves: dict[str, Any] = {
        f"{task}/{name}/{horizon}": losses
        for task, of in found.trials.items()
        for name, trial in of.items()
        for horizon, losses in trial.curves.items()
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **curves)
    write_atomically(out / "curves.npz", buffer.getvalue())
    write_atomically(out / "evaluation.json", found.to_json())
    write_atomically(out / "report.html", found.to_html())
