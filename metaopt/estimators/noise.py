"""The noise of an episode: its kind, scale and blocks of K steps, and the two signs of a pair."""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metaopt.core.running import without_statistics
from metaopt.core.sizes import bytes_of
from metaopt.core.types import Key, PyTree, Theta
from metaopt.estimators.kernel import Rollout, Turn, require_one_of

NoiseKind = Literal["gaussian", "orthogonal", "orthogonal_fixed", "rademacher"]
"""Of what noise on theta is drawn; see `metaopt.estimators.gpes`."""

FRAME = 2**22
"""Numbers that a frame of orthogonal noises has, at most."""

LARGE = 2**20
"""Bytes of noise from which memory counts more than the time to draw it."""

Sigma = float | Callable[[jax.Array], jax.Array]
"""A number, or a schedule of the outer step as optax has them."""


def sigma_schedule(sigma: Sigma) -> Callable[[jax.Array], jax.Array]:
    """A number or a schedule as a function of the outer step, float32.

    Raises:
      ValueError: where it is not above 0, at any power of two as the outer step.
    """
    if not callable(sigma):
        if not (isinstance(sigma, (int, float)) and 0 < sigma < math.inf):
            raise ValueError(f"sigma must be a finite number above 0, got {sigma!r}.")
        return lambda updates: jnp.float32(sigma)

    def at(updates: jax.Array) -> jax.Array:
        with jax.numpy_dtype_promotion("standard"):  # optax mixes counters and floats
            return jnp.asarray(sigma(updates), jnp.float32)

    for step in [0, *(2**k for k in range(31))]:
        if not 0 < (value := float(at(jnp.int32(step)))) < math.inf:
            raise ValueError(
                f"a sigma schedule must stay finite and above 0, got {value:g} at outer step "
                f"{step}: give it an end value above 0."
            )
    return at


class BlockNoise(NamedTuple):
    """Noise like theta: each block's, kept for K steps, and the sum over an episode's blocks.

    Attributes:
      start: ``(theta, episode, sigma) -> (eps, noise_sum)`` at an episode's start.
      keep: ``(noise_sum, inner) -> noise_sum``, or ``()`` where it is drawn again in every window
        rather than kept beside the problem's state ``inner``, see `is_drawn_again`.
      advance: ``(theta, episode, sigma, noise_sum) -> (eps, total, noise_sum)``: a window's noise
        eps_n(t), the sum over blocks up to it, and the finished blocks' sum after the window.
    """

    start: Callable[..., tuple[Theta, PyTree]]
    keep: Callable[[PyTree, PyTree], PyTree]
    advance: Callable[..., tuple[Theta, Theta, PyTree]]


