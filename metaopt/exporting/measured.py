"""What a card says of an optimizer's evaluation, Markdown."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from metaopt.core.interval import Interval
from metaopt.pretrained.gains import Change, changes_in


def measured(evaluation: Mapping[str, Any]) -> str:
    """A table for each task: losses, and their differences to every baseline by pairs.

    Args:
      evaluation: ``eval.json``, of this version or of 0.1.
    """
    changes = changes_in(evaluation)
    tasks = dict.fromkeys(change.task for change in changes)
    return "\n\n".join(
        _table(evaluation, task, [change for change in changes if change.task == task])
        for task in tasks
    )


def not_better(evaluation: Mapping[str, Any]) -> str:
    """A list of where the optimizer is not below a baseline, or was not measured."""
    lines = []
    for change in changes_in(evaluation):
        what = f"in the {change.number} loss on `{change.task}`"
        match change.verdict:
            case "not resolved":
                said = f"{change.seeds} seeds do not resolve a difference ({change.difference})"
                lines.append(f"- Against tuned {_plain(change.against)} {what}: {said}.")
            case "higher" | "equal":
                lines.append(
                    f"- Against tuned {_plain(change.against)} {what}: {change.sentence()}."
                )
            case "not finite":
                lines.append(f"- Against tuned {_plain(change.against)} {what}: no loss is finite.")
    lines += _above(evaluation)
    lines.append(
        "- `metaopt train` has measured nothing else: other tasks, more or fewer steps, larger\n"
        "  tensors, other batches. `metaopt.load` warns far outside the range above."
    )
    return "\n".join(lines)


def _table(evaluation: Mapping[str, Any], task: str, changes: Sequence[Change]) -> str:
    first, steps = changes[0], evaluation["num_steps"]
    rows = [f"| this optimizer | {_losses(evaluation, task, first.optimizer, changes)} |"]
    for against in _baselines(changes):
        pair = [change for change in changes if change.against == against]
        rows.append(f"| {_plain(against)}, tuned | {_losses(evaluation, task, against, pair)} |")
        differences = " | ".join(change.difference.text(sign="+") for change in pair)
        rows.append(f"| **difference to {_plain(against)}** | {differences} |")
    rates = "; ".join(_rates(evaluation, task, name) for name in _baselines(changes))
    start = f" The initial loss is {first.start:.4g}." if first.start == first.start else ""
    lead = (
        f"On `{task}`, {first.split} split, from the same {first.seeds} fresh initialisations on "
        f"the same batches.{start}\nA baseline is at the best of {len(evaluation['rates'])} "
        f"learning rates by each number: {rates}.\nMeans ± 95%; differences are by pairs, below 0 "
        "is better.\n\n"
    )
    heads = f"| {first.split} loss | mean of {steps} steps | final |\n| --- | ---: | ---: |\n"
    return lead + heads + "\n".join(rows)


def _plain(name: str) -> str:
    """A name as Markdown shows it as it is.

    Examples:
      >>> print(_plain("adam_cosine"), _plain("_a|b*"))
      adam_cosine \\_a\\|b\\*
    """
    return re.sub(r"[\\`*\[\]<>|&$#~]|(?<!\w)_|_(?!\w)", r"\\\g<0>", name)


def _baselines(changes: Sequence[Change]) -> list[str]:
    return list(dict.fromkeys(change.against for change in changes))


def _rates(evaluation: Mapping[str, Any], task: str, name: str) -> str:
    """A baseline's best rates."""
    best = evaluation
    if "rows" in evaluation:
        rows = evaluation["rows"]
        (best,) = [row for row in rows if (row["task"], row["optimizer"]) == (task, name)]
    return (
        f"{_plain(name)} {best['rate']:g} for the mean, {best['final_rate']:g} for the final loss"
    )


def _losses(
    evaluation: Mapping[str, Any], task: str, optimizer: str, changes: Sequence[Change]
) -> str:
    """Mean and final loss with their intervals, where the evaluation holds these."""
    shown = []
    for change in changes[:2]:
        interval = _interval(evaluation, task, optimizer, change)
        value = change.theirs if optimizer == change.against else change.ours
        known = Interval(value, float("nan")) if interval is None else interval
        shown.append(str(known))
    return " | ".join(shown)


def _interval(
    evaluation: Mapping[str, Any], task: str, optimizer: str, change: Change
) -> Interval | None:
    if "rows" not in evaluation:  # version 0.1
        who = "adam" if optimizer == change.against else "learned"
        stored = evaluation["summary"][who][f"{change.number}_loss"]
    else:
        (stored,) = [
            row[change.number][change.split]
            for row in evaluation["rows"]
            if (row["task"], row["optimizer"]) == (task, optimizer)
        ]
    if stored["mean"] is None or stored["half_width"] is None:
        return None
    return Interval(stored["mean"], stored["half_width"])


def _above(evaluation: Mapping[str, Any]) -> list[str]:
    """Where along a run the mean loss is above the reference's."""
    curves = evaluation["mean_curves"]
    if "rows" not in evaluation:  # version 0.1: one task, from the first step on, every step
        task, ours, theirs = evaluation["of"]["task"]["name"], "learned", "adam"
        pairs = [(task, 1, 1, list(zip(curves[ours], curves[theirs], strict=True)))]
    else:
        theirs, every = evaluation["reference"], evaluation["measured_every"]
        pairs = [
            (task, every, every, list(zip(of[ours], of[theirs], strict=True))[1:])
            for task, of in curves.items()
            for ours in evaluation["optimizers"]
        ]
    lines = []
    for task, start, every, pair in pairs:
        # Null is a loss that was lost.
        worse = [
            start + every * i
            for i, (a, b) in enumerate(pair)
            if b is not None and (a is None or a > b)
        ]
        if worse:
            lines.append(
                f"- On `{task}` its mean loss is above tuned {theirs}'s in {len(worse)} of "
                f"{len(pair)} measurements, between step {worse[0]} and step {worse[-1]}."
            )
    return lines
