"""A number with its uncertainty, and how it is written."""

import math
from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A mean over seeds, and the half-width of its 95% confidence interval."""

    mean: float
    half_width: float

    @property
    def is_resolved(self) -> bool:
        """Whether the interval leaves 0 out; never where it is not finite."""
        return abs(self.mean) > self.half_width

    def text(self, digits: int = 2, between: str = " ± ", sign: str = "") -> str:
        """Both numbers with as many decimals as the half-width has significant digits.

        Args:
          digits: significant digits of the half-width.
          between: what stands between the two numbers.
          sign: ``"+"`` to write the sign of a positive mean as well.

        Examples:
          >>> Interval(0.06341, 0.00896).text(), Interval(-12.3, 4.56).text(1, "±")
          ('0.0634 ± 0.0090', '-12±5')
        """
        if not math.isfinite(self.mean):
            return "not finite"
        if not math.isfinite(self.half_width):
            return f"{self.mean:{sign}.4g}{between}?"
        if self.half_width == 0:
            return f"{self.mean:{sign}.4g}{between}0"
        decimals = digits - 1 - math.floor(math.log10(self.half_width))
        if not -6 < decimals < 7:
            return f"{self.mean:{sign}.4g}{between}{self.half_width:.{digits}g}"
        decimals = max(decimals, 0)
        return f"{self.mean:{sign}.{decimals}f}{between}{self.half_width:.{decimals}f}"

    def __str__(self) -> str:
        return self.text()


def interval(values: np.ndarray) -> Interval:
    """Mean and 95% interval (Student's t) of independent values ``[seeds]``.

    The half-width of a single value is NaN.

    Examples:
      >>> str(interval(np.array([1.0, 2.0, 3.0])))
      '2.0 ± 2.5'
    """
    from scipy import special  # which is slow to import, and `import metaopt` is not to be

    count = len(values)
    values = np.asarray(values, np.float64)
    if count < 2:
        return Interval(float(values.mean()), float("nan"))
    spread = float(np.std(values, ddof=1)) / np.sqrt(count)
    return Interval(float(values.mean()), float(special.stdtrit(count - 1, 0.975)) * spread)
