"""``metaopt list``: what there is to choose from."""

from dataclasses import dataclass
from functools import partial


@dataclass(frozen=True)
class List:
    """Show the recipes, tasks, problems, optimizers and estimators; what trained ones gain, and
    what the runs of problems in runs/ found."""

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

        first_line = lambda factory: (factory.__doc__ or "").strip().partition("\n")[0]
        lines = lambda entries: {name: first_line(entries[name]) for name in sorted(entries)}
        tasks = catalogue("task")
        members = {name: one for name, one in tasks.items() if isinstance(one, partial)}
        families: dict[str, list[str]] = {}
        for name, one in members.items():
            mark = "*" if getattr(one, "needs_download", False) else ""
            families.setdefault(one.func.__name__, []).append(name + mark)
        trained = shipped.shipped() | shipped.local()
        kinds: dict[str, dict[str, str]] = {
            "recipes": {name: summary(it) for name, it in catalogue("recipe").items()},
            "tasks": lines({name: tasks[name] for name in tasks.keys() - members.keys()}),
            "their members (*: needs a download)": {
                family: ", ".join(names) for family, names in sorted(families.items())
            },
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
        for kind, entries in kinds.items():
            table.add_row(Text(kind, "bold"))
            for name, about in entries.items():
                table.add_row(f"  {name}", about)
            table.add_row()
        Console(highlight=False, markup=False).print(table)
        return 0
