"""What is wrong with a problem or a task of somebody's own, found before anything runs."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metaopt.core.errors import UserError
from metaopt.core.metric import Metric
from metaopt.core.theta import theta_paths
from metaopt.core.types import PyTree, Task, UnrolledProblem


def check_problem(name: str, problem: UnrolledProblem, data: PyTree) -> None:
    """Checks every function of a problem with `jax.eval_shape`.

    Args:
      name: what to call it.
      problem: what is checked.
      data: what its ``data`` gave.

    Raises:
      UserError: naming the problem and the field at fault. What its functions raise themselves is
        theirs and goes on as it is.

    Examples:
      >>> vector = UnrolledProblem(
      ...     init=lambda theta, data, horizon, key: theta,
      ...     step=lambda theta, state, data: (state, state),
      ...     init_theta=lambda key: jnp.zeros(2),
      ... )
      >>> check_problem("mine", vector, ())
      Traceback (most recent call last):
      ...
      metaopt.core.errors.UserError: problem 'mine': step's loss must be a float scalar, got ...
    """
    fault = _fault(f"problem {name!r}")
    key = jax.random.key(0)
    if not isinstance(problem.test_metric, Metric):
        raise fault(f"test_metric must be a metaopt.Metric, got {problem.test_metric!r}")
    if problem.loss_cap is not None and not isinstance(problem.loss_cap, int | float):
        raise fault(f"loss_cap must be a number or None, got {problem.loss_cap!r}")
    for field in ("done", "test_loss", "render", "stream"):
        value = getattr(problem, field)
        if value is not None and not callable(value):
            raise fault(f"{field} must be a function or None, got {value!r}")
    _check_data(fault, data)
    theta = _floats(fault, "init_theta", problem.init_theta, key)
    state = jax.eval_shape(problem.init, theta, data, jnp.int32(8), key)
    try:
        jax.tree.map(lambda shared, part: None, problem.shared, state)
    except ValueError as error:
        raise fault(f"shared must be a tree like the state's, or a part of it: {error}") from error
    done = jax.eval_shape(problem.step, theta, state, data)
    if not (isinstance(done, tuple) and len(done) == 2):
        raise fault(f"step must return (state, loss), got {_shown(done)}")
    after, loss = done
    _check_kept(fault, state, after)
    _check_scalar(fault, "step's loss", loss)
    if problem.done is not None:
        _check_scalar(fault, "done", jax.eval_shape(problem.done, state), jnp.bool_, "bool")
    if problem.test_loss is not None:
        measured = jax.eval_shape(problem.test_loss, theta, data, key)
        _check_scalar(fault, "test_loss", measured)


def check_task(name: str, task: Task, data: PyTree) -> None:
    """Checks every function of a task with `jax.eval_shape`; see `check_problem`."""
    fault, key = _fault(f"task {name!r}"), jax.random.key(0)
    _check_data(fault, data)
    member = jax.eval_shape(task.sample, key)
    params = _floats(fault, "init", task.init, member, key, some=False)
    for split in ("train", "valid"):
        batch = jax.eval_shape(
            lambda data, member, key, split=split: task.batch(data, member, split, key),
            data,
            member,
            key,
        )
        for field in ("loss", "accuracy"):
            function = getattr(task, field)
            if function is not None:
                said = jax.eval_shape(function, member, params, batch, key)
                _check_scalar(fault, field, said)


def _fault(whose: str) -> Callable[[str], UserError]:
    return lambda what: UserError(f"{whose}: {what}.")


def _shown(tree: PyTree) -> str:
    """Shapes and dtypes in short."""
    return str(jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", tree)).replace("'", "")


def _check_data(fault, data: PyTree) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(data):
        dtype = getattr(leaf, "dtype", np.asarray(leaf).dtype)
        if not jnp.issubdtype(dtype, jax.dtypes.extended) and np.dtype(dtype).kind in "OSU":
            where = jax.tree_util.keystr(path) or "it"
            raise fault(f"data must be arrays of numbers, got dtype {dtype} at {where}")


def _floats(fault, field: str, function, *arguments, some: bool = True) -> PyTree:
    """The shapes that a function makes, each a float array of a path of its own."""
    made = jax.eval_shape(function, *arguments)
    paths, leaves = theta_paths(made), jax.tree.leaves(made)
    for path, leaf in zip(paths, leaves, strict=True):
        if not jnp.issubdtype(leaf.dtype, jnp.floating) and some:
            raise fault(f"{field} must make float arrays, got {leaf.dtype} at {path!r}")
    if twice := sorted({path for path in paths if paths.count(path) > 1}):
        raise fault(f"{field} must make a tree of different paths, got {twice[0]!r} twice")
    if some and not sum(leaf.size for leaf in leaves):
        raise fault(f"{field} must make at least one number, got {_shown(made)}")
    return made


def _check_scalar(fault, what: str, got: Any, kind: Any = jnp.floating, word: str = "float"):
    is_array = hasattr(got, "shape") and hasattr(got, "dtype")
    if not is_array or got.shape != () or not jnp.issubdtype(got.dtype, kind):
        raise fault(f"{what} must be a {word} scalar, got {_shown(got)}")


def _check_kept(fault, before: PyTree, after: PyTree) -> None:
    """The state keeps its tree, shapes and dtypes over a step."""
    structures: list[Any] = [jax.tree.structure(tree) for tree in (before, after)]
    if structures[0] != structures[1]:
        raise fault(f"step must return a state like init's, {_shown(before)}, got {_shown(after)}")
    named = zip(theta_paths(before), *map(jax.tree.leaves, (before, after)), strict=True)
    for path, old, new in named:
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            raise fault(
                f"step must keep the state's shapes and dtypes, got {_shown(new)} at {path!r} "
                f"where init makes {_shown(old)}"
            )
