"""A few recorded steps of an optimizer, kept beside its theta so that drift shows.

updates_t = tx.update(grads_t, state_t, params_t, value=losses_t)
params_{t+1} = params_t + updates_t
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metaopt.core.errors import UserError
from metaopt.core.types import LearnedOptimizer, Theta

STEPS = 8
SHAPES: dict[str, tuple[int, ...]] = {
    "bias": (3,),
    "kernel": (4, 3),
    "kernels": (2, 2, 2, 3),
    "scale": (),
}


def record(optimizer: LearnedOptimizer, theta: Theta, num_steps: int) -> dict[str, np.ndarray]:
    """A trace on small parameters, gradients and losses that are the same for every optimizer.

    Args:
      optimizer: what steps.
      theta: its meta-parameters.
      num_steps: the horizon that it is told.

    Returns:
      ``params/NAME`` ``[...]``, ``grads/NAME`` and ``updates/NAME`` ``[STEPS, ...]``, ``losses``
      ``[STEPS]`` and ``num_steps`` ``[]``.
    """
    random = np.random.default_rng(0)
    normal = lambda shape: np.asarray(random.normal(size=shape), np.float32)
    trace: dict[str, np.ndarray] = {
        f"params/{name}": normal(shape) for name, shape in SHAPES.items()
    }
    trace |= {f"grads/{name}": normal((STEPS, *shape)) for name, shape in SHAPES.items()}
    trace["losses"] = np.geomspace(2, 1, STEPS, dtype=np.float32)
    trace["num_steps"] = np.asarray(num_steps, np.int32)
    updates = _replayed(optimizer, theta, trace)
    return trace | {f"updates/{name}": array for name, array in updates.items()}


def deviation(optimizer: LearnedOptimizer, theta: Theta, trace: Mapping[str, np.ndarray]) -> float:
    """How far an optimizer's steps are from recorded ones, as a fraction of a tensor's largest.

    Examples:
      >>> from metaopt.learned_optimizers import LEARNED_OPTIMIZERS
      >>> sgd, faster = (LEARNED_OPTIMIZERS["sgd"](learning_rate=rate) for rate in (0.1, 0.11))
      >>> trace = record(sgd, sgd.init(jax.random.key(0)), num_steps=10)
      >>> round(deviation(faster, faster.init(jax.random.key(0)), trace), 3)
      0.1
    """
    worst = 0.0
    for name, updates in _replayed(optimizer, theta, trace).items():
        expected = trace[f"updates/{name}"]
        largest = max(float(np.abs(expected).max()), 1e-30)  # a tensor that does not move
        worst = max(worst, float(np.abs(updates - expected).max()) / largest)
    return worst


def to_npz(trace: Mapping[str, Any]) -> bytes:
    """The file's bytes."""
    file = io.BytesIO()
    np.savez(file, **trace)  # plain numbers: nothing that would be pickled
    return file.getvalue()


def read_trace(path: Path) -> dict[str, np.ndarray]:
    """What `to_npz` wrote.

    Raises:
      UserError: where it cannot be read or is something else.
    """
    try:
        # The stream apart, since a load that fails leaves its own open.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return dict(file)
    except Exception as error:  # each damage has its own kind
        raise UserError(f"{path} cannot be read as a trace: {error!r}.") from error


def _replayed(optimizer, theta, trace) -> dict[str, np.ndarray]:
    part = lambda kind: {name: jnp.asarray(trace[f"{kind}/{name}"]) for name in SHAPES}
    tx = optimizer.optimizer(theta, int(trace["num_steps"]))

    def step(carry, given):
        params, state = carry
        grads, loss = given
        with jax.numpy_dtype_promotion("standard"):  # optax mixes counters and floats
            updates, state = tx.update(grads, state, params, value=loss)
        return (optax.apply_updates(params, updates), state), updates

    @jax.jit
    def run(params, grads, losses):
        return jax.lax.scan(step, (params, tx.init(params)), (grads, losses))[1]

    updates = run(part("params"), part("grads"), jnp.asarray(trace["losses"]))
    return {name: np.asarray(array) for name, array in updates.items()}
