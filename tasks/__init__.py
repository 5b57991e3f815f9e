"""Inner tasks and unrolled problems. To add one: write a factory, name it here."""

from collections.abc import Callable

from metaopt import Task, UnrolledProblem
from metaopt.tasks.analytic import influence_balancing, linear_recursion, quadratic
from metaopt.tasks.classification import digits_mlp
from metaopt.tasks.family import small_mlps
from metaopt.tasks.held_out import diabetes_mlp, digits_autoencoder, digits_cnn
from metaopt.tasks.lorenz import lorenz

TASKS: dict[str, Callable[..., Task]] = {
    "diabetes_mlp": diabetes_mlp,
    "digits_autoencoder": digits_autoencoder,
    "digits_cnn": digits_cnn,
    "digits_mlp": digits_mlp,
    "quadratic": quadratic,
    "small_mlps": small_mlps,
}
PROBLEMS: dict[str, Callable[..., UnrolledProblem]] = {
    "influence_balancing": influence_balancing,
    "linear_recursion": linear_recursion,
    "lorenz": lorenz,
}

__all__ = [
    "PROBLEMS",
    "TASKS",
    "diabetes_mlp",
    "digits_autoencoder",
    "digits_cnn",
    "digits_mlp",
    "influence_balancing",
    "linear_recursion",
    "lorenz",
    "quadratic",
    "small_mlps",
]
