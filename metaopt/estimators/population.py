"""What all estimators share: a population of particles in staggered episodes.

A particle is somewhere in an episode of its own. An estimate first starts those anew whose episode
has ended, at the present theta; then advances every particle by one window; and averages what the
particles say of the gradient. An estimator only supplies how a particle starts and advances.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from metaopt.core.sizes import bytes_of
from metaopt.core.types import Estimate, GradientEstimator, Key, PyTree, Theta, UnrolledProblem
from metaopt.estimators.horizons import Horizon, as_horizon
from metaopt.estimators.stagger import Stagger, all_phases, chosen_to_stay, phases_beside
from metaopt.parallel.chunks import advance_in_chunks, affordable
from metaopt.parallel.sharding import over_particles

FirstEpisode = Literal["short", "burn_in"]


class Episode(NamedTuple):
    """Where a particle stands.

    Attributes:
      key: the episode's key; all its randomness follows from it.
      horizon: int32, inner steps of the whole episode: a multiple of the window.
      elapsed: int32, inner steps done in it.
      updates: int32, outer steps done when it began.
    """

    key: Key
    horizon: jax.Array
    elapsed: jax.Array
    updates: jax.Array


class Window(NamedTuple):
    """What a particle brings from a window. Its estimate of the gradient is weight * direction.

    Attributes:
      carry: what the estimator keeps of the particle.
      direction: a tree like theta.
      losses: float32 ``[halves, W]``.
    """

    carry: PyTree
    direction: Theta
    losses: jax.Array


class Population(NamedTuple):
    """The estimator's state. Axis 0 of every leaf is the particle.

    Attributes:
      carry: what the estimator keeps, ``[N, ...]``.
      episode: `Episode` ``[N]``.
      remaining: ``[N]`` int32, inner steps until the particle starts anew; 0: it does so next.
      updates: ``[N]`` int32, outer steps done; the same for all.
      uncounted: ``[N]`` int32, windows of burning in that no metric has counted yet.
    """

    carry: PyTree
    episode: Episode
    remaining: jax.Array
    updates: jax.Array
    uncounted: jax.Array


def online(
    problem: UnrolledProblem,
    *,
    particles: int,
    horizon: int | Horizon,
    window: int,
    stagger: Stagger,
    first_episode: FirstEpisode,
    particles_per_chunk: int | None,
    mesh: Mesh | None,
    start: Callable[[Theta, PyTree, Episode], PyTree],
    advance: Callable[[Theta, PyTree, Episode, PyTree], Window],
    weigh: Callable[[PyTree, jax.Array, jax.Array], jax.Array],
    cost: int,
) -> GradientEstimator:
    """An estimator from how one particle starts and advances.

    Args:
      problem: what is unrolled.
      particles: N.
      horizon: T, inner steps an episode, or a distribution of them (`metaopt.estimators.horizons`).
      window: W, inner steps between two updates of theta.
      stagger: how the particles' phases are spread over the horizon: ``"balanced"`` (evenly),
        ``"random"``, or ``"none"``.
      first_episode: how a particle gets to its phase: ``"short"`` (it starts fresh and ends its
        first episode early) or ``"burn_in"`` (it is unrolled to its phase first; counted).
      particles_per_chunk: how many of a device's particles advance at a time, at most; what fits
        the cache of a CPU or the memory of an accelerator where it is ``None``. The estimate is the
        same up to rounding.
      mesh: devices for the particles.
      start: ``(theta, data, episode) -> carry``, one particle's at its episode's start.
      advance: ``(theta, data, episode, carry) -> Window``, one particle's.
      weigh: ``(carry [n, ...], losses [n, halves, W], finite [n]) -> [n]``, the weights of the
        directions.
      cost: unroll steps that a particle's window takes.

    Returns:
      A `GradientEstimator` on a `Population`. Its metrics:

      - ``nonfinite_pairs``: particles left out of the average, and started anew;
      - ``capped_pairs``: particles with a loss at the problem's cap;
      - ``resets``: particles that started an episode in this update;
      - ``unroll_steps``: all that this update took, burning in included;
      - ``particle_variance``: tr Cov of one particle's estimate, from those of this update;
      - ``snr``: squared norm of the estimate over the variance of the estimate;
      - ``half_cosine``: cosine between the estimates of the even and of the odd particles;
      - ``effective_particles``: (sum |g_i|)^2 / sum |g_i|^2, N where all say as much.

    Raises:
      ValueError: for a value out of its range, naming it and the valid ones.
    """
    horizon = as_horizon(horizon)
    validate(particles, horizon, window, stagger, first_episode, mesh)
    if particles_per_chunk is not None and (
        not isinstance(particles_per_chunk, int) or particles_per_chunk < 1
    ):
        raise ValueError(
            f"particles_per_chunk must be an integer of at least 1, got {particles_per_chunk!r}."
        )
    index = jnp.arange(particles)

    def whole_windows(steps: jax.Array) -> jax.Array:
        return jnp.maximum(jnp.round(steps / window), 1).astype(jnp.int32)

    def fresh(theta: Theta, data: PyTree, key: Key, updates: jax.Array) -> Population:
        """One particle at the start of an episode."""
        length = window * whole_windows(horizon.draw(jax.random.fold_in(key, 2), updates))
        episode = Episode(key, length, jnp.int32(0), updates)
        return Population(start(theta, data, episode), episode, length, updates, jnp.int32(0))

    def move(theta: Theta, data: PyTree, particle: Population) -> tuple[Population, Window]:
        """One particle by one window."""
        episode = particle.episode
        moved = advance(theta, data, episode, particle.carry)
        particle = particle._replace(
            carry=moved.carry,
            episode=episode._replace(elapsed=episode.elapsed + window),
            remaining=particle.remaining - window,
        )
        return particle, moved._replace(carry=())  # it is in the particle

    def init_share(replicated, share):
        theta, data, updates = replicated
        keys, phases = share
        zero = jnp.int32(0)
        particles = jax.vmap(fresh, (None, None, 0, None))(theta, data, keys, updates)
        windows = particles.episode.horizon // window  # [n]
        # The small number is for fractions that are a rounding error below a whole window.
        behind = jnp.floor(phases * windows.astype(jnp.float32) + 1e-4).astype(jnp.int32)
        behind = behind % windows
        if first_episode == "short":
            shorter = particles.remaining - behind * window
            return (), particles._replace(remaining=shorter)

        def burn(carry):
            done, particles = carry
            moved, _ = jax.vmap(move, (None, None, 0))(theta, data, particles)
            chosen = jax.vmap(optax.tree.where)(done < behind, moved, particles)
            return done + 1, chosen

        more = lambda carry: (carry[0] < behind).any()
        _, particles = jax.lax.while_loop(more, burn, (zero, particles))
        return (), particles._replace(uncounted=behind)

    def begin(theta: Theta, data: PyTree, key: Key, phases: jax.Array, updates) -> Population:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
        return over_particles(init_share, mesh)((theta, data, updates), (keys, phases))[1]

    def init(theta: Theta, data: PyTree, key: Key) -> Population:
        episodes_key, phases_key = jax.random.split(key)
        phases = all_phases(stagger, particles, phases_key)
        return begin(theta, data, episodes_key, phases, jnp.int32(0))

    def resize(theta: Theta, state: Population, data: PyTree, key: Key) -> Population:
        left = state.remaining.astype(jnp.float32) / state.episode.horizon.astype(jnp.float32)
        present, count = (1.0 - left) % 1.0, len(left)
        if count >= particles:
            stay = chosen_to_stay(stagger, present, particles)
            return jax.tree.map(lambda leaf: leaf[stay], state)
        episodes_key, phases_key = jax.random.split(key)
        beside = phases_beside(stagger, present, particles, phases_key)
        # Begun for all, so that the devices divide them, and taken where there is none yet.
        phases = jnp.concatenate([jnp.zeros_like(present), beside])
        begun = begin(theta, data, episodes_key, phases, state.updates[0])
        beyond = lambda old, new: jnp.concatenate([old, new[count:]])
        return jax.tree.map(beyond, state, begun)

    def estimate_share(replicated, share):
        theta, data, key = replicated
        state, index = share

        def renew(i):
            return fresh(theta, data, jax.random.fold_in(key, index[i]), state.updates[i])

        ended = state.remaining <= 0
        at_once = math.ceil(len(index) * window / horizon.longest)
        state = replace_where(ended, renew, state, at_once)
        uncounted = state.uncounted
        state, moved = advance_in_chunks(
            partial(move, theta, data),
            state,
            bytes_each=bytes_of(state) // len(index),
            at_once=particles_per_chunk or affordable(move, (theta, data), state),
        )
        return sums_of(state, moved, ended, uncounted, index)

    def sums_of(state, moved, ended, uncounted, index):
        losses = moved.losses  # [n, halves, W]
        sound = [
            jnp.isfinite(leaf).all(axis=range(1, leaf.ndim))
            for leaf in [losses, *jax.tree.leaves(moved.direction)]
        ]
        finite = jnp.stack(sound).all(axis=0)  # [n]
        weight = jnp.where(finite, weigh(state.carry, losses, finite), 0.0)
        # A select, never a product with 0: that would leave a NaN a NaN.
        keep = jax.vmap(lambda ok, leaf: jnp.where(ok, leaf, jnp.zeros_like(leaf)))
        direction = jax.tree.map(lambda leaf: keep(finite, leaf), moved.direction)
        square = weight**2 * jax.vmap(lambda d: optax.tree.norm(d, squared=True))(direction)
        even = index % 2 == 0
        halves = jnp.stack([jnp.where(even, weight, 0.0), jnp.where(even, 0.0, weight)])
        cap = jnp.inf if problem.loss_cap is None else problem.loss_cap
        total = lambda values: values.sum(dtype=jnp.float32)
        # All are float32, counts as well, so that they go into one all-reduce.
        sums = {
            "grad": jax.tree.map(lambda leaf: jnp.tensordot(halves, leaf, axes=1), direction),
            "loss": total(jnp.where(finite, losses.mean(axis=(1, 2)), 0.0)),
            "square": total(square),
            "length": total(jnp.sqrt(square)),
            "finite": total(finite),
            "capped": total((losses >= cap).any(axis=(1, 2))),
            "resets": total(ended),
            "uncounted": total(uncounted),
        }
        state = state._replace(
            remaining=jnp.where(finite, state.remaining, 0),
            updates=state.updates + 1,
            uncounted=jnp.zeros_like(uncounted),
        )
        return sums, (state, index)

    def estimate(theta: Theta, state: Population, data: PyTree, key: Key):
        share = over_particles(estimate_share, mesh)
        sums, (state, _) = share((theta, data, key), (state, index))
        count = sums["finite"]
        # Where no particle is finite this is 0/0: the outer step sees a NaN and skips the update.
        even = jax.tree.map(lambda leaf: leaf[0] / count, sums["grad"])
        odd = jax.tree.map(lambda leaf: leaf[1] / count, sums["grad"])
        grad = optax.tree.add(even, odd)
        signal = optax.tree.norm(grad, squared=True)
        variance = (sums["square"] - count * signal) / (count - 1)  # tr Cov of one particle
        whole = lambda name: sums[name].astype(jnp.int32)
        metrics = {
            "nonfinite_pairs": particles - whole("finite"),
            "capped_pairs": whole("capped"),
            "resets": whole("resets"),
            "unroll_steps": (particles + whole("uncounted")) * cost,
            "particle_variance": variance,
            "snr": signal * count / variance,
            "half_cosine": optax.tree.vdot(even, odd)
            / (optax.tree.norm(even) * optax.tree.norm(odd)),
            "effective_particles": sums["length"] ** 2 / sums["square"],
        }
        return Estimate(grad, sums["loss"] / count, metrics), state

    return GradientEstimator(init, estimate, resize)


def replace_where(
    mask: jax.Array, make: Callable[[jax.Array], PyTree], tree: PyTree, at_once: int
) -> PyTree:
    """Puts ``make(i)`` in place of entry i of ``tree`` wherever ``mask[i]``, and only makes those.

    Args:
      mask: bool ``[N]``.
      make: ``i -> entry``, a tree like one entry of ``tree``.
      tree: every leaf ``[N, ...]``.
      at_once: how many are made in one go, at most. The work is proportional to the number of
        marked entries, rounded up to this; where none is marked nothing is made.

    A `cond` a particle would become a select under `vmap` and make all N of them every time.

    Example:
      >>> mask = jnp.array([True, False, True])
      >>> replace_where(mask, lambda i: -1.0 * i.astype(jnp.float32), jnp.ones(3), 1).tolist()
      [-0.0, 1.0, -2.0]
    """
    out_of_range = len(mask)

    def body(carry):
        left, tree = carry
        (index,) = jnp.nonzero(left, size=at_once, fill_value=out_of_range)
        made = jax.vmap(make)(index)
        tree = jax.tree.map(lambda old, new: old.at[index].set(new, mode="drop"), tree, made)
        return left.at[index].set(False, mode="drop"), tree

    return jax.lax.while_loop(lambda carry: carry[0].any(), body, (mask, tree))[1]


def validate(particles, horizon, window, stagger, first_episode, mesh):
    """Refuses values out of their range; see `online`."""
    for name, value in [("particles", particles), ("window", window)]:
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be an integer of at least 1, got {value!r}.")
    longest = horizon.longest
    if longest % window:
        divisors = [w for w in range(1, longest + 1) if longest % w == 0]
        near = sorted(sorted(divisors, key=lambda w: abs(w - window))[:4])
        raise ValueError(
            f"window must divide horizon={longest}, got {window}; the nearest that do are "
            f"{', '.join(map(str, near))}."
        )
    if stagger not in ("balanced", "random", "none"):
        raise ValueError(f"stagger must be 'balanced', 'random' or 'none', got {stagger!r}.")
    if first_episode not in ("short", "burn_in"):
        raise ValueError(f"first_episode must be 'short' or 'burn_in', got {first_episode!r}.")
    if mesh is not None and particles % mesh.size:
        raise ValueError(
            f"the number of devices must divide particles={particles}, got {mesh.size}."
        )
