"""Environments as problems: a small network as a policy, and how well it does."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from metaopt import Metric, Observations, RunningStatistics, UnrolledProblem, unroll


class Environment(NamedTuple):
    """What a policy acts in.

    Attributes:
      steps: of an episode, at most.
      observed: how many numbers are observed.
      outputs: how many the policy gives.
      reset: ``key -> state``, at an episode's start.
      observe: ``state -> [o]``, float32.
      step: ``(state, outputs [a]) -> (state, reward)``.
      done: ``state -> bool scalar``, whether the episode has ended; ``None`` if it never does.
      differentiable: whether rewards have derivatives that say something.
    """

    steps: int
    observed: int
    outputs: int
    reset: Callable[[jax.Array], Any]
    observe: Callable[[Any], jax.Array]
    step: Callable[[Any, jax.Array], tuple[Any, jax.Array]]
    done: Callable[[Any], jax.Array] | None = None
    differentiable: bool = False


class Watched(NamedTuple):
    """A state of an environment whose observations are normalised.

    Attributes:
      state: the environment's own.
      seen: what was observed since the last outer step.
    """

    state: Any
    seen: Observations


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
            kernel = shape[0] ** -0.5 * jax.random.normal(keys[i], shape, jnp.float32)
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


def learned_policy(
    environment: Environment,
    *,
    hidden: tuple[int, ...] = (),
    bias: bool = True,
    last_variance: float = 0.0,
    normalise: bool = False,
    test_episodes: int,
) -> UnrolledProblem:
    """The problem of learning a policy; the loss of a step is minus its reward.

    Args:
      environment: what the policy acts in.
      hidden, bias, last_variance: of its network, see `policy`.
      normalise: whether observations are normalised by running statistics, within theta as
        ``"observations"``. A state is then a `Watched`.
      test_episodes: the test metric is the mean return of so many whole episodes, from fresh
        starts, of theta without noise.

    Raises:
      ValueError: as `policy`, and for no test episode.
    """
    if not isinstance(test_episodes, int) or test_episodes < 1:
        raise ValueError(f"test_episodes must be an integer of at least 1, got {test_episodes!r}.")
    shape = (environment.observed,)
    network = policy(
        *shape, environment.outputs, hidden=hidden, bias=bias, last_variance=last_variance
    )

    def init_theta(key):
        theta = network.init(key)
        return theta | {"observations": RunningStatistics.fresh(shape)} if normalise else theta

    def init(theta, data, horizon, key):
        state = environment.reset(key)
        return Watched(state, Observations.none(shape)) if normalise else state

    def step(theta, state, data):
        if not normalise:
            outputs = network.outputs(theta, environment.observe(state))
            state, reward = environment.step(state, outputs)
            return state, -reward
        statistics, observed = theta["observations"], environment.observe(state.state)
        outputs = network.outputs(theta, statistics.normalise(observed))
        after, reward = environment.step(state.state, outputs)
        return Watched(after, state.seen.add(statistics, observed)), -reward

    def mean_return(theta, data, key):
        def run(key):
            start = init(theta, data, environment.steps, key)
            return -unroll(problem, theta, start, data, environment.steps)[1].sum()

        return jax.vmap(run)(jax.random.split(key, test_episodes)).mean()

    done = environment.done
    problem = UnrolledProblem(
        init=init,
        step=step,
        init_theta=init_theta,
        differentiable=environment.differentiable,
        done=(lambda state: done(state.state)) if done and normalise else done,
        test_loss=mean_return,
        test_metric=Metric("return", higher_is_better=True),
    )
    return problem
