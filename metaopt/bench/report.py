"""What `metaopt bench` shows: tables, JSON and the scaling curves."""

from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from metaopt.bench import outer_steps as bench
from metaopt.bench import plots
from metaopt.bench import scaling as bench_scaling
from metaopt.bench import update as bench_update
from metaopt.config.registry import choose
from metaopt.core.files import json_text, make_folder, write_atomically
from metaopt.plotting.style import to_png
from metaopt.plotting.terminal import print_table


def report_bench(
    console: Console,
    *,
    names: tuple[str, ...],
    seconds: float,
    repeats: int,
    devices: int | None,
    update: bool,
    scaling: bool,
    tasks: bool,
    profile: bool,
    out: Path,
) -> None:
    """Runs what is asked for, shows it as it comes, and writes ``bench.json`` and pictures.

    Args:
      console: where to show it.
      names: cases, or families of tasks; all cases where there are none and nothing else is asked
        for.
      seconds: how long to time each case's outer steps for.
      repeats: how often each case runs, in turns with the others.
      devices: as for `metaopt train`.
      update: time one update of every learned optimizer on a large tree.
      scaling: measure cost and memory against N, W, T, the inner size, d and the devices.
      tasks: time the first member of every family of tasks, where none is in ``names``.
      profile: write a JAX trace of each case.
      out: folder; files of the same name are replaced.

    Raises:
      UserError: for an unknown case, or a folder that cannot be made.
    """
    every, of_tasks = bench.cases(), bench.task_cases()
    families = {name.removeprefix("task_"): name for name in of_tasks}
    names = tuple(name if name in every else families.get(name, name) for name in names)
    for name in names:
        choose("case", name, every | of_tasks)
    if not names and not update and not scaling and not tasks:
        names = tuple(every)
    if tasks and not set(names) & set(of_tasks):
        names += tuple(of_tasks)
    make_folder(out)
    found: dict[str, Any] = {}

    def keep(part: str, figures: Any) -> None:
        found[part] = figures
        write_atomically(out / "bench.json", json_text(found, indent=2))

    load, rows = bench.load(), {}
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for number in range(repeats):  # in turns: what sways a machine sways all of them
        for name in names:
            with console.status(f"{name}, {number + 1} of {repeats} ..."):
                folder = out / f"trace-{name}" if profile and not number else None
                done = bench.run_case(name, seconds=seconds, devices=devices, profile=folder)
            rounds[name].append(done)
            rows[name] = bench.in_turns(rounds[name])
            keep("cases", rows)
            if not console.is_terminal:
                console.print(f"{name}: {done['steps_per_s']:,.0f} unroll steps/s")
    if rows:
        keep("load_before", load)
        print_table(console, _cases(rows, load, repeats))
        for name, row in rows.items():
            if "open_loop_fraction" in row:
                console.print(
                    f"{name}: {row['open_loop_fraction']:.0%} of the "
                    f"{row['open_loop_steps_per_s']:,.0f} steps/s of mujoco.rollout by itself"
                )
    if update:
        keep("update", bench_update.time_updates(console))
        print_table(console, _updates(found["update"]))
        keep("mlp_update", bench_update.time_mlp_updates(console))
        print_table(console, _mlp_updates(found["mlp_update"]))
    if scaling:
        keep("scaling", bench_scaling.time_scaling(console))
        keep("devices", bench_scaling.efficiencies(found["scaling"]))
        print_table(console, _devices(found["devices"]))
        names = (*bench_scaling.AXES, bench_scaling.STRONG, bench_scaling.WEAK)
        picture = to_png(plots.scaling(found["scaling"], names))
        write_atomically(out / "scaling.png", picture)
        console.print(
            f"Picture: {out / 'scaling.png'}", highlight=False, soft_wrap=True, markup=False
        )
    console.print(f"Figures: {out / 'bench.json'}", highlight=False, soft_wrap=True, markup=False)


