"""What a test measures: a name, a unit, and which way is better."""

import re
from dataclasses import dataclass

import numpy as np

from metaopt.core.errors import UserError


@dataclass(frozen=True)
class Metric:
    """A number that a problem is tested by, and how it is shown.

    Attributes:
      name: in words, such as ``"loss"`` or ``"return"``.
      unit: of the values, such as ``"mm"``; empty if there is none.
      higher_is_better: whether larger values are better.

    Raises:
      UserError: for a name that is not of words.

    Examples:
      >>> score = Metric("return", higher_is_better=True)
      >>> score.key, score.text(475.25), score.best(np.array([3.0, 9.0, np.nan]))
      ('test_return', 'test return 475.2', 1)
    """

    name: str = "loss"
    unit: str = ""
    higher_is_better: bool = False

    def __post_init__(self):
        if not re.fullmatch(r"\w[\w -]*", self.name):
            raise UserError(
                f"a metric's name is of letters, digits, spaces, '-' and '_', got {self.name!r}."
            )
        if not isinstance(self.higher_is_better, bool):
            raise UserError(f"higher_is_better must be a bool, got {self.higher_is_better!r}.")

    @property
    def key(self) -> str:
        """Its name in ``metrics.jsonl``, in TensorBoard and in `metaopt.read_metrics`."""
        return "_".join(("test", *self.name.split()))

    @property
    def title(self) -> str:
        """Its name for axes and headings, with the unit, and where higher is better with that."""
        better = ", higher is better" * self.higher_is_better
        return f"test {self.name}" + f" ({self.unit})" * bool(self.unit) + better

    def text(self, value: float) -> str:
        """A value with the name before it and the unit after it."""
        return " ".join((f"test {self.name} {value:.4g}", self.unit)).strip()

    def best(self, values: np.ndarray) -> int | None:
        """The index of the best of ``[n]`` values; ``None`` if all are NaN."""
        if np.isnan(values).all():
            return None
        return int(np.nanargmax(values) if self.higher_is_better else np.nanargmin(values))
