"""A toy whose whole meta-loss surface can be drawn: two numbers that steer gradient descent in 2-D.

    f(x) = sqrt(x0^2 + 5) - sqrt(5) + sin^2(x1) exp(-5 x0^2) + |x1 - 100| / 4,  x starts at (1, 1)
    x <- x - ((1 - t/T) exp(theta0) + (t/T) exp(theta1)) grad f(x)

Vicol et al. 2021 (PES, arXiv 2112.13835) and Vicol 2023 (ES-Single, arXiv 2304.11153). The ripples
that sin^2 leaves in the meta-loss trap a gradient, and windows that are cut short ask for rates
that are too low; a smoothed and unbiased one goes through to the low region.
"""

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp

from metaopt import UnrolledProblem, unroll
from metaopt.tasks.supervised import positive


class ToyState(NamedTuple):
    """Attributes: ``x`` float32 ``[2]``; ``step`` and ``horizon`` int32 scalars."""

    x: jax.Array
    step: jax.Array
    horizon: jax.Array


def toy_regression(
    *, start_rates: tuple[float, float] = (0.01, 0.01), test_steps: int = 100
) -> UnrolledProblem:
    """Tune the first and the last rate of a linear schedule, in logarithms; L_t = f after step t.

    An episode is the same every time; its length T belongs to the schedule.

    Args:
      start_rates: the two rates where theta starts.
      test_steps: the test loss is the mean over an episode of so many steps, under theta itself.

    Raises:
      ValueError: unless there are two rates above 0, and for no test step.

    Examples:
      >>> problem = toy_regression()
      >>> theta = problem.init_theta(jax.random.key(0))
      >>> state, loss = problem.step(theta, problem.init(theta, (), 100, jax.random.key(1)), ())
      >>> state.x.round(3).astype(int).tolist(), theta.shape
      ([0, 1], (2,))
    """
    if len(start_rates) != 2 or not min(start_rates) > 0:
        raise ValueError(f"start_rates must be two numbers above 0, got {tuple(start_rates)}.")

    positive(test_steps=test_steps)

    def init(theta, data, horizon, key):
        return ToyState(jnp.ones(2), jnp.int32(0), jnp.asarray(horizon, jnp.int32))

    def step(theta, state, data):
        first, last = jnp.exp(theta)
        done = state.step.astype(jnp.float32) / state.horizon.astype(jnp.float32)
        x = state.x - ((1 - done) * first + done * last) * jax.grad(height)(state.x)
        return ToyState(x, state.step + 1, state.horizon), height(x)

    problem = UnrolledProblem(
        init,
        step,
        init_theta=lambda key: jnp.log(jnp.array(start_rates, jnp.float32)),
        shared=cast(Any, ToyState)(x=False, step=True, horizon=True),
    )

    def test_loss(theta, data, key):
        state = init(theta, data, test_steps, key)
        return unroll(problem, theta, state, data, test_steps)[1].mean()

    return problem._replace(test_loss=test_loss)


def height(x: jax.Array) -> jax.Array:
    """f at a point ``[2]``.

    Examples:
      >>> float(height(jnp.array([0.0, 100.0]))) < 0.3
      True
    """
    bowl = jnp.sqrt(x[0] ** 2 + 5) - 5**0.5
    ripples = jnp.square(jnp.sin(x[1])) * jnp.exp(-5 * x[0] ** 2)
    return bowl + ripples + jnp.abs(x[1] - 100) / 4
