"""What all estimators share: a population of particles in staggered episodes.

A particle is somewhere in an episode of its own. An estimate first starts those anew whose episode
has ended, at the present theta; then advances every particle by one window; and averages what the
particles say of the gradient. An estimator only supplies how a particle starts and advances.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from metaopt.core.sizes import bytes_of
from metaopt.core.types import GradientEstimator, Key, PyTree, Theta, UnrolledProblem
from metaopt.estimators.averages import estimate_of, sum_particles
from metaopt.estimators.continuing import Visit, extended, no_visit, watch
from metaopt.estimators.early_ends import (
    Lives,
    count_lives,
    no_lives,
    over_horizon,
    require_valid_end,
    summarise_lives,
)
from metaopt.estimators.kernel import (
    CoupledEpisode,
    Episode,
    ParticleKernel,
    Rollout,
    Turn,
    Window,
)
from metaopt.estimators.stagger import all_phases, chosen_to_stay, phases_beside
from metaopt.parallel.chunks import advance_in_chunks, affordable
from metaopt.parallel.sharding import over_particles


class Population(NamedTuple):
    """The estimator's state. Axis 0 of every leaf is the particle.

    Attributes:
      carry: what the estimator keeps, ``[N, ...]``.
      episode: `Episode` or `CoupledEpisode` ``[N]``.
      remaining: ``[N]`` int32, inner steps until the particle starts anew; 0: it does so next.
      updates: ``[N]`` int32, outer steps done; the same for all.
      uncounted: ``[N]`` int32, windows of burning in that no metric has counted yet.
    """

    carry: PyTree
    episode: Any
    remaining: jax.Array
    updates: jax.Array
    uncounted: jax.Array


class MortalPopulation(NamedTuple):
    """A `Population` where episodes can end early, with how long they lasted.

    Attributes:
      carry, episode, remaining, updates, uncounted: as in `Population`.
      lives: `Lives` ``[N]``.
    """

    carry: PyTree
    episode: Any
    remaining: jax.Array
    updates: jax.Array
    uncounted: jax.Array
    lives: Lives


class ContinuingPopulation(NamedTuple):
    """A `Population` whose episodes may go on where they would end, with how they have gone.

    Attributes:
      carry, episode, remaining, updates, uncounted: as in `Population`.
      visit: `Visit` ``[N]``.
    """

    carry: PyTree
    episode: Any
    remaining: jax.Array
    updates: jax.Array
    uncounted: jax.Array
    visit: Visit


def make_estimator(
    problem: UnrolledProblem,
    kernel: ParticleKernel,
    rollout: Rollout,
    scale_to_horizon: bool = True,
) -> GradientEstimator:
    """The estimator that averages a kernel's particles over a rollout of a problem.

    Its state is a `Population`, its metrics are those of `metaopt.estimators.averages.estimate_of`.
    Where episodes can end early the state is a `MortalPopulation`, and there are the metrics of
    `metaopt.estimators.early_ends.summarise_lives` beside; where they may go on, it is a
    `ContinuingPopulation`, with the metrics ``mean_visit`` and ``longest_visit``. The
    shortest one to read is `metaopt.estimators.tbptt`.

    Args:
      problem, kernel, rollout: what is unrolled, by what, and how many.
      scale_to_horizon: see `metaopt.estimators.gpes`.

    Raises:
      UserError: for a ``loss_after_end`` that is not finite, or has no ``done``.
      ValueError: for episodes that both end early and go on.
    """
    require_valid_end(problem)
    if problem.done is not None and rollout.continue_from is not None:
        raise ValueError(
            f"continue_from={rollout.continue_from!r} is for episodes that last to their horizons, "
            "and the problem's end early (it has done): leave continue_from out."
        )
    index = jnp.arange(rollout.particles)
    on_devices = partial(over_particles, mesh=rollout.mesh)
    start_share = on_devices(partial(_start_share, kernel, rollout, problem))
    # Beginnings of episodes only would be a bias; a run that exists has steps to spare.
    burning_in = replace(rollout, first_episode="burn_in")
    join_share = on_devices(partial(_start_share, kernel, burning_in, problem))
    estimate_share = on_devices(partial(_estimate_share, kernel, rollout, problem))

    def start_all(start, theta, data, key, phases, updates, turns) -> Population:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
        return start((theta, data, updates), (keys, phases, turns))[1]

    def init(theta: Theta, data: PyTree, key: Key) -> Population:
        episodes_key, phases_key = jax.random.split(key)
        phases = all_phases(rollout.stagger, rollout.particles, phases_key)
        frames = jax.random.fold_in(key, 2)
        turns = Turn(index, jnp.broadcast_to(frames, index.shape)) if kernel.is_coupled else ()
        return start_all(start_share, theta, data, episodes_key, phases, jnp.int32(0), turns)

    def next_turns(episode: Any, starting: jax.Array) -> PyTree:
        """Those of the particles that start, in their order; the others' are not used."""
        if not kernel.is_coupled:
            return ()
        turns = episode.turn
        number = turns.number.max() + jnp.cumsum(starting, dtype=jnp.int32)
        return Turn(number, jnp.broadcast_to(turns.frames[0], number.shape))

    def estimate(theta: Theta, state: Population, data: PyTree, key: Key):
        turns = next_turns(state.episode, state.remaining <= 0)
        sums, (state, *_) = estimate_share((theta, data, key), (state, index, turns))
        said = estimate_of(sums, rollout.particles, kernel.cost)
        if rollout.continue_from is not None:
            # Float32, because a mixture adds up its parts' counts, which are whole numbers.
            steps = state.episode.elapsed.astype(jnp.float32)
            visits = {"mean_visit": steps.mean(), "longest_visit": steps.max()}
            said = said._replace(metrics=said.metrics | visits)
        if problem.done is not None:
            said = summarise_lives(said, sums, rollout)
            said = over_horizon(said, problem.loss_after_end) if scale_to_horizon else said
        return said, state

    def resize(theta: Theta, state: Population, data: PyTree, key: Key) -> Population:
        left = state.remaining.astype(jnp.float32) / state.episode.horizon.astype(jnp.float32)
        present, count = (1.0 - left) % 1.0, len(left)
        if count >= rollout.particles:
            stay = chosen_to_stay(rollout.stagger, present, rollout.particles)
            return jax.tree.map(lambda leaf: leaf[stay], state)
        episodes_key, phases_key = jax.random.split(key)
        beside = phases_beside(rollout.stagger, present, rollout.particles, phases_key)
        # All N are started, so that the devices divide them; only those that are new are taken.
        phases = jnp.concatenate([jnp.zeros_like(present), beside])
        is_new = jnp.arange(rollout.particles) >= count
        turns = next_turns(state.episode, is_new)
        started = start_all(join_share, theta, data, episodes_key, phases, state.updates[0], turns)
        extend = lambda old, new: jnp.concatenate([old, new[count:]])
        return jax.tree.map(extend, state, started)

    return GradientEstimator(init, estimate, resize)


