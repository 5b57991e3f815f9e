"""How particles' phases are spread over their episodes, and stay so when their number changes."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from metaopt.core.types import Key

Stagger = Literal["balanced", "random", "none"]
FirstEpisode = Literal["short", "burn_in"]


def all_phases(stagger: Stagger, particles: int, key: Key) -> jax.Array:
    """Each particle's phase as a fraction of its episode, float32 ``[N]`` in [0, 1)."""
    if stagger == "balanced":
        return jnp.arange(particles, dtype=jnp.float32) / particles
    if stagger == "random":
        return jax.random.uniform(key, (particles,), jnp.float32)
    return jnp.zeros((particles,), jnp.float32)


def phases_beside(stagger: Stagger, present: jax.Array, particles: int, key: Key) -> jax.Array:
    """The phases of those that make a population one of ``particles``.

    Args:
      stagger: how phases are spread.
      present: phases ``[n]`` of those there are.
      particles: N > n, how many there are to be.
      key: for ``"random"``.

    Returns:
      Float32 ``[N - n]`` in [0, 1). ``"balanced"``: those there are take n of N even places in the
      order of their phases, and these are the others. ``"none"``: in step with those there are.

    Examples:
      >>> phases_beside("balanced", jnp.array([0.0, 0.5]), 4, None).tolist()
      [0.25, 0.75]
    """
    count = len(present)
    if stagger == "balanced":
        taken = np.arange(count) * particles // count
        others = np.setdiff1d(np.arange(particles), taken)
        return (present.min() + jnp.asarray(others / particles, jnp.float32)) % 1.0
    if stagger == "random":
        return jax.random.uniform(key, (particles - count,), jnp.float32)
    return jnp.full((particles - count,), jnp.sort(present)[count // 2])


def chosen_to_stay(stagger: Stagger, present: jax.Array, particles: int) -> jax.Array:
    """Which of a population stay when it becomes one of ``particles``: indices in order.

    Args:
      stagger: how phases are spread; where ``"balanced"`` every so many-th by phase stays, so that
        they are spread evenly again, and the first ones otherwise.
      present: phases ``[n]``.
      particles: N <= n.

    Examples:
      >>> chosen_to_stay("balanced", jnp.array([0.0, 0.25, 0.5, 0.75]), 2).tolist()
      [0, 2]
    """
    if stagger != "balanced":
        return jnp.arange(particles)
    ranks = np.arange(particles) * len(present) // particles
    return jnp.sort(jnp.argsort(present)[ranks])
