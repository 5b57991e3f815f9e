"""What an evaluation says in sentences: its verdicts, its notes, what each column means."""

import numpy as np

from metaopt.evaluation.result import Aggregate, Result
from metaopt.evaluation.statistics import FEWEST_SEEDS
from metaopt.evaluation.trials import LONGER
from metaopt.pretrained.gains import Change


def facts(found: Result) -> str:
    """What was run, in a line."""
    tasks = f"{len(found.tasks)} task{'s' * (len(found.tasks) > 1)}"
    rates = f"{len(found.rates)} learning rates from {min(found.rates):g} to {max(found.rates):g}"
    return (
        f"{tasks}, {found.seeds} seeds of {found.num_steps:,} inner steps, {found.split} split; "
        f"baselines {', '.join(found.baselines)}, each over {rates}{_also(found)}. Measured on "
        f"{found.machine}."
    )


def _also(found: Result) -> str:
    """What was tuned beside the rate."""
    points = [one for of in found.settings.values() for one in of]
    decays = sorted({one.decay for one in points} - {None})
    also = [f"weight decays {', '.join(f'{one:g}' for one in decays)}"] if decays else []
    if any(one.cosine is not None for one in points):
        also.append("a constant rate and a cosine")
    return f", with {' and '.join(also)} where it has them" if also else ""


def costs(found: Result) -> str:
    """What the meta-training of each optimizer took, of those that say it."""
    said = " ".join(f"{name}: {cost}." for name, cost in found.costs.items())
    if not said:
        return ""
    return f"{said} Intervals are over the seeds of the evaluation, not over meta-trainings."


def verdicts(found: Result) -> list[tuple[str, str, str]]:
    """For each learned optimizer what stands in large type, the rest of that line, and details.

    On one task the difference of mean losses; on several the speed-up over all, and on how many
    tasks the mean loss is lower. Every number has its interval; where that holds no change at all,
    the line says that so many seeds do not resolve it.
    """
    several = len(found.tasks) > 1
    aggregates = {one.optimizer: one for one in found.aggregates()}
    return [
        _over_tasks(found, aggregates[name]) if several else _on_a_task(found, aggregates[name])
        for name in found.optimizers
    ]


def verdict_lines(found: Result) -> list[str]:
    """The same for a terminal, a line for each learned optimizer."""
    return [
        f"{name}: {first[0].lower()}{first[1:]} {rest}. {details}"
        for name, (first, rest, details) in zip(found.optimizers, verdicts(found), strict=True)
    ]


def _on_a_task(found: Result, one: Aggregate) -> tuple[str, str, str]:
    change = found.change(one.optimizer)
    first, rest = change.headline()
    return first, rest, f"{progress(change)} {_speed_up(found, one)}".strip()


def _over_tasks(found: Result, one: Aggregate) -> tuple[str, str, str]:
    changes = [found.change(one.optimizer, task) for task in found.tasks]
    counts = {
        verdict: [change.task for change in changes if change.verdict == verdict]
        for verdict in ("lower", "higher", "equal", "not resolved", "not finite")
    }
    said = "; ".join(f"{word} on {', '.join(on)}" for word, on in counts.items() if on)
    details = f"Mean {found.split} loss against tuned {found.reference}: {said}."
    over = f"the speed of tuned {found.reference}, in steps to the same loss"
    if not found.meaningful:
        return "Nothing to compare", f"as tuned {found.reference} makes no progress at all", details
    speedup, of = one.speedup, f"by {found.seeds} seeds on {len(found.meaningful)} tasks"
    if speedup.excludes(1):
        value = f"{speedup.value:.2f}× [{speedup.low:.2f}, {speedup.high:.2f}]"
        return value, f"{over}, {of}", details
    ends = f"95% from {speedup.low:.2f} to {speedup.high:.2f}"
    if found.seeds < FEWEST_SEEDS:
        ends = f"an interval takes {FEWEST_SEEDS} seeds"
    return "Not resolved", f"{of}: {speedup.value:.2f}× {over}, {ends}", details


def _speed_up(found: Result, one: Aggregate) -> str:
    if not found.meaningful:
        return ""
    speedup = one.speedup
    if found.seeds < FEWEST_SEEDS:
        return f"Speed-up {speedup.value:.2f}×; an interval takes {FEWEST_SEEDS} seeds."
    tail = f", not resolved by {found.seeds} seeds" * (not speedup.excludes(1))
    return f"Speed-up {speedup.value:.2f}× [{speedup.low:.2f}, {speedup.high:.2f}]{tail}."


def progress(change: Change) -> str:
    """The change of progress from the initial loss, in a sentence, or why there is none.

    Examples:
      >>> from metaopt.core.interval import Interval
      >>> from metaopt.pretrained.gains import UNKNOWN
      >>> half, lower = Interval(0.1, 0.02), Interval(-0.2, 0.04)
      >>> progress(UNKNOWN._replace(start=3.0, theirs=1.0, difference=lower, progress=half))
      "Progress from the initial loss (3): 10.0% ± 2.0% more than tuned adam's."
    """
    if change.verdict == "not finite":
        return "The loss is not finite before the first step: check the task."
    if not np.isfinite(change.progress.mean):
        return (
            f"Tuned {change.against} makes no progress from the initial loss ({change.start:.4g}), "
            "so progress over its has no meaning here."
        )
    more = "more" if change.progress.mean >= 0 else "less"
    size = percent(change.progress._replace(mean=abs(change.progress.mean)))
    unresolved = f", not resolved by {change.seeds} seeds" * (not change.progress.is_resolved)
    return (
        f"Progress from the initial loss ({change.start:.4g}): {size} {more} than tuned "
        f"{change.against}'s{unresolved}."
    )


