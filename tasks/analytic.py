"""Problems whose answer is known on paper: what the estimators are checked against."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from metaopt import Task, UnrolledProblem


class RecursionState(NamedTuple):
    """Attributes: ``s`` float32 ``[state_dim]``; ``step`` int32 scalar, steps done."""

    s: jax.Array
    step: jax.Array


def linear_recursion(
    *, dim: int = 5, state_dim: int = 3, loss: str = "linear", seed: int = 0
) -> UnrolledProblem:
    """s_t = A s_{t-1} + B theta from s_0 = 1, with fixed random A (spectral norm 0.9) and B.

    The loss is c_t . s_t with ``loss="linear"`` and |s_t - c_t|^2 / 2 with ``"quadratic"``, where
    c_t is a fixed random vector of step t (of t mod 64). Smoothing theta with a Gaussian leaves the
    gradient of either unchanged, so that an ES estimate is unbiased for the gradient itself.

    Args:
      dim: d, the size of theta.
      state_dim: the size of the state.
      loss: ``"linear"`` or ``"quadratic"``.
      seed: of A, B and the read-outs.

    Raises:
      ValueError: for another ``loss``, or a size below 1.

    Examples:
      >>> problem = linear_recursion(dim=2)
      >>> theta = problem.init_theta(jax.random.key(0))
      >>> state, loss = problem.step(theta, problem.init(theta, (), 4, jax.random.key(1)), ())
      >>> theta.shape, loss.shape
      ((2,), ())
    """
    if loss not in ("linear", "quadratic"):
        raise ValueError(f"loss must be 'linear' or 'quadratic', got {loss!r}.")
    if dim < 1 or state_dim < 1:
        raise ValueError(f"dim and state_dim must be at least 1, got {dim} and {state_dim}.")
    keys = jax.random.split(jax.random.key(seed), 3)
    a = jax.random.normal(keys[0], (state_dim, state_dim), jnp.float32)
    a = 0.9 * a / jnp.linalg.norm(a, 2)
    b = jax.random.normal(keys[1], (state_dim, dim), jnp.float32) / jnp.sqrt(dim)
    readouts = jax.random.normal(keys[2], (64, state_dim), jnp.float32)

    def init(theta, data, horizon, key):
        return RecursionState(jnp.ones(state_dim), jnp.int32(0))

    def step(theta, state, data):
        s = a @ state.s + b @ theta
        c = readouts[state.step % 64]
        value = c @ s if loss == "linear" else jnp.square(s - c).sum() / 2
        return RecursionState(s, state.step + 1), value

    return UnrolledProblem(init, step, init_theta=lambda key: jnp.zeros(dim))


def influence_balancing(*, size: int = 23, positive: int = 10) -> UnrolledProblem:
    """A parameter that helps at first and harms later: the standard test for truncation bias.

    s_t = A s_{t-1} + theta b from s_0 = 0, with A = (identity + superdiagonal) / 2, b = +1 for the
    first ``positive`` entries and -1 for the others, and the loss (s_t[0] - 1)^2 / 2 after step t.
    theta is a scalar that starts at 0.5. Within a step s[0] rises with theta; but what enters at
    entry i arrives at s[0] about 2i steps later, and in the end s[0] = 2 (2 positive - size) theta,
    which is -6 theta: the optimum of long horizons is near theta = -1/6, while windows much shorter
    than 2 ``size`` steps push theta up.

    The dynamics, the loss and theta's start are of Tallec and Ollivier 2017 (arXiv 1702.05043,
    section "influence balancing"), with 23 units of which 10 positive; the state's start at 0 is
    our choice, and is forgotten after some 50 steps.

    Args:
      size: of the state.
      positive: how many of its entries theta raises.

    Raises:
      ValueError: where ``positive`` is not between 1 and ``size``.

    Examples:
      >>> problem = influence_balancing()
      >>> theta = problem.init_theta(jax.random.key(0))
      >>> state = problem.init(theta, (), 200, jax.random.key(1))
      >>> for _ in range(200):
      ...     state, loss = problem.step(theta, state, ())
      >>> f"{state[0]:.3f} {loss:.3f}"
      '-3.000 8.000'
    """
    if not 1 <= positive <= size:
        raise ValueError(f"positive must be between 1 and size={size}, got {positive!r}.")
    signs = jnp.where(jnp.arange(size) < positive, 1.0, -1.0)

    def step(theta, state, data):
        following = jnp.append(state[1:], 0.0)
        state = (state + following) / 2 + theta * signs
        return state, jnp.square(state[0] - 1) / 2

    return UnrolledProblem(
        init=lambda theta, data, horizon, key: jnp.zeros(size),
        step=step,
        init_theta=lambda key: jnp.float32(0.5),
    )


def quadratic(*, dim: int = 4, curvature: float = 1.0) -> Task:
    """Minimise curvature |x|^2 / (2 dim) from a normal start: an inner task without data.

    Args:
      dim: size of x.
      curvature: the second derivative, times dim.

    Raises:
      ValueError: where ``dim`` is below 1 or ``curvature`` is not above 0.

    Examples:
      >>> float(quadratic(dim=2).loss((), jnp.array([1.0, 1.0]), (), None))
      0.5
    """
    if dim < 1 or not curvature > 0:
        raise ValueError(f"dim must be at least 1 and curvature above 0, got {dim}, {curvature}.")
    return Task(
        data=lambda: (),
        init=lambda config, key: jax.random.normal(key, (dim,), jnp.float32),
        batch=lambda data, config, split, key: (),
        loss=lambda config, params, batch, key: curvature * jnp.square(params).mean() / 2,
    )
