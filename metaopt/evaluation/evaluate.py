"""An evaluation to be believed: learned optimizers against tuned baselines, on several tasks.

All train from the same fresh initialisations on the same batches; `metaopt.evaluation.measures`
says what counts. Where a task is a family, seed i gives the same member to all, and a baseline's
rate is tuned for the whole distribution.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp

from metaopt.config.registry import choose
from metaopt.config.schema import Component
from metaopt.core.errors import UserError
from metaopt.core.files import disk_fault, make_folder
from metaopt.core.own_numbers import are_double, own_numbers
from metaopt.core.types import Task
from metaopt.evaluation import grids
from metaopt.evaluation.baselines import (
    RATES,
    baseline,
    baseline_of,
    by_label,
    settings_of,
    stacked,
)
from metaopt.evaluation.inputs import (
    Trained,
    TrainedOn,
    check,
    num_steps_of,
    tasks_by_label,
    trained_by_name,
)
from metaopt.evaluation.measures import Row, summarise
from metaopt.evaluation.outside import in_trained_range
from metaopt.evaluation.report import Evaluation, write
from metaopt.evaluation.suite_curves import Kept, SuiteCurves, curves_for, start_alike
from metaopt.evaluation.suites import SUITE_BASELINES, SUITES
from metaopt.evaluation.trials import Trial, horizons_of, kept_trial, measured_every, run_trial
from metaopt.training.run import Run
from metaopt.training.save import hardware, versions

OnProgress = Callable[[str, int, int], None]

DEFAULT_BASELINES = ("adam", "adam_cosine", "adamw", "adamw_cosine", "sgdm", "lion")


def evaluate(
    optimizers: str | Path | Run | Sequence[str | Path | Run] | Mapping[str, Trained | Run],
    *,
    tasks: Sequence[str | Component] | Mapping[str, Task] = (),
    suite: str | None = None,
    baselines: Sequence[str] | None = None,
    num_steps: int | None = None,
    seeds: int | None = None,
    rates: Sequence[float] = RATES,
    tune: Sequence[str] = ("rate",),
    split: str = "test",
    grid: bool = False,
    out: str | Path | None = None,
    anew: bool = False,
    on_progress: OnProgress | None = None,
) -> Evaluation:
    """Every optimizer on every task, against baselines whose learning rates were swept.

    Args:
      optimizers: trained ones, each as `metaopt.load` takes it; or name -> (optimizer, theta), or
        -> the `metaopt.Run` that `metaopt.train` returned.
      tasks: names in the catalogue, also as ``"digits_mlp:hidden=[64]"``; or name -> task, of your
        own; if none is given, all those that the optimizers were trained on.
      suite: the tasks of a `metaopt.evaluation.suites.Suite` instead, with its steps and seeds
        where no others are given; only runs of that many steps. Baselines whose curves on it are
        shipped with metaopt are not run again.
      baselines: names of baselines, as `metaopt list` shows them; the first is the reference. If
        not given, `DEFAULT_BASELINES`, or those of the suites. Also ``NAME_cosine`` for a trained
        optimizer NAME that leaves the rate to its user: its rate is swept, too.
      num_steps: T; if not given, that of the first optimizer's training.
      seeds: runs of each, at least 2, 5 if not given; fewer than 5 say little.
      rates: learning rates of the sweeps.
      tune: what the sweeps turn: ``"rate"``; also ``"decay"``, three weight decays where a
        baseline has one; also ``"schedule"``, a constant rate and a cosine. All combinations.
      split: whose loss decides: ``"train"``, ``"valid"`` or ``"test"``.
      grid: also measure meta-generalisation over width, depth and horizon on ``digits_mlp``.
      out: a folder for ``report.html``, ``evaluation.json``, ``curves.npz`` and the cache, from
        which an interrupted evaluation resumes; ``None`` writes nothing.
      anew: use neither the cache nor shipped curves.
      on_progress: called with what is about to be run, how many are done, and how many there are.

    Raises:
      UserError: naming the value at fault and the valid ones; nothing has run then. Or where the
        disk is full: what was measured is in the cache.

    Examples:
      >>> from metaopt.learned_optimizers import sgd
      >>> optimizer = sgd()
      >>> found = evaluate(
      ...     {"mine": (optimizer, {"log_lr": jnp.float32(-1.0)})},
      ...     tasks=["quadratic"], baselines=["sgd"], num_steps=4, seeds=2, rates=(0.1, 1.0),
      ... )
      >>> found
      <Evaluation of mine against sgd on quadratic: 2 seeds of 4 steps>
    """
    trained, known = trained_by_name(optimizers)
    tune = (tune,) if isinstance(tune, str) else tuple(tune)
    baselines = (baselines,) if isinstance(baselines, str) else baselines
    shipped = None
    if baselines is None:
        baselines = DEFAULT_BASELINES if suite is None else SUITE_BASELINES
    if suite is not None:
        if tasks:
            raise UserError("give tasks or a suite, not both.")
        chosen = choose("suite", str(suite), SUITES)
        tasks = tuple(chosen.tasks)
        num_steps = chosen.num_steps if num_steps is None else num_steps
        seeds = chosen.seeds if seeds is None else seeds
        if not anew:
            shipped = curves_for(suite, num_steps, seeds, rates, tune)
    own = isinstance(tasks, Mapping)
    with _disk_faults(out), own_numbers(own and are_double()):
        found = measure(
            trained, known,
            tasks=tasks, baselines=baselines, num_steps=num_steps,
            seeds=5 if seeds is None else seeds, rates=rates, tune=tune, split=split, grid=grid,
            is_at_one_length=suite is not None, shipped=shipped, anew=anew, on_progress=on_progress,
            cache=None if out is None else Path(out) / "cache",
        )  # fmt: skip
        found = replace(found, suite="" if suite is None else suite)
        if out is not None:
            write(found, Path(out))
    return found


@contextmanager
def _disk_faults(out: str | Path | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = disk_fault(error)
        if out is None or reason is None:
            raise
        raise UserError(
            f"{out} cannot be written ({reason}): mend that, and the same command resumes."
        ) from error


def measure(
    trained: Mapping[str, Trained],
    known: Mapping[str, TrainedOn],
    *,
    tasks: Sequence[str | Component] | Mapping[str, Task],
    baselines: Sequence[str],
    num_steps: int | None,
    seeds: int,
    rates: Sequence[float] = RATES,
    tune: Sequence[str] = ("rate",),
    split: str = "test",
    grid: bool = False,
    is_at_one_length: bool = False,
    shipped: SuiteCurves | None = None,
    cache: Path | None = None,
    anew: bool = False,
    on_progress: OnProgress | None = None,
) -> Evaluation:
    """The same of optimizers that are read already; writes nothing but the cache.

    Args:
      trained: name -> (optimizer, theta).
      known: what those that say it were trained on.
      is_at_one_length: whether there are only runs of T steps, none that are shorter or longer.
      shipped: sweeps that are not run again, where their runs start as the others do.
      cache: a folder with the trials of earlier calls.
      tasks, baselines, num_steps, seeds, rates, tune, split: see `evaluate`.
      grid, anew, on_progress: see `evaluate`.
    """
    called = by_label(baselines)
    swept = {label: baseline(name) for label, name in called.items()}
    shipped = shipped or SuiteCurves()
    check(trained, swept, seeds, rates, split)
    made = tasks_by_label(tasks, known)
    T = num_steps if num_steps is not None else num_steps_of(known)
    if T < 1:
        raise UserError(f"num_steps must be at least 1, got {T}.")
    if cache is not None:
        make_folder(cache.parent)
    every, (reference, *_) = measured_every(T), swept
    alone = lambda theta: jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], theta)
    thetas = {name: alone(theta) for name, (_, theta) in trained.items()}
    settings = {label: settings_of(name, rates, tune) for label, name in called.items()}
    thetas |= {name: stacked(of) for name, of in settings.items()}
    rules = {name: optimizer for name, (optimizer, _) in trained.items()} | swept
    lengths = (T,) if is_at_one_length else horizons_of(T)
    total = len(made) * len(rules)
    total += grid * len(grids.WIDTHS) * len(grids.DEPTHS) * (len(trained) + 1)
    done = 0

    used: list[str] = []
    trials: dict[str, dict[str, Trial]] = {label: {} for label in made}

    def run(task, label, data, name, horizons, count=seeds) -> Trial:
        nonlocal done
        if on_progress is not None:
            on_progress(f"{name} on {label}", done, total)
        done += 1
        of = task, rules[name], thetas[name], data
        if kept := _usable(shipped, label, name, trials.get(label, {}), count, T):
            used.append(name)
            return kept_trial(*of, kept.loss, kept.accuracy, T, cache, anew)
        one = baseline_of(called[name]) if name in swept else None
        constant = one is not None and one.schedule is None and settings[name][0].cosine is None
        trial, _ = run_trial(
            *of, horizons=horizons[-1:] if constant else horizons, every=every, seeds=count,
            judged=one and one.judged, cache=cache, anew=anew,
        )  # fmt: skip
        return trial.with_starts(horizons, every) if constant else trial

    rows: list[Row] = []
    for label, task in made.items():
        data = task.data()
        # Of the other baselines only the runs of T steps are read.
        read = lambda name: (T,) if name in swept and name != reference else lengths
        for name in rules:
            trials[label][name] = run(task, label, data, name, read(name))
        rows += summarise(
            label, task.loss_cap, trials[label],
            settings=settings, num_steps=T, every=every, split=split,
        )  # fmt: skip
    sizes = (horizons_of(T)[0], T, horizons_of(T)[-1])
    return Evaluation(
        optimizers=tuple(trained),
        baselines=tuple(swept),
        tasks=tuple(made),
        num_steps=T,
        every=every,
        seeds=seeds,
        rates=tuple(rates),
        settings=settings,
        split=split,
        trials=trials,
        caps={label: task.loss_cap for label, task in made.items()},
        rows=tuple(rows),
        grids=grids.measure_grids(trained, reference, horizons=sizes, split=split, run=run)
        if grid
        else (),
        ranges={
            label: {name: in_trained_range(known.get(name), label, task, T) for name in trained}
            for label, task in made.items()
        },
        horizons=lengths,
        shipped=_words_on(used, shipped),
        costs={name: known[name].cost for name in trained if name in known and known[name].cost},
        machine=f"{hardware()}; {', '.join(f'{name} {v}' for name, v in versions().items())}",
    )


def _usable(
    shipped: SuiteCurves, label: str, name: str, known: Mapping[str, Trial], seeds: int, T: int
) -> Kept | None:
    """Shipped losses and accuracies of a sweep; ``None`` if there are none, or it starts elsewhere.

    Args:
      shipped: all sweeps.
      label, name: of the task and the baseline.
      known: trials on that task so far.
      seeds, T: of the evaluation.
    """
    kept = shipped.sweeps.get((label, name))
    if kept is None or not known or not start_alike(kept, next(iter(known.values())).at(T)):
        return None
    accuracy = None if kept.accuracy is None else kept.accuracy[:, :seeds]
    return Kept(kept.loss[:, :seeds], accuracy)


def _words_on(used: Sequence[str], shipped: SuiteCurves) -> str:
    """Which baselines were not run here, in a sentence."""
    if not used:
        return ""
    names = ", ".join(dict.fromkeys(used))
    where = f"are shipped with metaopt ({shipped.about})"
    return f"The curves of {names} {where}; step times are measured here."
