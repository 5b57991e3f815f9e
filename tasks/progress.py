"""A task whose meta-loss is progress, so that tasks of all kinds weigh alike in a mixture.

    progress loss = (L - L_ref) / (L_0 - L_ref)

is 1 at the loss L_0 before the first step and 0 at the loss L_ref that a tuned optimizer reaches.
Both are stored for the zoo's members in ``references.json``, which ``python docs/zoo_table.py``
writes: the better of AdamW's and Muon's test losses with a cosine after 1,000 steps.
"""

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp

from metaopt import Task, UserError, make_task

FILE = Path(__file__).with_name("references.json")

LARGEST = 1e9
"""Above this float32 has no room left for fractions."""


class Reference(NamedTuple):
    """What is known of a member of the zoo.

    Attributes:
      parameters: how many it has.
      mflops: a training step's arithmetic, in 10^6 operations.
      microseconds: of a training step of AdamW alone on the machine that measured it.
      start: its mean test loss before the first step.
      finals: baseline -> mean and half width of the 95% interval of its tuned final test loss.
    """

    parameters: int
    mflops: float
    microseconds: float
    start: float
    finals: dict[str, tuple[float, float]]

    @property
    def best(self) -> float:
        """The lowest of the finals."""
        return min(mean for mean, _ in self.finals.values())


@cache
def references() -> dict[str, Reference]:
    """Every member that was measured.

    Examples:
      >>> known = references()["quadratic_plain"]
      >>> known.parameters, known.best < known.start
      (10, True)
    """
    return {name: Reference(**one) for name, one in json.loads(FILE.read_text()).items()}


def progress(
    *,
    task: str | Task = "quadratic_plain",
    start: float | None = None,
    reference: float | None = None,
    most: float = 2.0,
) -> Task:
    """The same task, whose meta-loss is the fraction of the way to a reference that is left.

    What the optimizer sees does not change: its gradients and ``value`` are the task's own, and so
    are the losses that an evaluation shows.

    Args:
      task: a name with arguments, or a task.
      start: L_0, the meta-loss that becomes 1; stored for members of the zoo.
      reference: L_ref, the one that becomes 0; below ``start``.
      most: the largest progress loss that counts, above 1; what is larger or not finite counts as
        that, so that one run that diverged does not drown the others.

    Raises:
      UserError: for a task that there is not, or without stored numbers where none are given.
      ValueError: for a reference that is not below the start.

    Examples:
      >>> import jax
      >>> task = progress(task=make_task("quadratic"), start=2.0, reference=0.0)
      >>> config, key = task.sample(jax.random.key(0)), jax.random.key(1)
      >>> params = task.init(config, key)
      >>> loss, left = task.loss(config, params, (), key), task.outer_loss(config, params, (), key)
      >>> bool(left == loss / 2)
      True
    """
    plain = make_task(task) if isinstance(task, str) else task
    if start is None or reference is None:
        known = references().get(task) if isinstance(task, str) else None
        if known is None:
            shown = repr(task) if isinstance(task, str) else "a task without a name"
            lacking = " and ".join(
                name for name, one in (("start", start), ("reference", reference)) if one is None
            )
            raise UserError(
                f"no reference is stored for {shown}: give {lacking}, or a member of the zoo "
                "without arguments of its own, such as task=digits_mlp_32."
            )
        start = known.start if start is None else start
        reference = known.best if reference is None else reference
    for name, value in (("start", start), ("reference", reference)):
        if not abs(value) < LARGEST:
            raise ValueError(f"{name} must be a number below {LARGEST:g}, got {value!r}.")
    if not reference < start:
        raise ValueError(f"reference must be below start={start:g}, got {reference:g}.")
    if not 1 < most < LARGEST:
        raise ValueError(f"most must be a number above 1 and below {LARGEST:g}, got {most!r}.")
    lowest, span = float(reference), float(start) - float(reference)
    measure = plain.outer_loss or plain.loss

    def outer_loss(config, params, batch, key):
        left = (measure(config, params, batch, key) - lowest) / span
        return jnp.where(left < most, left, jnp.float32(most))

    return plain._replace(outer_loss=outer_loss, loss_cap=None)  # a cap in the loss's own unit
