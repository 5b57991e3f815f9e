"""The command line. Only what a subcommand needs is imported, so that help and errors are quick."""

import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from metaopt.config import Config
from metaopt.devices import devices_for, prepare_jax
from metaopt.errors import UserError
from metaopt.launch import launch
from metaopt.processes import is_first, most, together

Recipe = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")]

SHORT = {f"--{name}": f"--{name}.name" for name in ("problem", "task", "optimizer", "estimator")}
"""``--task digits_mlp`` for ``--task.name digits_mlp``."""


@dataclass(frozen=True)
class Train:
    """Meta-train an optimizer, or go on with a run; then compare it with tuned Adam.

    --task, --optimizer, --estimator and --problem stand for --task.name and so on.
    """

    config: Annotated[Config, tyro.conf.arg(name="")]
    recipe: Recipe = "digits_mlp"
    """Where the configuration starts; `metaopt list` shows the recipes."""
    out: Path | None = None
    """The run's directory; runs/RECIPE if not given. An existing run is gone on with."""
    devices: int | None = None
    """Devices, of all processes, that share the particles; all that divide them if not given (on a
    CPU, its cores)."""
    quiet: bool = False
    """Print nothing but errors."""


@dataclass(frozen=True)
class Evaluate:
    """Measure trained optimizers against tuned baselines, on several tasks, and write a report."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """Trained optimizers: what metaopt.load takes, such as the directory of a run."""
    tasks: tuple[str, ...] = ()
    """Names, also with arguments, as digits_mlp:hidden=[64]; what the optimizers were trained on if
    not given."""
    baselines: tuple[str, ...] = ("adam", "adamw", "sgdm", "lion")
    """What they have to beat, each with its learning rate swept; speed-ups are over the first."""
    num_steps: int | None = None
    """T, inner steps of a run; as in the first one's training if not given."""
    seeds: int = 5
    """Runs of each optimizer and learning rate on each task."""
    split: str = "test"
    """Whose loss decides: train, valid or test."""
    grid: bool = False
    """Also measure on digits_mlp of several widths, depths and horizons."""
    out: Path = Path("runs/evaluate")
    """Where report, numbers, curves and the cache go, from which the same command goes on."""
    anew: bool = False
    """Do not use the cache."""
    quiet: bool = False
    """Print nothing but errors."""


@dataclass(frozen=True)
class Compare:
    """Run several recipes and seeds, and draw how their losses went."""

    recipes: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")]
    """What to run; `metaopt list` shows the recipes."""
    seeds: int = 1
    """Runs of each recipe, with the seeds 0, 1, ..."""
    outer_steps: int | None = None
    """Updates of theta; the recipe's own if not given."""
    out: Path = Path("runs/compare")
    """Where the runs, the table and the picture go. Runs that are there are gone on with."""
    devices: int | None = None
    """As for train."""


@dataclass(frozen=True)
class Diagnose:
    """Measure variance and bias of the meta-gradient's estimators, for a recipe or a run."""

    target: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE|RUN")] = "digits_mlp"
    """A recipe, at the theta where it starts; or a run's directory, at the theta that it saved."""
    estimators: tuple[str, ...] = ("pes", "gpes", "nres", "full_es", "truncated_es")
    """Which; `metaopt list` shows them."""
    reuse: tuple[int, ...] = ()
    """K of gpes: multiples of the window; some that divide the horizon if not given."""
    budget: int | None = None
    """Unroll steps for each estimator, what takes a few seconds if not given; the reference has
    four times as many."""
    out: Path | None = None
    """Folder for diagnose.json and variance.png; runs/diagnose-NAME if not given."""
    quiet: bool = False
    """Print nothing but errors."""


