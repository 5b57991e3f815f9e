"""What a trained optimizer has seen in meta-training, and where a use of it is far outside.

As far as shapes tell: how long runs were, how large tensors, how many there were, how many of them
had weights (two axes or more: the depth of a network), and of how many axes (vectors, matrices, the
kernels of convolutions).
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

FAR = 2
"""A number this many times larger than in meta-training is far outside."""


class TrainedRange(NamedTuple):
    """The largest that there was of everything, over the tasks of meta-training.

    Attributes:
      shortest, longest: inner steps of a run.
      largest_tensor: its elements.
      tensors: how many, of one task; ``None`` where an old file does not say it, as all below.
      weights: how many of two axes or more.
      axes: how many axes tensors had.
    """

    shortest: int
    longest: int
    largest_tensor: int
    tensors: int | None = None
    weights: int | None = None
    axes: frozenset[int] | None = None


def trained_range_in(description: Mapping[str, Any]) -> TrainedRange | None:
    """What ``config.json`` says of it; ``None`` if nothing.

    Raises:
      KeyError, TypeError, ValueError: where it is something else.

    Examples:
      >>> said = {"num_steps": [50, 200], "largest_tensor": 6}
      >>> said["parameters"] = {"w": [2, 3], "b": [3]}
      >>> trained_range_in({"trained_range": said}).weights
      1
    """
    if (said := description.get("trained_range")) is None:
        return None
    shortest, longest = map(int, said["num_steps"])
    known = TrainedRange(shortest, longest, int(said["largest_tensor"]))
    # Of several tasks each path has its task's name in front.
    tasks: dict[str, list[tuple[int, ...]]] = {}
    for path, shape in said.get("parameters", {}).items():
        tasks.setdefault(path.rpartition(": ")[0], []).append(tuple(shape))
    if not tasks:
        return known
    return known._replace(
        tensors=max(len(shapes) for shapes in tasks.values()),
        weights=max(sum(len(shape) > 1 for shape in shapes) for shapes in tasks.values()),
        axes=frozenset(len(shape) for shapes in tasks.values() for shape in shapes),
    )


def far_steps(known: TrainedRange, num_steps: int) -> list[str]:
    """What is far outside about the length of a run: a phrase, or none.

    Examples:
      >>> far_steps(TrainedRange(50, 200, 6), 1000)
      ['for 50 to 200 steps (here 1,000)']
    """
    if known.shortest <= FAR * num_steps and num_steps <= FAR * known.longest:
        return []
    several = f"{known.shortest:,} to {known.longest:,}"
    lengths = f"{known.longest:,}" if known.shortest == known.longest else several
    return [f"for {lengths} steps (here {num_steps:,})"]


def far_shapes(known: TrainedRange, params: Any) -> list[str]:
    """What is far outside about a tree of parameters: phrases.

    Examples:
      >>> far_shapes(TrainedRange(50, 200, 6, 2, 1, frozenset({1, 2})), {"w": np.ones((3, 3, 4))})
      ['on tensors of up to 6 elements (here 36)', 'on tensors of 1 or 2 axes (here 3)']
    """
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(params)]
    faults = []
    largest = max(map(math.prod, shapes), default=0)
    if largest > FAR * known.largest_tensor:
        faults.append(f"on tensors of up to {known.largest_tensor:,} elements (here {largest:,})")
    counts = (
        (known.tensors, len(shapes), "tensors in all"),
        (known.weights, sum(len(shape) > 1 for shape in shapes), "tensors with weights"),
    )
    for seen, here, what in counts:
        if seen is not None and here > FAR * max(seen, 1):
            faults.append(f"on {seen:,} {what} (here {here:,})")
    if known.axes is not None and (other := {len(s) for s in shapes} - known.axes - {0}):
        axes = " or ".join(map(str, sorted(known.axes)))
        faults.append(f"on tensors of {axes} axes (here {', '.join(map(str, sorted(other)))})")
    return faults
