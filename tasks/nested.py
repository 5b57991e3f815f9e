"""Meta-training as a task: the parameters are a learned optimizer's theta.

What trains it is a learned optimizer, too, so that meta-training is nested: each of its inner steps
unrolls T steps of the innermost training and goes back through all of them.
"""

from typing import Any

import jax
import jax.numpy as jnp

from metaopt import PyTree, Task, inner, make_optimizer, make_task, unroll
from metaopt.tasks.supervised import positive


def nested(
    *,
    task: str | Task = "image_mlp",
    optimizer: str = "scheduled_adam",
    num_steps: int = 10,
    batch_size: int = 1,
) -> Task:
    """Training a learned optimizer for a few steps of a task: its mean loss along the way.

    A batch is ``batch_size`` initialisations with their own sequences of batches. All losses of a
    split, those that the innermost training descends as well, are of that split's rows.

    Args:
      task: what is trained innermost, a name with arguments or a task. Its data are those of one
        split: a dict of splits, or none.
      optimizer: what the parameters are of, a name with arguments, such as ``"mlp hidden=[8]"``.
      num_steps: T, steps of the innermost training.
      batch_size: inner trainings a batch.

    Raises:
      ValueError: for a value out of its range.
      UserError: for a name that there is not.

    Examples:
      >>> toy = nested(task="quadratic", optimizer="sgd", num_steps=2)
      >>> toy.init((), jax.random.key(0))["log_lr"].shape
      ()
    """
    positive(num_steps=num_steps, batch_size=batch_size)
    plain = make_task(task) if isinstance(task, str) else task
    if not isinstance(plain, Task):
        raise ValueError(f"task must be a task's name or a metaopt.Task, got {plain!r}.")
    learned = make_optimizer(optimizer)
    problem = inner.training(plain, learned)
    cap = jnp.inf if plain.loss_cap is None else plain.loss_cap

    def batch(data: PyTree, config: PyTree, split: str, key: Any) -> PyTree:
        rows = data[split] if isinstance(data, dict) and split in data else None
        of = data if rows is None else {"train": rows, "valid": rows}
        key = jax.random.key(0) if key is None else key
        return {"data": of, "keys": jax.random.split(key, batch_size)}

    def loss(config: PyTree, theta: PyTree, batch: PyTree, key: Any) -> jax.Array:
        def one(key):
            state = problem.init(theta, batch["data"], num_steps, key)
            losses = unroll(problem, theta, state, batch["data"], num_steps)[1]
            return jnp.where(losses < cap, losses, cap).mean()

        return jax.vmap(one)(batch["keys"]).mean()

    return Task(plain.data, lambda config, key: learned.init(key), batch, loss)
