"""Several recipes and seeds, side by side: trained one after the other, then drawn together."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optax
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from rich.text import Text

from metaopt.config.schema import Component
from metaopt.core.errors import UserError
from metaopt.core.files import json_text, make_folder, write_atomically
from metaopt.core.interval import interval
from metaopt.core.own_numbers import own_numbers
from metaopt.core.types import LearnedOptimizer, Task, UnrolledProblem
from metaopt.parallel.processes import is_primary
from metaopt.plotting.style import to_png
from metaopt.training import plots
from metaopt.training.entries import Entry, entries
from metaopt.training.experiment import NOTHING, Own
from metaopt.training.lock import only_writer
from metaopt.training.run import meta_train
from metaopt.training.run_curves import AXES, RunCurves, run_curves


@dataclass(frozen=True, repr=False)
class Sweep:
    """How the lines of a comparison went.

    Attributes:
      curves: of each line, in the order in which they were named.
    """

    curves: tuple[RunCurves, ...]

    def table(self) -> Table:
        """Where each line ended, over its seeds, its best, and what it took; for a terminal.

        ``last`` is the last value of a test metric, or the mean of the last tenth of meta-losses:
        its mean over seeds ± 95% (Student's t), and its range over them.
        """
        first = self.curves[0]
        higher = first.metric is not None and first.metric.higher_is_better
        last = "last tenth" if first.metric is None else "last"
        direction = ", lower is better" * (not higher)
        title = f"{first.title}{direction}; mean over seeds ± 95%"
        table = Table(title=Text(title), box=None, pad_edge=False)
        longest = max(len(one.name) for one in self.curves)
        table.add_column("", overflow="fold", min_width=min(longest, 24))
        best = "highest" if higher else "lowest"
        for head in ("seeds", last, "range", best, "updates", "unrolled", "seconds"):
            table.add_column(head, justify="right", no_wrap=True)
        for one in self.curves:
            ends, several = one.last, len(one.last) > 1
            mean = str(interval(ends)) if several else f"{ends[0]:.4g}"
            spread = f"{ends.min():.3g}..{ends.max():.3g}" if several else "–"
            axes = [axis for axis in AXES if axis != "sequential_steps"]  # it is in the picture
            numbers = [f"{one.axes[axis][-1]:.3g}" for axis in axes]
            table.add_row(Text(one.name), str(len(ends)), mean, spread, f"{one.best:.4g}", *numbers)
        return table

    def plot(self) -> Figure:
        """A matplotlib figure: mean over seeds against each of the axes, the range as a band."""
        return plots.run_curves(self.curves)

    def to_json(self) -> str:
        """The curves as JSON; a value that was not finite is null."""
        return json_text(self.curves)

    def __repr__(self) -> str:
        names = ", ".join(one.name for one in self.curves)
        seeds = max(len(one.values) for one in self.curves)
        return f"<Sweep of {names}: {self.curves[0].title}, {seeds} seed{'s' * (seeds > 1)}>"


def compare(
    what: str | Path | Sequence[Any] | Mapping[str, Any],
    *,
    problem: str | Component | UnrolledProblem | None = None,
    task: Task | None = None,
    optimizer: LearnedOptimizer | None = None,
    tx: optax.GradientTransformation | None = None,
    name: str | None = None,
    seeds: int = 1,
    outer_steps: int | None = None,
    out: str | Path = "runs/compare",
    devices: int | None = None,
    quiet: bool = False,
) -> Sweep:
    """Trains several things with several seeds, and reads how they went; `metaopt.compare`.

    Runs below ``out`` that exist are resumed, or only read where they are finished.
    ``compare.json`` and ``compare.png`` are written there, too.

    Args:
      what: names of recipes, and runs that exist: a `metaopt.Run` or its directory, or a folder of
        ``seed0``, ``seed1``, .... Or name -> one of these, a `metaopt.Config`, the options of an
        estimator such as ``metaopt.estimators.PES()``, or several runs, one a seed.
      problem: what all unroll instead of their own problems: a name in the catalogue, or a problem
        of your own. Runs that exist are as they are.
      task, optimizer, tx: as for `metaopt.train`, for all.
      name: what to call what you hand over; see `metaopt.train`.
      seeds: runs of each, with the seeds 0, 1, ...
      outer_steps: updates of theta; each one's own if not given.
      out: where the runs go, as ``NAME/seedN``.
      devices: see `metaopt.train`.
      quiet: print nothing.

    Raises:
      UserError: for an unknown recipe or run, nothing to compare or no seed, or what
        `metaopt.train` refuses; before the first run starts.
      KeyboardInterrupt: where a signal asked for a stop; everything so far is saved then.

    Examples:
      >>> import tempfile
      >>> from metaopt.estimators import NRES, PES
      >>> from metaopt.tasks import linear_recursion
      >>> sizes = {"particles": 4, "horizon": 4, "window": 2, "sigma": 0.1}
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     compare(
      ...         {"nres": NRES(**sizes), "pes": PES(**sizes)},
      ...         problem=linear_recursion(), name="mine", seeds=2, outer_steps=3,
      ...         out=folder, quiet=True,
      ...     )
      <Sweep of nres, pes: meta-loss, 2 seeds>
    """
    own = Own(problem if isinstance(problem, UnrolledProblem) else None, task, optimizer, None, tx)
    named = Component(problem) if isinstance(problem, str) else problem
    chosen = entries(
        what,
        problem=named if isinstance(named, Component) else None,
        own=own,
        name=name,
        outer_steps=outer_steps,
    )
    console = Console(quiet=quiet or not is_primary())
    if train_all(chosen, seeds, Path(out), devices=devices, console=console, own=own) is not None:
        raise KeyboardInterrupt
    return read(chosen, seeds, Path(out))


def train_all(
    chosen: Mapping[str, Entry],
    seeds: int,
    out: Path,
    *,
    devices: int | None,
    console: Console,
    own: Own = NOTHING,
) -> int | None:
    """Trains what of a comparison is no run yet; returns as `metaopt.training.run.meta_train`.

    Raises:
      UserError: for nothing to compare, or no seed; before the first run starts.
    """
    if not chosen or seeds < 1:
        raise UserError(
            f"compare needs at least one recipe or run and one seed, got {len(chosen)} and {seeds}."
        )
    for name, entry in chosen.items():
        if isinstance(entry, tuple):
            continue
        for seed in range(seeds):
            console.print(f"{name}/seed{seed}:", highlight=False, markup=False)
            config = dataclasses.replace(entry, seed=seed)
            folder = out / name / f"seed{seed}"
            with only_writer(folder), own_numbers(own.double):
                stopped = meta_train(config, folder, devices=devices, console=console, own=own)
            if stopped is not None:
                return stopped
    return None


def read(chosen: Mapping[str, Entry], seeds: int, out: Path) -> Sweep:
    """A sweep from its finished runs; process 0 also writes its files."""
    folders = {
        name: entry if isinstance(entry, tuple) else [out / name / f"seed{n}" for n in range(seeds)]
        for name, entry in chosen.items()
    }
    sweep = Sweep(run_curves(folders))
    if is_primary():
        write_atomically(make_folder(out) / "compare.json", sweep.to_json())
        write_atomically(out / "compare.png", to_png(sweep.plot()))
    return sweep
