"""How many times fewer steps an optimizer takes than a tuned reference.

The speed-up is the steps that the reference needs to its own final loss over those to the same loss
here, on the same seed; where a run never gets there, the steps that the reference needs to the loss
with which that run ends, over T. So it is above 1 for what ends below the reference and below 1 for
what ends above it, and losses of any sign will do. A baseline is at the rate that needs the fewest
steps on average. On a seed where the reference itself makes no progress its steps are T, and ours
are those to any progress at all.
"""

import numpy as np


def best(values: np.ndarray) -> int:
    """The index of the rate whose ``[rates, seeds]`` values are lowest on average."""
    means = values.mean(axis=1)
    return int(np.argmin(np.where(np.isnan(means), np.inf, means)))


def steps_to_reach(
    targets: np.ndarray, curves: np.ndarray, every: int
) -> tuple[np.ndarray, np.ndarray]:
    """Steps after which the best loss so far is at most the target, at the best rate.

    Args:
      targets: ``[seeds]``.
      curves: ``[rates, seeds, points + 1]``, a measurement every ``every`` steps.
      every: that.

    Returns:
      Steps ``[seeds]``, along a straight line between two measurements, and the length of the
      curves where the target is never reached; and whether it is.

    Examples:
      >>> curve = np.array([[[4.0, 2.0, 3.0, 1.0]]])
      >>> [steps_to_reach(np.array([t]), curve, 10)[0].item() for t in (5.0, 3.0, 1.5, 0.5)]
      [0.0, 5.0, 25.0, 30.0]
    """
    lowest = np.minimum.accumulate(curves.astype(np.float64), axis=-1)
    reached = lowest <= targets[:, None]
    ever, first = reached[..., -1], reached.argmax(axis=-1)
    take = lambda index: np.take_along_axis(lowest, np.maximum(index, 0)[..., None], -1)[..., 0]
    above, below = take(first - 1), take(first)
    inside = ever & (first > 0)
    part = (above - targets) / np.where(inside, above - below, 1.0)
    steps = np.where(ever, first - np.where(inside, 1 - part, 0.0), curves.shape[-1] - 1) * every
    # Of rates that tie, the one that gets there more often.
    fastest = np.lexsort((-ever.mean(axis=1), steps.mean(axis=1)))[0]
    return steps[fastest], ever[fastest]


def speed_ups(ours: np.ndarray, reference: np.ndarray, every: int) -> np.ndarray:
    """Speed-ups ``[seeds]`` over the reference; see the module.

    Args:
      ours, reference: ``[rates, seeds, points + 1]`` counted losses of runs of T steps.
      every: inner steps between two measurements.

    Examples:
      >>> adam = np.array([[[4.0, 3.0, 2.0]]])
      >>> quick, slow = np.array([[[4.0, 2.0, 1.0]]]), np.array([[[4.0, 4.0, 3.0]]])
      >>> speed_ups(quick, adam, 10).item(), speed_ups(slow, adam, 10).item()
      (2.0, 0.5)
    """
    length = every * (reference.shape[-1] - 1)
    start = reference[0, :, 0]
    goal = reference[best(reference[..., -1]), :, -1]
    end = ours[best(ours[..., -1]), :, -1]
    here, gets_there = steps_to_reach(goal, ours, every)
    there, _ = steps_to_reach(goal, reference, every)
    to_ours, _ = steps_to_reach(end, reference, every)
    stuck = goal >= start
    below = ours[best(ours[..., -1])] < start[:, None]
    to_any = every * np.where(below.any(axis=-1), below.argmax(axis=-1), ours.shape[-1] - 1)
    here, there = np.where(stuck, to_any, here), np.where(stuck, length, there)
    # Where it gets there it needs some steps: its start is above the goal.
    return np.where(gets_there, there / np.where(gets_there, here, 1.0), to_ours / length)