@dataclass(frozen=True)
class Bench:
    """Time outer steps here, as fractions of what the device can do."""

    cases: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="CASE")] = ()
    """Which; all if none is given and nothing else is asked for."""
    seconds: float = 3.0
    """How long to time each case's outer steps for."""
    devices: int | None = None
    """As for train."""
    update: bool = False
    """Time one update of every learned optimizer on a tree of 10.5 million parameters."""
    scaling: bool = False
    """Measure time and memory against particles, window, horizon, sizes and devices; draw them."""
    profile: bool = False
    """Write a trace of each case, for TensorBoard or Perfetto."""
    out: Path = Path("runs/bench")
    """Folder for bench.json, scaling.png and the traces."""


@dataclass(frozen=True)
class Launch:
    """Run a command in several processes of this machine: metaopt launch -n 2 -- train ..."""

    command: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="COMMAND")]
    """train or compare, behind --, and what it takes."""
    processes: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 2
    """How many share the particles."""


@dataclass(frozen=True)
class Import:
    """Turn a public checkpoint (Flax, msgpack) into a trained optimizer that metaopt.load reads."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """What flax.serialization.to_bytes has written: nested dicts of arrays."""
    name: Annotated[str, tyro.conf.arg(name="as")]
    """Which learned optimizer it is; `metaopt list` shows them."""
    out: Path
    """The directory to write."""
    args: tuple[str, ...] = ()
    """The optimizer's keyword arguments, which give its sizes, each NAME=VALUE."""


@dataclass(frozen=True)
class Export:
    """Make a pretrained optimizer of a run: files that describe and check themselves."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The directory of a finished run."""
    name: str
    """What the optimizer is to be called."""
    out: Path | None = None
    """The directory to write; NAME if not given."""


@dataclass(frozen=True)
class List:
    """Show the recipes, tasks, problems, optimizers and estimators; what trained ones gain."""


