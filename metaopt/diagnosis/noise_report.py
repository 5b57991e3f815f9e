"""Kinds of noise for people and programs: a table and ``noises.json``."""

from collections.abc import Sequence
from pathlib import Path

import jax
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from metaopt.core.errors import UserError
from metaopt.core.files import json_text, make_folder, write_atomically
from metaopt.core.sizes import count_of
from metaopt.diagnosis.candidates import noise_candidates, subject_of, window_of
from metaopt.diagnosis.diagnose import affordable_budget
from metaopt.diagnosis.noises import RUNS, NoiseRow, compare_noises
from metaopt.diagnosis.report import KEY_OF_DIAGNOSIS, progress
from metaopt.plotting.terminal import print_table

LEAST_UPDATES = 10
"""Updates in each run, at least: fewer say little of a variance."""


def report_noises(
    target: str,
    console: Console,
    *,
    estimators: Sequence[str],
    noises: Sequence[str],
    budget: int | None = None,
    out: Path | None = None,
) -> list[NoiseRow]:
    """Compares kinds of noise at a recipe's or a run's theta, prints the table, writes the file.

    Args:
      target: as in `metaopt.diagnosis.candidates.subject_of`. Particles, window and stagger are
        its own.
      console: where progress and table go.
      estimators: evolution strategies; the target's own where none is named.
      noises: kinds; each is compared to ``"gaussian"``.
      budget: unroll steps for each; what takes some tens of seconds here if not given.
      out: the folder for the file; ``runs/diagnose-NAME`` if not given.

    Raises:
      UserError: naming the value at fault; nothing has run then.
    """
    if budget is not None and budget < 1:
        raise UserError(f"budget must be at least 1 unroll step, got {budget}.")
    subject = subject_of(target)
    names = list(dict.fromkeys(estimators)) or [subject.config.estimator.name]
    kinds = list(dict.fromkeys(["gaussian", *noises]))
    chosen = {
        name: noise_candidates(subject.config, subject.problem, name, kinds) for name in names
    }
    out = out or Path("runs") / f"diagnose-{subject.name}"
    make_folder(out)
    key = jax.random.fold_in(jax.random.key(subject.config.seed), KEY_OF_DIAGNOSIS)
    say = lambda text: console.print(text, highlight=False, soft_wrap=True, markup=False)
    particles, data = subject.config.estimator.particles, subject.problem.data()
    say(f"Diagnosing {subject.description}: {len(kinds)} kinds of noise, N = {particles}.")
    rows: list[NoiseRow] = []
    for name, (one, made) in chosen.items():
        if budget is None:
            budget = affordable_budget(one, subject.theta, data, key=key)
            say(f"{budget:,} unroll steps each (--budget {budget} repeats it).")
        an_update = 2 * particles * one.horizon // one.windows
        with progress(console, kinds) as on_progress:
            rows += compare_noises(
                subject.theta,
                data,
                [(name, kind, estimator) for kind, estimator in zip(kinds, made, strict=True)],
                particles=particles,
                episode=one.windows,
                updates=max(LEAST_UPDATES, budget // RUNS // an_update),
                key=key,
                on_progress=on_progress,
            )
    parameters = count_of(subject.theta)
    content = {
        "of": {
            "subject": subject.description,
            "parameters": parameters,
            "horizon": subject.config.estimator.horizon,
            "window": window_of(subject.config.estimator),
            "seed": subject.config.seed,
            "budget": budget,
        },
        "noises": [row._asdict() | {"verdict": row.verdict} for row in rows],
    }
    write_atomically(out / "noises.json", json_text(content, indent=2))
    print_table(console, _table(rows, parameters))
    say(f"Written: {out / 'noises.json'}")
    return rows


def _table(rows: Sequence[NoiseRow], parameters: int) -> Table:
    caption = (
        f"tr Cov of the mean estimate of N = {rows[0].particles} pairs at a theta of "
        f"{parameters:,} number{'s' * (parameters != 1)} that stands still, over "
        f"{rows[0].updates:,} updates in {RUNS} runs, ± standard error; and over that of gaussian "
        "noise. “same”: within two standard errors of it."
    )
    if lost := sum(row.nonfinite for row in rows):
        caption += f" {lost:,} particles were not finite and left out."
    table = Table("estimator", "noise", caption=caption, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("tr Cov", "over gaussian", ""):
        table.add_column(column, justify="right")
    for row in rows:
        is_first = row.noise == "gaussian"
        table.add_row(
            Text(row.estimator),
            row.noise,
            f"{row.variance:.3g} ± {row.variance_error:.1g}",
            "1" if is_first else f"{row.ratio:.3f} ± {row.ratio_error:.3f}",
            "" if is_first else row.verdict,
        )
    return table
