"""What an estimator takes, as data: one dataclass serves Python, JSON and the command line.

Each estimator has a dataclass of its own options beside its factory, made of the parts below, and
its factory carries it:

    @takes(NRES)
    def nres(problem, *, particles, ...): ...

What others have to know of an estimator (its window, its noise period, whether a particle is an
antithetic pair) they read from the fields of this dataclass.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, TypeVar

import jax.numpy as jnp
import optax

from metaopt.estimators.horizons import Horizon, growing, log_uniform

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every estimator takes.

    Attributes:
      name: of the estimator, in the catalogue.
      antithetic: whether a particle is an antithetic pair, which costs two unroll steps a step.
      of_another: the estimator whose particles these are, where `metaopt diagnose` should be asked
        for that one; ``None`` where they are its own.
    """

    name: ClassVar[str]
    antithetic: ClassVar[bool] = False
    of_another: ClassVar[str | None] = None

    particles: int = 16
    """N, the particles (antithetic pairs, for evolution strategies). May be changed on a run that
    exists."""
    horizon: int = 200
    """T, inner steps an episode."""
    shortest_horizon: int | None = None
    """If given, episodes have log-uniform lengths from this to the horizon."""
    growth_steps: int | None = None
    """If given, they grow from the one to the other over so many outer steps instead."""
    particles_per_chunk: int | None = None
    """How many of a device's particles advance at a time; what fits if not given."""

    @property
    def depth(self) -> int:
        """Inner steps that an update does one after another: the window, or a whole episode."""
        return getattr(self, "window", self.horizon)

    @property
    def noise_period(self) -> int | None:
        """K, inner steps for which one noise is kept; ``None`` where that says nothing."""
        return None

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of the estimator's factory.

        Raises:
          ValueError: for a value out of its range.
        """
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        shortest, updates = given.pop("shortest_horizon"), given.pop("growth_steps")
        return given | {"horizon": _horizon(self.horizon, shortest, updates)}


@dataclass(frozen=True, kw_only=True)
class Windowed(Options):
    """What estimators take that update theta after every window of an episode."""

    window: int = 20
    """W, inner steps between two outer steps; divides the horizon."""
    stagger: Literal["balanced", "random", "none"] = "balanced"
    """How the particles' phases are spread over the horizon."""
    first_episode: Literal["short", "burn_in"] = "short"
    """How a particle gets to its phase: by a short first episode, biased for T/W updates, or
    unrolled to it first."""


@dataclass(frozen=True, kw_only=True)
class EndingEarly(Options):
    """What estimators take that free particles whose episode ended before its horizon."""

    scale_to_horizon: bool = True
    """Where episodes end early: multiply by the fraction of the horizon that they last."""


@dataclass(frozen=True, kw_only=True)
class Continuing(Options):
    """What estimators take whose episodes may go on where they would end."""

    continue_from: Literal["length", "struggle"] | None = None
    """What may go on under its noise at an episode's end: any, or what struggles."""
    continue_probability: float = 0.5
    """Of going on, for those that may."""


@dataclass(frozen=True, kw_only=True)
class Smoothed(Options):
    """What evolution strategies take."""

    antithetic: ClassVar[bool] = True

    sigma: float = 0.05
    """Standard deviation of the perturbation of theta."""
    final_sigma: float | None = None
    """If given, sigma goes geometrically to this over sigma_steps outer steps."""
    sigma_steps: int | None = None
    """Outer steps after which final_sigma is reached."""
    shaping: Literal["raw", "standardise", "centered_rank"] = "raw"
    """Of the losses' differences."""
    noise: Literal["gaussian", "orthogonal", "orthogonal_fixed", "rademacher"] = "gaussian"
    """Orthogonal: particles that start one after another have orthogonal noises."""

    def arguments(self) -> dict[str, Any]:
        given = super().arguments()
        final, steps = given.pop("final_sigma"), given.pop("sigma_steps")
        if final is not None:
            given["sigma"] = geometric(self.sigma, final, steps or 0)
        return given


@dataclass(frozen=True, kw_only=True)
class Reusing(Windowed):
    """What estimators take that keep a noise for so many steps."""

    reuse: int | None = None
    """K, inner steps for which one noise is kept: a multiple of the window up to the horizon."""

    @property
    def noise_period(self) -> int:
        return self.reuse or self.horizon


def takes(options: type[Options]) -> Callable[[F], F]:
    """Marks an estimator's factory with the dataclass of its options."""

    def mark(factory: F) -> F:
        factory.options = options  # type: ignore[attr-defined]
        return factory

    return mark


def changed_to(options: type[Options], old: Options) -> Options:
    """Another estimator's options, with the values of those that both have.

    Examples:
      >>> from metaopt.estimators import BPTT, NRES
      >>> changed_to(BPTT, NRES(particles=3, sigma=0.1))
      BPTT(particles=3, horizon=200, shortest_horizon=None, growth_steps=None, ...)
    """
    names = {f.name for f in fields(options)} & {f.name for f in fields(old)}
    return options(**{name: getattr(old, name) for name in names})


def geometric(first: float, last: float, steps: int) -> optax.Schedule:
    """A schedule that goes from one number to another by the same factor every step.

    Raises:
      ValueError: where a number is not above 0, or there are no steps.
    """
    if steps < 1:
        raise ValueError(f"sigma_steps must be at least 1, got {steps}.")
    for name, value in (("sigma", first), ("final_sigma", last)):
        if not value > 0:
            raise ValueError(f"{name} must be above 0, got {value}.")
    return lambda step: first * (last / first) ** jnp.minimum(step / steps, 1.0)


def _horizon(longest: int, shortest: int | None, updates: int | None) -> int | Horizon:
    if shortest is None:
        return longest
    if updates is None:
        return log_uniform(shortest, longest)
    return growing(shortest, longest, updates=updates)
