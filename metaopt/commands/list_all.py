"""``metaopt list``: what there is to choose from."""

import inspect
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import tyro


@dataclass(frozen=True)
class List:
    """Show the recipes, tasks, problems, optimizers and estimators; what trained ones gain, and
    what the runs of problems in runs/ found. With names: what they take."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME")] = ()
    """Of tasks, problems, optimizers, estimators, recipes or suites, whose arguments, defaults or
    parts are shown."""

    def __call__(self) -> int:
        """Does it, and returns the exit code."""
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        from metaopt.config.recipes import summary
        from metaopt.config.registry import catalogue
        from metaopt.evaluation.suites import SUITES
        from metaopt.integrations.searches import EXAMPLES
        from metaopt.pretrained import shipped
        from metaopt.training.outcome import problem_runs

        console = Console(highlight=False, markup=False)
        if not console.is_terminal:  # names stay whole for what reads them
            console.width = max(console.width, 100)
        if self.names:
            from metaopt.commands.explain import explain

            for said in [part for name in self.names for part in explain(name)]:
                console.print(said)
            return 0
        first_line = lambda factory: (factory.__doc__ or "").strip().partition("\n")[0]
        lines = lambda entries: {name: first_line(entries[name]) for name in sorted(entries)}
        tasks = catalogue("task")
        members = {name: one for name, one in tasks.items() if isinstance(one, partial)}
        others = {name: one for name, one in tasks.items() if name not in members}
        wrapping = {
            n: one for n, one in others.items() if "task" in inspect.signature(one).parameters
        }
        families: dict[str, list[str]] = {}
        for name, one in members.items():
            mark = "*" if getattr(one, "needs_download", False) else ""
            families.setdefault(one.func.__name__, []).append(name + mark)
        trained = shipped.shipped() | shipped.local()
        kinds: dict[str, dict[str, str]] = {
            "recipes": {name: summary(it) for name, it in catalogue("recipe").items()},
            "families of tasks": lines(
                {name: others[name] for name in (others.keys() & families.keys()) - wrapping.keys()}
            ),
            "their members (*: needs a download)": {
                family: ", ".join(names) for family, names in sorted(families.items())
            },
            "other tasks": lines(
                {name: others[name] for name in others.keys() - families.keys() - wrapping.keys()}
            ),
            "tasks made of a task": lines(wrapping),
            "problems": lines(catalogue("problem")),
            "learned optimizers": lines(catalogue("learned optimizer")),
            "estimators": lines(catalogue("estimator")),
            "searches by others": dict(EXAMPLES),
            "suites of tasks": {name: suite.about for name, suite in SUITES.items()},
            "baselines": {"": ", ".join(sorted(catalogue("baseline")))},
            "trained optimizers": {name: shipped.summary(path) for name, path in trained.items()},
        }
        if found := problem_runs():
            kinds["runs of problems"] = found
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for kind, entries in kinds.items():
            table.add_row(Text(kind, "bold"))
            for name, about in entries.items():
                table.add_row(f"  {name}", about)
            table.add_row()
        console.print(table)
        console.print("What any of these takes, or holds: metaopt list NAME")
        return 0
