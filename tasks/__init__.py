"""Inner tasks and unrolled problems. To add one: write a factory, name it here."""

from collections.abc import Callable

from metaopt import Task, UnrolledProblem
from tasks.analytic import influence_balancing, linear_recursion, quadratic
from tasks.classification import digits_mlp
from tasks.lorenz import lorenz

TASKS: dict[str, Callable[..., Task]] = {"digits_mlp": digits_mlp, "quadratic": quadratic}
PROBLEMS: dict[str, Callable[..., UnrolledProblem]] = {
    "influence_balancing": influence_balancing,
    "linear_recursion": linear_recursion,
    "lorenz": lorenz,
}

__all__ = [
    "PROBLEMS",
    "TASKS",
    "digits_mlp",
    "influence_balancing",
    "linear_recursion",
    "lorenz",
    "quadratic",
]