def main(argv: list[str] | None = None) -> int:
    """Runs a command line, ``sys.argv`` where none is given, and returns its exit code.

    0 done; 2 a fault in what was asked for, said in one line; 128 + n stopped by signal n.
    """
    for library in ("absl", "asyncio"):  # what goes wrong there is raised, and said here in a line
        logging.getLogger(library).setLevel(logging.CRITICAL)
    argv = [SHORT.get(word, word) for word in (sys.argv[1:] if argv is None else argv)]
    try:
        match _parse(argv):
            case Train() as command:
                return _train(command)
            case Evaluate() as command:
                return _evaluate(command)
            case Compare() as command:
                return _compare(command)
            case Diagnose() as command:
                return _diagnose(command)
            case Bench() as command:
                return _bench(command)
            case Launch() as command:
                return launch(command.command, command.processes)
            case Import() as command:
                return _import(command)
            case Export() as command:
                return _export(command)
            case _:
                return _list()
    except UserError as error:
        print(f"metaopt: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("metaopt: interrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `metaopt list | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _parse(argv: list[str]):
    from metaopt.recipes import RECIPES
    from metaopt.registry import choose

    def parse(recipe: Config):
        commands = tyro.extras.subcommand_type_from_defaults(
            {
                "train": Train(recipe),
                "evaluate": Evaluate(tyro.MISSING),
                "compare": Compare(tyro.MISSING),
                "diagnose": Diagnose(),
                "bench": Bench(),
                "launch": Launch(tyro.MISSING),
                "import": Import(tyro.MISSING, tyro.MISSING, tyro.MISSING),
                "export": Export(tyro.MISSING, tyro.MISSING),
                "list": List(),
            }
        )
        return tyro.cli(commands, args=argv, prog="metaopt", description=__doc__)

    command = parse(Config())
    if isinstance(command, Train):  # now that the recipe is known, once more from its values
        recipe = choose("recipe", command.recipe, RECIPES)
        # `lorenz --estimator pes` starts from lorenz_pes, where there is such a recipe.
        own = RECIPES.get(f"{command.recipe}_{command.config.estimator.name}", recipe)
        command = parse(own)
    return command


def _train(command: Train) -> int:
    with together():
        prepare_jax(command.devices)
        code = _meta_train(command)
    return code if code or not is_first() else _report(command)


def _meta_train(command: Train) -> int:
    import jax
    from rich.console import Console

    from metaopt.interrupt import stop_on_signals
    from metaopt.progress import show_progress
    from metaopt.rundir import RunDirectory
    from metaopt.sharding import particle_mesh
    from metaopt.train import experiment_of, train

    console = Console(quiet=command.quiet or not is_first())
    config, out = command.config, _out(command)
    experiment_of(config, RunDirectory(out))  # finds every fault before anything is said
    devices = command.devices or devices_for(config)
    going_on = (out / "checkpoints").is_dir()
    console.print(
        f"{'Going on with' if going_on else 'Starting'} {out}: {_summary(config)}, on {devices} "
        f"{jax.devices()[0].platform} device{'s' * (devices > 1)}; compiling takes a moment.",
        highlight=False,
        soft_wrap=True,
    )
    with stop_on_signals() as stop:
        with show_progress(console) as on_progress:
            result = train(
                config,
                out,
                mesh=particle_mesh(devices),
                on_progress=on_progress,
                should_stop=stop,
                on_notice=lambda text: console.print(text, highlight=False, soft_wrap=True),
            )
        if not result.finished:
            console.print(
                f"Stopped after outer step {int(result.state.step)} of {config.outer_steps}; "
                f"saved in {out}. The same command goes on from there.",
                highlight=False,
                soft_wrap=True,
            )
            return 128 + most(stop.signal or 0)[0]
    return 0


def _out(command: Train) -> Path:
    return command.out or Path("runs") / command.recipe


def _report(command: Train) -> int:
    from rich.console import Console

    from metaopt.report import report_run

    report_run(_out(command), Console(quiet=command.quiet))
    return 0


def _summary(config: Config) -> str:
    chosen, problem = config.estimator, config.problem.name
    tasks = ", ".join([config.task.name, *config.mixture])
    what = f"{config.optimizer.name} on {tasks}" if problem == "training" else problem
    return (
        f"{what} by {chosen.name}, {chosen.particles} antithetic pairs, window {chosen.window} of "
        f"{chosen.horizon} inner steps"
    )


def _evaluate(command: Evaluate) -> int:
    prepare_jax()
    from rich.console import Console

    from metaopt.evaluation import evaluate

    console = Console(quiet=command.quiet)
    say = lambda text: console.print(text, highlight=False, soft_wrap=True)
    found = evaluate(
        command.names,
        tasks=command.tasks,
        baselines=[name for word in command.baselines for name in word.split(",")],
        num_steps=command.num_steps,
        seeds=command.seeds,
        split=command.split,
        grid=command.grid,
        out=command.out,
        anew=command.anew,
        on_progress=lambda what, done, total: say(f"{done + 1}/{total} {what}"),
    )
    console.print(found.table())
    console.print(found.summary())
    say(f"Report: {command.out / 'report.html'}")
    return 0


def _compare(command: Compare) -> int:
    with together():
        prepare_jax(command.devices)
        code, folders = _train_all(command)
    return code if code or not is_first() else _draw(command, folders)


def _train_all(command: Compare) -> tuple[int, dict[str, list[Path]]]:
    from rich.console import Console

    from metaopt import compare
    from metaopt.interrupt import stop_on_signals
    from metaopt.progress import show_progress
    from metaopt.recipes import RECIPES
    from metaopt.registry import choose
    from metaopt.sharding import particle_mesh
    from metaopt.train import train

    if not command.recipes or command.seeds < 1:
        raise UserError("compare needs at least one recipe and one seed.")
    console = Console(quiet=not is_first())
    recipes = {name: choose("recipe", name, RECIPES) for name in command.recipes}
    folders: dict[str, list[Path]] = {name: [] for name in recipes}
    with stop_on_signals() as stop:
        for place, config in compare.runs(recipes, command.seeds, command.outer_steps):
            devices = command.devices or devices_for(config)
            console.print(f"{place}:", highlight=False)
            with show_progress(console) as on_progress:
                result = train(
                    config,
                    command.out / place,
                    mesh=particle_mesh(devices),
                    on_progress=on_progress,
                    should_stop=stop,
                )
            if not result.finished:
                console.print(f"Stopped; the same command goes on in {command.out}.")
                return 128 + most(stop.signal or 0)[0], folders
            folders[place.partition("/")[0]].append(command.out / place)
    return 0, folders


def _draw(command: Compare, folders: dict[str, list[Path]]) -> int:
    from rich.console import Console

    from metaopt import compare, figures
    from metaopt.recipes import RECIPES
    from metaopt.rundir import write_atomically

    console = Console()
    courses = [compare.course(name, RECIPES[name], runs) for name, runs in folders.items()]
    console.print(compare.table(courses))
    write_atomically(command.out / "compare.json", compare.to_json(courses))
    write_atomically(command.out / "compare.png", figures.to_png(figures.courses(courses)))
    console.print(f"Picture: {command.out / 'compare.png'}", highlight=False, soft_wrap=True)
    return 0


def _diagnose(command: Diagnose) -> int:
    prepare_jax()
    from rich.console import Console

    from metaopt.diagnose_report import report_diagnosis

    report_diagnosis(
        command.target,
        Console(quiet=command.quiet),
        estimators=command.estimators,
        reuses=command.reuse,
        budget=command.budget,
        out=command.out,
    )
    return 0


def _bench(command: Bench) -> int:
    prepare_jax(command.devices)
    from rich.console import Console

    from metaopt.bench_report import report_bench

    if command.seconds <= 0:
        raise UserError(f"--seconds must be above 0, got {command.seconds}.")
    report_bench(
        Console(),
        names=command.cases,
        seconds=command.seconds,
        devices=command.devices,
        update=command.update,
        scaling=command.scaling,
        profile=command.profile,
        out=command.out,
    )
    return 0


def _import(command: Import) -> int:
    import jax

    from metaopt.config import Component
    from metaopt.importer import import_file

    theta = import_file(command.file, Component(command.name, command.args), command.out)
    numbers = sum(leaf.size for leaf in jax.tree.leaves(theta))
    print(f"{command.out} holds {command.name}, {numbers:,} meta-parameters; to use it:")
    print(f"  tx = metaopt.load({str(command.out)!r}, num_steps=...)")
    return 0


def _export(command: Export) -> int:
    from metaopt.export import export_run

    out = command.out or Path(command.name)
    export_run(command.run, command.name, out)
    print(f"{out} holds {command.name}, its card is {out / 'CARD.md'}; to use it:")
    print(f"  tx = metaopt.load({str(out)!r}, num_steps=...)")
    return 0


def _list() -> int:
    from rich.console import Console
    from rich.table import Table

    from metaopt.estimators import ESTIMATORS
    from metaopt.recipes import RECIPES
    from metaopt.registry import catalogue
    from metaopt.shipped import local, shipped, summary

    table = Table("kind", "name", "what it is")
    kinds: dict[str, dict[str, Any]] = {
        "recipe": dict.fromkeys(RECIPES),
        "task": catalogue("task"),
        "problem": catalogue("problem"),
        "learned optimizer": catalogue("learned optimizer"),
        "estimator": ESTIMATORS,
    }
    for kind, entries in kinds.items():
        for i, (name, factory) in enumerate(sorted(entries.items())):
            about = (factory.__doc__ or "").partition("\n")[0] if factory else ""
            table.add_row(kind if i == 0 else "", name, about)
        table.add_section()
    for i, (name, path) in enumerate((shipped() | local()).items()):
        table.add_row("trained optimizer" if i == 0 else "", name, summary(path))
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
