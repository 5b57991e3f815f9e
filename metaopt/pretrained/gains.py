"""What an optimizer gains over a tuned baseline: one record, one way to say it, and its files.

A gain is a difference of losses, by pairs of runs from the same start on the same batches. It is
never a ratio of losses, which has no meaning where they may be 0 or below.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from metaopt.core.interval import Interval


class Change(NamedTuple):
    """One optimizer against another on one task, in one number.

    Attributes:
      task, optimizer, against: names.
      number: ``"mean"``, the loss over the run's measurements, or ``"final"``, the last one.
      split: whose loss it is.
      seeds: pairs of runs.
      start: the mean loss before the first step, the same for both; NaN if it is not known.
      ours, theirs: the mean losses, a baseline's at its best learning rate for this number.
      difference: ours less theirs, in the loss's unit, by pairs; below 0 ours is better.
      progress: by what fraction our progress from the initial loss exceeds theirs,
        ``(start - ours) / (start - theirs) - 1``, by pairs; NaN where they make no progress or the
        start is not known.
    """

    task: str
    optimizer: str
    against: str
    number: str
    split: str
    seeds: int
    start: float
    ours: float
    theirs: float
    difference: Interval
    progress: Interval

    @property
    def verdict(self) -> str:
        """``"lower"``, ``"higher"``, ``"equal"`` or ``"not resolved"``; or ``"not finite"``.

        Examples:
          >>> UNKNOWN._replace(difference=Interval(-0.1, 0.2)).verdict
          'not resolved'
        """
        if not math.isfinite(self.difference.mean):
            return "not finite"
        if self.difference == (0, 0):
            return "equal"
        if not self.difference.is_resolved:
            return "not resolved"
        return "lower" if self.difference.mean < 0 else "higher"

    def headline(self) -> tuple[str, str]:
        """What is to stand in large type, with its interval or without a number, and the rest.

        Examples:
          >>> change = UNKNOWN._replace(theirs=0.266, difference=Interval(-0.0634, 0.009))
          >>> " ".join(change.headline())
          '0.0634 ± 0.0090 lower mean test loss than tuned adam (0.266)'
        """
        what = f"{self.number} {self.split} loss than tuned {self.against} ({self.theirs:.4g})"
        direction = "lower" if self.difference.mean <= 0 else "higher"
        size = self.difference._replace(mean=abs(self.difference.mean))
        match self.verdict:
            case "not finite":
                return "No finite loss", f"to compare with that of tuned {self.against}"
            case "equal":
                return "No difference", f"from the {what.replace('than', 'of')} on any seed"
            case "not resolved":
                return "Not resolved", f"by {self.seeds} seeds: {size} {direction} {what}"
        return f"{size} {direction}", what

    def sentence(self) -> str:
        """The same in one line that begins with the number, for lists.

        Examples:
          >>> UNKNOWN._replace(theirs=2.0, difference=Interval(0.1, 0.24)).sentence()
          '0.10 ± 0.24 higher mean test loss than tuned adam (2), not resolved by 16 seeds'
        """
        first, rest = self.headline()
        if self.verdict == "not resolved":
            return f"{rest.partition(': ')[2]}, not resolved by {self.seeds} seeds"
        return f"{first[0].lower()}{first[1:]} {rest}"


_NAN = Interval(math.nan, math.nan)
UNKNOWN = Change(
    "task", "mine", "adam", "mean", "test", 16, math.nan, math.nan, math.nan, _NAN, _NAN
)
"""A change of which nothing is known: a start for examples and tests."""


def changes_in(evaluation: Mapping[str, Any]) -> list[Change]:
    """The changes in what is stored: a run's ``evaluation.json``, or an artefact's ``eval.json``.

    Those of version 0.1 held a ratio of losses, with the baseline's loss beside it: their product
    is the difference again, whatever its sign.

    Raises:
      KeyError, TypeError, ValueError: if it is neither.
    """
    if "changes" in evaluation:
        return [_from_json(stored) for stored in evaluation["changes"]]
    summary = evaluation["summary"]
    found = []
    for number in ("mean", "final"):
        ours, theirs, ratio = (
            Interval(*map(_number, (one["mean"], one["half_width"])))
            for one in (
                summary["learned"][f"{number}_loss"],
                summary["adam"][f"{number}_loss"],
                summary["change"][f"{number}_loss"],
            )
        )
        difference = Interval(ratio.mean * theirs.mean, abs(ratio.half_width * theirs.mean))
        found.append(
            UNKNOWN._replace(
                task=evaluation["of"]["task"]["name"],
                number=number,
                seeds=_seeds_in(evaluation),
                ours=ours.mean,
                theirs=theirs.mean,
                difference=difference,
            )
        )
    return found


def headlines_in(evaluation: Mapping[str, Any]) -> list[Change]:
    """Of the same those that are told first: the mean loss against the reference, task by task.

    Raises:
      KeyError, TypeError, ValueError: if it is no evaluation.
    """
    changes = changes_in(evaluation)
    first = lambda one: one.number == "mean" and one.against == changes[0].against
    return [one for one in changes if first(one)]


def _seeds_in(evaluation: Mapping[str, Any]) -> int:
    """A run of version 0.1 says it by the length of its curves, an artefact by name."""
    return evaluation["seeds"] if "seeds" in evaluation else len(evaluation["numbers"]["learned"])


def _from_json(stored: Mapping[str, Any]) -> Change:
    values: dict[str, Any] = {
        name: Interval(*map(_number, (value["mean"], value["half_width"])))
        if isinstance(value, Mapping)
        else value
        for name, value in stored.items()
    }
    numbers = {name: _number(values[name]) for name in ("start", "ours", "theirs")}
    return Change(**values | numbers)


def _number(value: float | None) -> float:
    """JSON has null for what is not finite."""
    return math.nan if value is None else float(value)