def block_noise(reuse: int | None, rollout: Rollout, noise: NoiseKind = "gaussian") -> BlockNoise:
    """Noise drawn anew every K = ``reuse`` steps; ``None`` keeps it for the whole episode.

    Then ``noise_sum`` is the noise itself. It is kept where it is small, because drawing it again
    for every window of one step costs a fifth of a small problem's time.

    Raises:
      ValueError: where K is not a multiple of the window up to the horizon, or for another noise.
    """
    window, longest = rollout.window, rollout.longest
    if reuse is not None and (reuse % window or not window <= reuse <= longest):
        raise ValueError(
            f"reuse must be a multiple of window={window} up to horizon={longest}, got {reuse!r}."
        )
    once, draw = reuse is None or reuse == longest, drawn_noise(noise, rollout)

    def start(theta, episode, sigma):
        eps = draw(theta, episode, sigma, jnp.int32(0))
        return eps, eps if once else optax.tree.zeros_like(theta)

    def keep(noise_sum, inner):
        again = once and not is_coupled(noise) and is_drawn_again(noise_sum, inner)
        return () if again else noise_sum

    def advance(theta, episode, sigma, noise_sum):
        if once:
            is_kept = jax.tree.leaves(noise_sum)
            eps = noise_sum if is_kept else draw(theta, episode, sigma, jnp.int32(0))
            return eps, eps, noise_sum
        eps = draw(theta, episode, sigma, episode.elapsed // reuse)
        total = optax.tree.add(noise_sum, eps)
        block_ends = (episode.elapsed + window) % reuse == 0
        return eps, total, optax.tree.where(block_ends, total, noise_sum)

    return BlockNoise(start, keep, advance)


def is_drawn_again(noise: PyTree, inner: PyTree) -> bool:
    """Whether noise is worth drawing again from its key rather than keeping: where it is `LARGE`,
    and larger than the state that it would be kept beside.

    Examples:
      >>> noise = jax.ShapeDtypeStruct((LARGE,), jnp.float32)
      >>> is_drawn_again(noise, jnp.zeros(8)), is_drawn_again(noise, noise)
      (True, False)
    """
    return max(LARGE, bytes_of(inner) + 1) <= bytes_of(noise)


def is_coupled(noise: NoiseKind) -> bool:
    """Whether it takes a `metaopt.estimators.kernel.CoupledEpisode` to draw it."""
    return noise.startswith("orthogonal")


def drawn_noise(noise: NoiseKind, rollout: Rollout) -> Callable[..., Theta]:
    """``(theta, episode, sigma, block) -> noise like theta``, a function of the episode alone.

    Orthogonal noise is row c mod m of frame c div m, where c is the episode's number: consecutive
    starters have orthogonal noises. A frame is the orthogonal factor of a d x m Gaussian matrix,
    signs fixed so that it is uniformly distributed, m = min(N, d) or what `FRAME` allows.

    Raises:
      ValueError: for another noise.
    """
    require_one_of("noise", noise, NoiseKind)
    sample = jax.random.rademacher if noise == "rademacher" else jax.random.normal

    def by_itself(theta: Theta, key: Key) -> Theta:
        return optax.tree.random_like(key, theta, sampler=sample)

    def of_frame(theta: Theta, key: Key, turn: Turn, block: jax.Array) -> Theta:
        leaves, structure = jax.tree.flatten(theta)
        ends = np.cumsum([leaf.size for leaf in leaves])
        d = int(ends[-1])
        rows = min(rollout.particles, d, max(1, FRAME // d))
        frame_key = jax.random.fold_in(jax.random.fold_in(turn.frames, turn.number // rows), block)
        q, r = jnp.linalg.qr(jax.random.normal(frame_key, (d, rows), jnp.float32))
        row = (q * jnp.sign(jnp.diagonal(r)))[:, turn.number % rows]
        length = jnp.float32(math.sqrt(d))
        if noise == "orthogonal":  # as long as a Gaussian is, so that it is one by itself
            length = jnp.linalg.norm(jax.random.normal(key, (d,), jnp.float32))
        parts = jnp.split(length * row, ends[:-1])
        shaped = [
            part.reshape(leaf.shape).astype(leaf.dtype)
            for part, leaf in zip(parts, leaves, strict=True)
        ]
        return jax.tree.unflatten(structure, shaped)

    def draw(theta: Theta, episode: Any, sigma: jax.Array, block: jax.Array) -> Theta:
        key = jax.random.fold_in(jax.random.fold_in(episode.key, 1), block)
        coupled = is_coupled(noise)
        eps = of_frame(theta, key, episode.turn, block) if coupled else by_itself(theta, key)
        return optax.tree.scale(sigma, without_statistics(eps))

    return draw


def antithetic(theta: Theta, eps: Theta) -> Theta:
    """theta + eps and theta - eps, leaves ``[2, ...]``.

    Examples:
      >>> antithetic(jnp.ones(2), jnp.array([0.25, 0.5])).tolist()
      [[1.25, 1.5], [0.75, 0.5]]
    """
    # As a loop, which writes its results down. What is only stacked XLA may add up again within
    # every operation on a weight, where a window is a single step: up to eight times as slow.
    signed = lambda sign: jax.tree.map(lambda t, e: t + sign.astype(t.dtype) * e, theta, eps)
    return jax.lax.map(signed, jnp.array([1.0, -1.0], jnp.float32))
