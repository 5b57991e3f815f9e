"""Small networks as policies: from what is observed to what is done, and how well they do."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from metaopt import Metric, UnrolledProblem, unroll


class Policy(NamedTuple):
    """A network without state.

    Attributes:
      init: ``key -> theta``, ``{"layer_0": {"kernel", "bias"}, ...}``.
      outputs: ``(theta, observed [o]) -> [a]``, float32, linear in the last hidden layer.
    """

    init: Callable[[jax.Array], dict[str, Any]]
    outputs: Callable[[Any, jax.Array], jax.Array]


def policy(
    observed: int,
    outputs: int,
    *,
    hidden: tuple[int, ...] = (),
    bias: bool = True,
    last_variance: float = 0.0,
) -> Policy:
    """A network with tanh after every layer but the last; linear where nothing is hidden.

    Args:
      observed: how many numbers it sees.
      outputs: how many it gives.
      hidden: widths of the hidden layers, whose weights start with variance 1 / fan-in.
      bias: whether layers have one; it starts at 0.
      last_variance: the last layer's weights start from a normal distribution truncated at two
        standard deviations, of this variance over the fan-in; at 0 if it is 0.

    Raises:
      ValueError: for widths that are not positive integers.

    Examples:
      >>> linear = policy(3, 2, bias=False)
      >>> theta = linear.init(jax.random.key(0))
      >>> theta["layer_0"]["kernel"].shape, linear.outputs(theta, jnp.ones(3)).tolist()
      ((3, 2), [0.0, 0.0])
    """
    widths = tuple(hidden)
    if not all(isinstance(width, int) and width > 0 for width in widths):
        raise ValueError(f"hidden must hold positive integers, got {hidden}.")
    sizes = (observed, *widths, outputs)

    def init(key):
        keys = jax.random.split(key, len(sizes))
        theta: dict[str, Any] = {}
        for i, shape in enumerate(pairwise(sizes)):
            kernel = shape[0] ** -0.5 * jax.random.normal(keys[i], shape)
            if i == len(widths):
                kernel = jnp.zeros(shape)
                if last_variance:
                    scaled = jax.nn.initializers.variance_scaling
                    kernel = scaled(last_variance, "fan_in", "truncated_normal")(keys[i], shape)
            theta[f"layer_{i}"] = {"kernel": kernel}
            if bias:
                theta[f"layer_{i}"]["bias"] = jnp.zeros(shape[1])
        return theta

    def apply(theta, x):
        for i in range(len(sizes) - 1):
            layer = theta[f"layer_{i}"]
            x = (jnp.tanh(x) if i else x) @ layer["kernel"]
            x = x + layer["bias"] if bias else x
        return x

    return Policy(init, apply)


def tested_by_return(problem: UnrolledProblem, steps: int, episodes: int) -> UnrolledProblem:
    """A problem whose test metric is the mean return: of theta without noise, from fresh starts.

    Args:
      problem: its losses are minus rewards.
      steps: of an episode.
      episodes: how many of them.

    Raises:
      ValueError: for no episode.
    """
    if not isinstance(episodes, int) or episodes < 1:
        raise ValueError(f"test_episodes must be an integer of at least 1, got {episodes!r}.")

    def mean_return(theta, data, key):
        def run(key):
            start = problem.init(theta, data, steps, key)
            return -unroll(problem, theta, start, data, steps)[1].sum()

        return jax.vmap(run)(jax.random.split(key, episodes)).mean()

    metric = Metric("return", higher_is_better=True)
    return problem._replace(test_loss=mean_return, test_metric=metric)
