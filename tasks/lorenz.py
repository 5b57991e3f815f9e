"""The Lorenz system: meta-learn two of its parameters from one trajectory of z.

    dx = a (y - x),  dy = (r - z) x - y,  dz = x y - b z        (explicit Euler, dt = 0.005)

theta = (log a, log r), b known; L_t = (z_t - z_t^truth)^2 after the step. The loss is so rugged in
theta that backpropagation through the 2000 steps is useless: the paper's first experiment (Li et
al. 2023, arXiv 2304.12180).
"""

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp

from metaopt import UnrolledProblem, unroll

A, B, R = 10.0, 8 / 3, 28.0
DT = 0.005
START = (1.2, 1.3, 1.6)
THETA = (3.116, 3.7)
HORIZON = 2000


class LorenzState(NamedTuple):
    """Attributes: ``model`` and ``truth``, float32 ``[3]`` each: x, y, z."""

    model: jax.Array
    truth: jax.Array


def lorenz(*, start_noise: float = 0.0, test_starts: int = 10_000) -> UnrolledProblem:
    """Fit log r and log a of a chaotic Lorenz system to the path of a true one.

    The test loss is the mean over T = 2000 steps from perturbed starts.

    Args:
      start_noise: standard deviation of the normal noise on each coordinate of an episode's start;
        0 for the paper's single trajectory.
      test_starts: starts of the test loss, each perturbed by N(0, 1) a coordinate.

    Raises:
      ValueError: where ``start_noise`` is negative or ``test_starts`` below 1.

    Examples:
      >>> problem = lorenz()
      >>> theta = problem.init_theta(jax.random.key(0))
      >>> state, loss = problem.step(theta, problem.init(theta, (), 2000, jax.random.key(1)), ())
      >>> bool(loss < 1e-2)
      True
    """
    if not start_noise >= 0 or test_starts < 1:
        raise ValueError(
            f"start_noise must be at least 0 and test_starts at least 1, got {start_noise} and "
            f"{test_starts}."
        )
    true_theta = jnp.log(jnp.array([A, R], jnp.float32))

    def init(theta, data, horizon, key):
        start = jnp.array(START, jnp.float32)
        if start_noise:
            start += start_noise * jax.random.normal(key, (3,), jnp.float32)
        return LorenzState(start, start)

    def step(theta, state, data):
        model, truth = _euler(theta, state.model), _euler(true_theta, state.truth)
        return LorenzState(model, truth), jnp.square(model[2] - truth[2])

    problem = UnrolledProblem(
        init,
        step,
        init_theta=lambda key: jnp.array(THETA, jnp.float32),
        shared=cast(Any, LorenzState)(model=False, truth=True),
    )

    def test_loss(theta, data, key):
        perturbed = jnp.array(START) + jax.random.normal(key, (test_starts, 3), jnp.float32)
        run = lambda start: unroll(problem, theta, LorenzState(start, start), data, HORIZON)[
            1
        ].mean()
        return jax.vmap(run)(perturbed).mean()

    return problem._replace(test_loss=test_loss)


def _euler(theta: jax.Array, position: jax.Array) -> jax.Array:
    a, r = jnp.exp(theta)
    x, y, z = position
    return position + DT * jnp.stack([a * (y - x), (r - z) * x - y, x * y - B * z])
