"""Inner training as an unrolled problem: task x learned optimizer.

One inner step draws a training batch, takes the gradient of its loss, lets the learned optimizer
update the parameters, and then measures the loss on a batch of the outer split: the meta-objective
is the loss on data that the inner run does not train on, averaged over the run.
"""

import math
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from metaopt.core.telescoping import telescoping as telescoped
from metaopt.core.types import Key, LearnedOptimizer, PyTree, Task, UnrolledProblem
from metaopt.core.unroll import capped, unroll


class TrainingState(NamedTuple):
    """An inner run in progress.

    Attributes:
      params: the inner parameters.
      opt_state: the learned optimizer's state.
      config: the member of the task family that is trained, ``()`` where there is only one.
      step: int32 scalar, inner steps done.
      horizon: int32 scalar, inner steps of the whole run.
      key: the episode's key; inner step t folds in t.
    """

    params: PyTree
    opt_state: PyTree
    config: PyTree
    step: jax.Array
    horizon: jax.Array
    key: Key


def training(
    task: Task,
    learned_optimizer: LearnedOptimizer,
    *,
    inner_split: str = "train",
    outer_split: str = "valid",
    whole_outer_split: bool = False,
    late: float = 0.0,
    telescoping: bool = False,
    test_steps: int | None = None,
) -> UnrolledProblem:
    """The problem of training ``task`` with ``learned_optimizer``; theta is the optimizer's.

    Args:
      task: what is trained.
      learned_optimizer: what trains it.
      inner_split: the split that the inner gradients come from.
      outer_split: the split that the loss L_t comes from, after each inner step.
      whole_outer_split: measure L_t on the whole split (for evaluation) instead of on a batch.
      late: weigh the loss of step t of T by (late + 1) (t / T)^late: at 0 all alike, at 2 the last
        fifth of the run as much as all before.
      telescoping: make the loss at the end of the run the meta-objective, by differences of losses
        on a batch that is kept for the episode: see `metaopt.core.telescoping`.
      test_steps: if given, the problem has a test loss: the mean of L_t over one episode of so many
        steps under theta itself; with ``telescoping`` the loss after the last.

    Returns:
      An `UnrolledProblem` whose state is a `TrainingState`.

    Raises:
      ValueError: for a ``late`` that is negative or not finite, or beside ``telescoping``.

    Examples:
      >>> from metaopt.learned_optimizers import LEARNED_OPTIMIZERS
      >>> from metaopt.tasks import TASKS
      >>> problem = training(TASKS["quadratic"](), LEARNED_OPTIMIZERS["sgd"]())
      >>> theta = problem.init_theta(jax.random.key(0))
      >>> state = problem.init(theta, (), 10, jax.random.key(1))
      >>> state, loss = problem.step(theta, state, ())
      >>> int(state.step), loss.shape
      (1, ())
    """

    if not (isinstance(late, int | float) and 0 <= late < math.inf):
        raise ValueError(f"late must be a finite number of at least 0, got {late!r}.")
    if late and telescoping:
        raise ValueError("telescoping counts the last loss alone: leave out late.")
    outer_loss = task.outer_loss or task.loss

    def init(theta, data, horizon, key):
        if task.sequence is not None:
            key = jax.random.key(task.sequence)
        config_key, params_key, run_key = jax.random.split(key, 3)
        config = task.sample(config_key)
        params = task.init(config, params_key)
        horizon = jnp.asarray(horizon, jnp.int32)
        opt_state = learned_optimizer.optimizer(theta, horizon).init(params)
        return TrainingState(params, opt_state, config, jnp.int32(0), horizon, run_key)

    def step(theta, state, data):
        params, opt_state, config, step, horizon, run_key = state
        keys = jax.random.split(jax.random.fold_in(run_key, step), 4)

        batch = task.batch(data, config, inner_split, keys[0])
        value, grads = jax.value_and_grad(task.loss, argnums=1)(config, params, batch, keys[1])
        with jax.numpy_dtype_promotion("standard"):  # optax mixes counters and floats
            updates, opt_state = learned_optimizer.optimizer(theta, horizon).update(
                grads, opt_state, params, value=value
            )
        params = optax.apply_updates(params, updates)

        # Steps fold in their own number, so that the largest is free for the batch that is kept.
        batch_key = jax.random.fold_in(run_key, 2**32 - 1) if telescoping else keys[2]
        batch = task.batch(data, config, outer_split, None if whole_outer_split else batch_key)
        loss = outer_loss(config, params, batch, keys[3])
        if late:
            done = (step + 1).astype(loss.dtype) / horizon.astype(loss.dtype)
            loss = (late + 1) * done**late * capped(loss, task.loss_cap)
        return TrainingState(params, opt_state, config, step + 1, horizon, run_key), loss

    problem = UnrolledProblem(
        init=init,
        step=step,
        init_theta=learned_optimizer.init,
        data=task.data,
        loss_cap=task.loss_cap and (late + 1) * task.loss_cap,
        stream=task.stream,
        shared=cast(Any, TrainingState)(
            params=False, opt_state=False, config=True, step=True, horizon=True, key=True
        ),
    )
    problem = telescoped(problem) if telescoping else problem
    if test_steps is None:
        return problem

    def test_loss(theta, data, key):
        state = problem.init(theta, data, test_steps, key)
        losses = unroll(problem, theta, state, data, test_steps)[1]
        return losses.sum() if telescoping else losses.mean()

    return problem._replace(test_loss=test_loss)