def _cases(rows: dict[str, dict[str, Any]], load: float, repeats: int) -> Table:
    table = Table(
        title="Outer steps; medians", title_justify="left", box=SIMPLE, padding=(0, 1),
        pad_edge=False,
    )  # fmt: skip
    for heading in (
        "case",
        "steps/s",
        "ms",
        "first s",
        "cached",
        "flops",
        "bytes",
    ):
        table.add_column(heading, justify="left" if heading == "case" else "right", no_wrap=True)
    for name, row in rows.items():
        table.add_row(
            name,
            f"{row['steps_per_s']:,.0f}",
            _with_range(row, "outer_ms"),
            _with_range(row, "first_update_s"),
            _with_range(row, "first_update_cached_s"),
            f"{row['flops_fraction']:.0%}",
            f"{row['bytes_fraction']:.0%}",
        )
    first = next(iter(rows.values()))
    table.caption = (
        f"{first['device']}. Unroll steps a second; ms an outer step; seconds from the process's "
        "start to the first update, with an empty compilation cache and a full one; arithmetic, "
        "and each state read and written once, as fractions of what a 2048³ float32 product "
        f"({first['matmul_gflops']:.0f} GFLOP/s) and a 256 MB copy reached in the same process. "
        f"Medians and ranges of {repeats}. {_quietness(load)}"
    )
    return table


def _with_range(row: dict[str, Any], name: str) -> str:
    """A figure, and over how much it swayed."""
    low, high = row["ranges"][name]
    return f"{row[name]:.1f}" + f" ({low:.1f}–{high:.1f})" * (low < high)


def _quietness(load: float) -> str:
    """Whether the figures are the machine's, or those of what else it did."""
    said = f"{load:.1f} runnable threads a core before the start"
    if load <= bench.QUIET:
        return f"The machine was quiet ({said})."
    return f"The machine was busy ({said}): trust ratios within a round only."


def _updates(rows: dict[str, dict[str, float]]) -> Table:
    title = "One update of 11 million parameters in 292 tensors"
    table = Table(title=title, title_justify="left")
    heads = ("ms", "times adam's", "state", "temporaries", "compile s", "times adam's")
    for heading in ("optimizer", *heads):
        table.add_column(heading, justify="left" if heading == "optimizer" else "right")
    for name, row in rows.items():
        low, high = row["against_adam_low"], row["against_adam_high"]
        table.add_row(
            name,
            f"{row['ms']:.0f}",
            f"{row['against_adam']:.1f} ({low:.1f}–{high:.1f})",
            f"{row['state_bytes']:.1f}",
            f"{row['temporary_bytes']:.1f}",
            f"{row['compile_s']:.1f}",
            f"{row['compile_against_adam']:.1f}",
        )
    table.caption = (
        "Medians and ranges of updates in turn with optax.adam's. State and temporaries are in "
        "bytes a parameter, temporaries those of one matrix of 4096 x 4096."
    )
    return table


def _devices(rows: list[dict[str, float]]) -> Table:
    table = Table(title="An outer step on several devices", title_justify="left")
    for heading in ("devices", "N = 64: ms", "efficiency", "N = 8 each: ms", "efficiency"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            f"{row['devices']}",
            f"{row['strong_ms']:.3g}",
            f"{row['strong']:.0%}",
            f"{row['weak_ms']:.3g}",
            f"{row['weak']:.0%}",
        )
    table.caption = (
        "Efficiency: the time on one device over the time here; where N stays the same, also over "
        "the number of devices."
    )
    return table


def _mlp_updates(rows: dict[str, dict[str, float]]) -> Table:
    title = "One update by mlp: 4 particles of 1.05 million parameters"
    table = Table(title=title, title_justify="left")
    for heading in ("path", "ms", "GB/s", "of copy"):
        table.add_column(heading, justify="left" if heading == "path" else "right")
    for name, row in rows.items():
        figures = f"{row['ms']:.3g}", f"{row['gbytes']:.3g}", f"{row['bytes_fraction']:.1%}"
        table.add_row(name, *figures)
    table.caption = (
        f"Bytes are the {bench_update.MLP_BYTES} a parameter that an update has to move. "
        "The fused kernel is timed on a GPU only."
    )
    return table