def _start_episode(
    kernel: ParticleKernel, rollout: Rollout, theta: Theta, data: PyTree, key: Key, updates, turn
) -> Population:
    """One particle at the start of an episode."""
    horizon = rollout.draw_horizon(jax.random.fold_in(key, 2), updates)
    stands = key, horizon, jnp.int32(0), updates
    episode = CoupledEpisode(*stands, turn) if kernel.is_coupled else Episode(*stands)
    carry = kernel.start(theta, data, episode)
    return Population(carry, episode, horizon, updates, jnp.int32(0))


def _advance(
    kernel: ParticleKernel, rollout: Rollout, theta: Theta, data: PyTree, particle: Population
) -> tuple[Population, Window]:
    """One particle a window on."""
    episode = particle.episode
    window = kernel.advance(theta, data, episode, particle.carry)
    particle = particle._replace(
        carry=window.carry,
        episode=episode._replace(elapsed=episode.elapsed + rollout.window),
        remaining=particle.remaining - rollout.window,
    )
    return particle, window._replace(carry=())  # it is in the particle


def _start_share(
    kernel: ParticleKernel, rollout: Rollout, problem: UnrolledProblem, replicated, share
):
    """A device's share of the particles, each in its phase."""
    theta, data, updates = replicated
    keys, phases, turns = share
    start = partial(_start_episode, kernel, rollout, theta, data)
    started = jax.vmap(start, (0, None, 0))(keys, updates, turns)
    particles: Any = started
    if problem.done is not None:
        particles = MortalPopulation(*started, no_lives(len(keys)))
    if rollout.continue_from is not None:
        particles = ContinuingPopulation(*started, jax.vmap(lambda key: no_visit())(keys))
    windows = particles.episode.horizon // rollout.window  # [n]
    # The small number is for fractions that are a rounding error below a whole window.
    behind = jnp.floor(phases * windows.astype(jnp.float32) + 1e-4).astype(jnp.int32) % windows
    if rollout.first_episode == "short":
        return (), particles._replace(remaining=particles.remaining - behind * rollout.window)
    advance = partial(_advance, kernel, rollout, theta, data)

    def burn_in(carry):
        done, particles = carry
        advanced, _ = jax.vmap(advance)(particles)
        return done + 1, jax.vmap(optax.tree.where)(done < behind, advanced, particles)

    unfinished = lambda carry: (carry[0] < behind).any()
    _, particles = jax.lax.while_loop(unfinished, burn_in, (jnp.int32(0), particles))
    return (), particles._replace(uncounted=behind)


