"""Whether an optimizer is evaluated on what it was meta-trained on, in a sentence."""

import jax

from metaopt.config.schema import innermost
from metaopt.core.types import Task
from metaopt.evaluation.inputs import TrainedOn, label


def in_trained_range(on: TrainedOn | None, name: str, task: Task, num_steps: int) -> str:
    """Where a task lies, by its name, its largest tensor and the length of its runs.

    Args:
      on: what the optimizer says of its training; ``None`` if it says nothing.
      name: the task's, as an evaluation calls it.
      task: the task.
      num_steps: T.

    Examples:
      >>> from metaopt.config.schema import Component
      >>> from metaopt.tasks import TASKS
      >>> on = TrainedOn((Component("quadratic"),), 8, 8, 8, 4)
      >>> in_trained_range(on, "quadratic", TASKS["quadratic"](), 8)
      'in its trained range'
      >>> in_trained_range(on, "quadratic:dim=9", TASKS["quadratic"](dim=9), 8)
      'outside its trained range: trained on quadratic, on tensors of up to 4 elements (here 9)'
      >>> on = on._replace(tasks=(Component("progress", ("task=quadratic",)),))
      >>> in_trained_range(on, "quadratic", TASKS["quadratic"](), 8)
      'in its trained range'
    """
    if on is None:
        return "what it was trained on is not known"
    faults = []
    inner = [label(innermost(one)) for one in on.tasks]  # a wrapped task is in the range, too
    if not inner:
        faults.append("on a task that is not in the catalogue")
    elif name not in (*inner, *map(label, on.tasks)):
        faults.append(f"on {', '.join(dict.fromkeys(inner))}")
    params = jax.eval_shape(lambda key: task.init(task.sample(key), key), jax.random.key(0))
    here = max((leaf.size for leaf in jax.tree.leaves(params)), default=0)
    if on.largest_tensor is not None and here > on.largest_tensor:
        faults.append(f"on tensors of up to {on.largest_tensor:,} elements (here {here:,})")
    if not on.shortest <= num_steps <= on.longest:
        lengths = f"{on.longest:,}"
        if on.shortest != on.longest:
            lengths = f"{on.shortest:,} to {lengths}"
        faults.append(f"for {lengths} steps (here {num_steps:,})")
    if not faults:
        return "in its trained range"
    return f"outside its trained range: trained {', '.join(faults)}"
