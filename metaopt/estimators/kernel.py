"""What an estimator is made of: a `ParticleKernel` for one particle, and a `Rollout` of many.

`metaopt.estimators.population` makes an estimator of the two.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from metaopt.core.types import Key, PyTree, Theta, UnrolledProblem
from metaopt.estimators.horizons import Horizon, as_horizon
from metaopt.estimators.stagger import FirstEpisode, Stagger

ContinueFrom = Literal["length", "struggle"]
"""Which episodes may go on at their ends; see `metaopt.estimators.gpes`."""


class Turn(NamedTuple):
    """An episode's place among all of a run, where their noises are coupled.

    Attributes:
      number: int32, in the order in which they start; of those that start together, that of the
        particles.
      frames: the key of all frames; the same for all.
    """

    number: jax.Array
    frames: Key


class Episode(NamedTuple):
    """Where a particle stands.

    Attributes:
      key: the episode's key; all its randomness follows from it: the problem's start folds in 0,
        the noise 1, the horizon 2.
      horizon: int32, inner steps of the whole episode: a multiple of the window.
      elapsed: int32, inner steps done in it.
      updates: int32, outer steps done when it began.
    """

    key: Key
    horizon: jax.Array
    elapsed: jax.Array
    updates: jax.Array


class CoupledEpisode(NamedTuple):
    """An `Episode` whose noise is coupled to others'.

    Attributes:
      key, horizon, elapsed, updates: as in `Episode`.
      turn: its `Turn`.
    """

    key: Key
    horizon: jax.Array
    elapsed: jax.Array
    updates: jax.Array
    turn: Turn


class Window(NamedTuple):
    """What a particle brings from a window. Its estimate of the gradient is weight * direction.

    Attributes:
      carry: what the estimator keeps of the particle.
      direction: a tree like theta.
      losses: float32 ``[halves, W]``.
      ended: bool, whether the episode has ended early and has nothing more to say: both halves of a
        pair. ``None`` where the problem's episodes all last to their horizons.
    """

    carry: PyTree
    direction: Theta
    losses: jax.Array
    ended: jax.Array | None = None


class ParticleKernel(NamedTuple):
    """An estimator, as far as it differs from the others.

    Attributes:
      start: ``(theta, data, episode) -> carry``, one particle's at its episode's start.
      advance: ``(theta, data, episode, carry) -> Window``, one particle's next window.
      cost: unroll steps that a particle's window takes.
      weigh: ``(carry [n, ...], losses [n, halves, W], finite [n]) -> float32 [n]``, the weights of
        the directions of the n particles that a device holds. 1 by default: the directions are
        the estimates themselves.
      is_coupled: whether it takes a `CoupledEpisode`.
    """

    start: Callable[[Theta, PyTree, Any], PyTree]
    advance: Callable[[Theta, PyTree, Any, PyTree], Window]
    cost: int
    weigh: Callable[[PyTree, jax.Array, jax.Array], jax.Array] = lambda carry, losses, finite: (
        jnp.ones_like(losses[:, 0, 0])
    )
    is_coupled: bool = False


def inner_start(problem: UnrolledProblem, theta: Theta, data: PyTree, episode: Episode) -> PyTree:
    """The problem's state at the start of an episode, under ``theta``."""
    return problem.init(theta, data, episode.horizon, jax.random.fold_in(episode.key, 0))


@dataclass(frozen=True)
class Rollout:
    """The options that all estimators share, validated; `metaopt.estimators.gpes` explains them.

    Raises:
      ValueError: for a value out of its range, naming it and the valid ones.

    Examples:
      >>> Rollout(particles=4, horizon=8, window=3)
      Traceback (most recent call last):
      ...
      ValueError: window must divide horizon=8, got 3; the nearest that do are 1, 2, 4, 8.
    """

    particles: int
    horizon: int | Horizon
    window: int
    stagger: Stagger = "balanced"
    first_episode: FirstEpisode = "short"
    particles_per_chunk: int | None = None
    mesh: Mesh | None = None
    continue_from: ContinueFrom | None = None
    continue_probability: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "horizon", as_horizon(self.horizon))
        particles, longest, window, mesh = self.particles, self.longest, self.window, self.mesh
        chunk = 1 if self.particles_per_chunk is None else self.particles_per_chunk
        counts = {"particles": particles, "window": window, "particles_per_chunk": chunk}
        for name, value in counts.items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an integer of at least 1, got {value!r}.")
        if longest % window:
            divisors = [w for w in range(1, longest + 1) if longest % w == 0]
            near = sorted(sorted(divisors, key=lambda w: abs(w - window))[:4])
            raise ValueError(
                f"window must divide horizon={longest}, got {window}; the nearest that do are "
                f"{', '.join(map(str, near))}."
            )
        require_one_of("stagger", self.stagger, Stagger)
        require_one_of("first_episode", self.first_episode, FirstEpisode)
        if self.continue_from is not None:
            require_one_of("continue_from", self.continue_from, ContinueFrom)
        p = self.continue_probability
        if isinstance(p, bool) or not (isinstance(p, (int, float)) and 0 <= p < 1):
            raise ValueError(
                f"continue_probability must be a number of at least 0 and below 1, got {p!r}."
            )
        if mesh is not None and particles % mesh.size:
            raise ValueError(
                f"the number of devices must divide particles={particles}, got {mesh.size}."
            )

    @property
    def longest(self) -> int:
        """The longest horizon, in inner steps."""
        return as_horizon(self.horizon).longest

    def draw_horizon(self, key: Key, updates: jax.Array) -> jax.Array:
        """The length of an episode that begins after ``updates`` outer steps, in inner steps.

        An int32 scalar: the drawn length rounded to whole windows, at least one.
        """
        drawn = as_horizon(self.horizon).draw(key, updates)
        windows = jnp.maximum(jnp.round(drawn / self.window), 1).astype(jnp.int32)
        return self.window * windows


def require_one_of(name: str, value: str, literal: Any) -> None:
    """Refuses a value that is not among a `Literal`'s."""
    *others, last = map(repr, get_args(literal))
    if value not in get_args(literal):
        raise ValueError(f"{name} must be {', '.join(others)} or {last}, got {value!r}.")