def _estimate_share(
    kernel: ParticleKernel, rollout: Rollout, problem: UnrolledProblem, replicated, share
):
    """A device's share of the particles a window on, and its sums over them."""
    theta, data, key = replicated
    state, index, turns = share

    def restart(i):
        own, turn = jax.random.fold_in(key, index[i]), jax.tree.map(lambda leaf: leaf[i], turns)
        started = _start_episode(kernel, rollout, theta, data, own, state.updates[i], turn)
        if isinstance(state, ContinuingPopulation):
            return ContinuingPopulation(*started, no_visit())
        if isinstance(state, MortalPopulation):
            return MortalPopulation(*started, jax.tree.map(lambda leaf: leaf[i], state.lives))
        return started

    starting = state.remaining <= 0
    at_once = math.ceil(len(index) * rollout.window / rollout.longest)
    state = replace_where(starting, restart, state, at_once)
    uncounted = state.uncounted
    advance = partial(_advance, kernel, rollout)
    state, windows = advance_in_chunks(
        partial(advance, theta, data),
        state,
        # What is in work beside a particle's state: perturbed thetas, or a gradient.
        bytes_each=max(bytes_of(state) // len(index), bytes_of(theta)),
        at_once=rollout.particles_per_chunk or affordable(advance, (theta, data), state),
    )
    cap = jnp.inf if problem.loss_cap is None else problem.loss_cap
    capped = (windows.losses >= cap).any(axis=(1, 2))
    counts = {"capped": capped, "resets": starting, "uncounted": uncounted}
    remaining = state.remaining
    if windows.ended is not None:
        lives, of_lives = count_lives(
            state.lives, windows.ended, remaining, state.episode.horizon, rollout
        )
        state, counts = state._replace(lives=lives), counts | of_lives
        remaining = jnp.where(windows.ended, 0, remaining)
    if rollout.continue_from is not None:
        visit = jax.vmap(watch)(state.visit, windows.losses)
        extend = jax.vmap(partial(extended, rollout))
        episode, remaining = extend(state.episode, remaining, visit)
        state = state._replace(visit=visit, episode=episode)
    sums, finite = sum_particles(kernel, state.carry, windows, index, counts, key)
    state = state._replace(
        remaining=jnp.where(finite, remaining, 0),
        updates=state.updates + 1,
        uncounted=jnp.zeros_like(uncounted),
    )
    return sums, (state, index, turns)


def replace_where(
    mask: jax.Array, make: Callable[[jax.Array], PyTree], tree: PyTree, at_once: int
) -> PyTree:
    """Puts ``make(i)`` in place of entry i of ``tree`` wherever ``mask[i]``, and only makes those.

    A `cond` for each entry would become a select under `vmap` and make all N of them every time.

    Args:
      mask: bool ``[N]``.
      make: ``i -> entry``, a tree like one entry of ``tree``; i is an int32 scalar.
      tree: every leaf ``[N, ...]``.
      at_once: how many are made in one go, at most. The work is proportional to the number of
        marked entries, rounded up to a multiple of this; if none is marked nothing is made.

    Examples:
      >>> mask = jnp.array([True, False, True])
      >>> replace_where(mask, lambda i: 10 * i, jnp.arange(3), at_once=1).tolist()
      [0, 1, 20]
    """

    def put_one(carry):
        left, tree = carry
        i = jnp.argmax(left)
        put = lambda old, new: jax.lax.dynamic_update_index_in_dim(old, new, i, 0)
        return left.at[i].set(False), jax.tree.map(put, tree, make(i))

    def put_several(carry):
        left, tree = carry
        (index,) = jnp.nonzero(left, size=at_once, fill_value=len(mask))  # out of range: dropped
        made = jax.vmap(make)(index)
        tree = jax.tree.map(lambda old, new: old.at[index].set(new, mode="drop"), tree, made)
        return left.at[index].set(False, mode="drop"), tree

    # One at a time is quicker to compile: no batch of random numbers, and no scatters.
    put = put_one if at_once == 1 else put_several
    return jax.lax.while_loop(lambda carry: carry[0].any(), put, (mask, tree))[1]