def percent(fraction, sign: str = "") -> str:
    """An interval of a fraction in percent; a dash if it is not finite.

    Examples:
      >>> from metaopt.core.interval import Interval
      >>> percent(Interval(0.1, 0.021), "+")
      '+10.0% ± 2.1%'
    """
    if not np.isfinite(fraction.mean):
        return "–"
    whole = fraction._replace(mean=100 * fraction.mean, half_width=100 * fraction.half_width)
    return f"{whole.text(between='% ± ', sign=sign)}%"


def notes(found: Result, task: str) -> list[str]:
    """What has to be known beside the numbers of a task."""
    said = []
    rows = [row for row in found.rows if row.task == task]
    for name, where in found.ranges.get(task, {}).items():
        said.append(f"{name}: {where}.")
    for row in rows if task in found.meaningful else ():
        ends = [rate for rate in {row.rate, row.final_rate} if rate in _ends(found)]
        if ends and found.curves(task, row.optimizer).shape[0] > 1:
            said.append(
                f"{row.optimizer}: its best rate ({ends[0]:g}) is at the end of the sweep, so that "
                "another one may be better."
            )
    if not is_finite(found, task):
        said.append("The loss before the first step is not finite, so that no number here is.")
    elif task not in found.meaningful:
        said.append(
            f"Tuned {found.reference} makes no progress from the initial loss: scores and "
            "speed-ups would divide by that progress and have no meaning here. The differences "
            "have one."
        )
    return said


def is_finite(found: Result, task: str) -> bool:
    """Whether the losses of a task are; they are not where one is not before the first step."""
    return all(np.isfinite(row.start.mean) for row in found.rows if row.task == task)


def _ends(found: Result) -> set[float]:
    return {min(found.rates), max(found.rates)} if len(found.rates) > 1 else set()


def definitions(found: Result) -> dict[str, str]:
    """What each column of the tables means."""
    reference, split, steps = found.reference, found.split, f"{found.num_steps:,}"
    measured = "step" if found.every == 1 else f"{found.every} steps"
    cap = "the cap of its task (the initial loss, if it has none)"
    return {
        f"mean {split}": (
            f"The {split} loss averaged over the {steps} steps of a run: the area below its curve, "
            f"measured before the first step and after every {measured}; mean over seeds ± 95% "
            "(Student's t). All optimizers train from the same fresh initialisations on the same "
            f"batches; the {split} split and these initialisations occur nowhere in meta-training."
        ),
        "final": f"The {split} loss after step {steps}.",
        "accuracy": (
            f"The fraction of the {split} split that is right after step {steps}; a baseline is at "
            "the rate that is best for it."
        ),
        "initial": f"The {split} loss before the first step, the same for all.",
        "train": "The training loss after the last step, at the best rate for it.",
        "at RATE": (
            "A baseline's learning rate is the best of the sweep by the very number that is shown, "
            "in its favour; its name has the one for the mean. A name that ends in _cosine is of a "
            "rate that rises over the first 5% of the run and falls to 0 as a cosine."
        ),
        "final rate": "A baseline's best learning rate by the final loss.",
        "rates at 90%": (
            "Between which of the sweep's rates a baseline makes at least 90% of its best progress "
            "from the initial to the mean loss: the wider, the less it has to be tuned. The "
            "picture of sensitivity has the whole sweep."
        ),
        "rate per seed": (
            "The mean loss if each seed (of a family: each member) had a rate of its own, which "
            "nobody knows beforehand."
        ),
        f"mean − {reference}": (
            f"The mean loss less that of tuned {reference}, in the loss's own unit: mean over "
            "pairs of runs with the same seed ± 95%. Below 0 is better; not resolved if 0 is in "
            "the interval. Losses may be 0 or negative, so that it is no ratio of losses."
        ),
        "progress": (
            "By what fraction the progress from the initial to the mean loss exceeds that of tuned "
            f"{reference}, (initial − mean) over its (initial − mean), less 1; by pairs ± 95%."
        ),
        "score": (
            f"The progress of each run from its initial to its mean loss over that of tuned "
            f"{reference} from the same start: 0 is none, 1 is {reference}'s."
        ),
        "final score": "The same with the final loss in place of the mean.",
        "speed-up": (
            f"The steps that {reference} needs to its own final loss over the steps to the same "
            f"loss here, seed by seed. If a run never gets there: the steps that {reference} needs "
            f"to the loss with which that run ends, over {steps}. Each at the rate that gets there "
            "first; for a task the mean over seeds."
        ),
        f"P(beats {reference})": (
            f"The probability that a run scores above one of tuned {reference} on the same task, "
            "averaged over tasks; one half for equals."
        ),
        "diverged": (
            "Runs in which a loss was not finite, or the training loss ended above its start. A "
            f"loss that is not finite or above {cap} counts as that; no run is left out."
        ),
        "µs/step": "The time of a training step of one run alone on the device of the evaluation.",
        "state": "The memory of the optimizer's state.",
        "all tasks": (
            "Interquartile means over all runs, with 95% intervals of the bootstrap stratified by "
            f"task, which takes {FEWEST_SEEDS} seeds. Tasks on which tuned {reference} makes no "
            "progress are left out."
        ),
        "horizons": (
            f"The picture of sensitivity has runs from T/{LONGER} to {LONGER}T, {reference} tuned "
            "for each length."
        ),
    }
