"""The environments of gymnax (https://github.com/RobertTLange/gymnax, Apache-2.0) as problems.

They are JAX on any device: CartPole, Acrobot, Pendulum, MountainCar, MinAtar, bsuite and others. An
action of several choices is the largest of the policy's outputs; a bounded one is their tanh,
scaled to the bounds.
"""

import math
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metaopt import UnrolledProblem, UserError, choose
from metaopt.tasks.policies import Environment, learned_policy


class GymnaxState(NamedTuple):
    """An environment of gymnax in an episode.

    Attributes:
      inside: its own state.
      observed: float32 ``[o]``, everything that it shows in one row.
      ended: bool scalar, terminated or truncated.
      key: of the next step.
    """

    inside: Any
    observed: jax.Array
    ended: jax.Array
    key: jax.Array


def gymnax(
    *,
    env: str = "CartPole-v1",
    hidden: tuple[int, ...] = (),
    normalise: bool = False,
    test_episodes: int = 100,
) -> UnrolledProblem:
    """An environment of gymnax by its name, without its automatic reset.

    The horizon should be its ``max_steps_in_episode``. Needs ``metaopt[gymnax]``.

    Args:
      env: the name, such as ``"Breakout-MinAtar"``.
      hidden, normalise: as in `metaopt.tasks.cartpole`.
      test_episodes: from how many starts it is tested: the mean return of whole episodes.

    Raises:
      ValueError: for widths that are not positive integers, or no test episode.
      UserError: where gymnax is not installed, or has no such environment.
    """
    if find_spec("gymnax") is None:
        raise UserError("env needs the package gymnax: pip install 'metaopt[gymnax]'.")
    import gymnax as library

    choose("environment of gymnax", env, {name: name for name in library.registered_envs})
    # It mixes dtypes and Python's numbers; a state keeps the types that it starts with.
    standard = lambda: jax.numpy_dtype_promotion("standard")
    try:
        with standard():
            made, params = library.make(env)
            act, outputs = _actions(made.action_space(params))
    except Exception as error:  # one downloads its data
        raise UserError(f"gymnax cannot make {env!r} ({error}): choose another env.") from error
    row = lambda seen: jnp.concatenate([jnp.ravel(x).astype(jnp.float32) for x in seen])

    def reset(key):
        key, own = jax.random.split(key)
        with standard():
            observed, inside = made.reset_env(own, params)
            inside = jax.tree.map(lambda x: jax.lax.convert_element_type(x, _dtype(x)), inside)
            return GymnaxState(inside, row(jax.tree.leaves(observed)), jnp.bool_(False), key)

    def step(state, outputs):
        key, own = jax.random.split(state.key)
        with standard():
            observed, inside, reward, ended, _ = made.step_env(
                own, state.inside, act(outputs), params
            )
            ended = jnp.logical_or(ended, made.is_truncated(inside, params))
            alike = lambda new, old: jnp.asarray(new, old.dtype).reshape(old.shape)
            inside = jax.tree.map(alike, inside, state.inside)
            reward = jnp.asarray(reward, jnp.float32).reshape(())
            after = GymnaxState(inside, row(jax.tree.leaves(observed)), ended.reshape(()), key)
        return after, reward

    environment = Environment(
        steps=int(params.max_steps_in_episode),
        observed=jax.eval_shape(reset, jax.random.key(0)).observed.shape[0],
        outputs=outputs,
        reset=reset,
        observe=lambda state: state.observed,
        step=step,
        done=lambda state: state.ended,
    )
    return learned_policy(
        environment, hidden=hidden, normalise=normalise, test_episodes=test_episodes
    )


def _actions(space: Any) -> tuple[Any, int]:
    """From a policy's outputs to an action, and how many outputs it takes."""
    if hasattr(space, "n"):
        return lambda outputs: jnp.argmax(outputs).astype(jnp.int32), int(space.n)
    shape = tuple(space.shape)
    low, high = (np.broadcast_to(np.float32(bound), shape) for bound in (space.low, space.high))
    bounded = np.isfinite(low) & np.isfinite(high)
    middle, half = np.where(bounded, (low + high) / 2, 0), np.where(bounded, (high - low) / 2, 1)

    def act(outputs):
        values = outputs.reshape(shape)
        return jnp.where(bounded, middle + half * jnp.tanh(values), values)

    return act, math.prod(shape)


def _dtype(value: Any) -> Any:
    """float32 or int32 of Python's numbers and weak types."""
    return jax.dtypes.canonicalize_dtype(jnp.result_type(value))
