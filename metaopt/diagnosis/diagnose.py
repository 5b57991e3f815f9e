"""What meta-gradient estimators are worth at one theta: variance, bias and what they cost.

Particles are measured in their stationary phases: every call makes a fresh population, burns each
particle in to its phase at this very theta and takes one estimate, so that calls are independent
(arXiv 2304.12180 compares tr Cov over K in this way).
"""

import math
import time
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from metaopt.core.sizes import bytes_of
from metaopt.core.types import GradientEstimator, Key, PyTree, Theta
from metaopt.diagnosis.moments import Moments, sample, squared_distance
from metaopt.estimators.stagger import Stagger

POPULATIONS = 8
"""Populations that a budget makes at least, where their size allows it: the error needs them."""
MOST = 1024
"""Particles of a population at most."""
MEMORY = 2**26
"""Bytes of a population's states and noise at most; what `step` makes comes on top."""
REFERENCE = 4
"""The reference's budget, in those of one estimator."""
LEAST = 20_000
"""Unroll steps of an estimator at least where no budget is given."""
SECONDS = 2.0
"""What they should take, where that is more."""
CLEAR = 5.0
"""A bias is resolved where its square is more than so many standard errors above 0."""


class Candidate(NamedTuple):
    """An estimator to be measured.

    Attributes:
      name: as in `metaopt.estimators.ESTIMATORS`.
      reuse: K, inner steps for which one noise is kept; ``None`` where that says nothing.
      horizon: T, inner steps an episode.
      windows: M = T/W, the phases that a particle can be in.
      make: ``(particles, stagger) -> estimator``, with ``first_episode="burn_in"`` if it has any.
    """

    name: str
    reuse: int | None
    horizon: int
    windows: int
    make: Callable[[int, Stagger], GradientEstimator]

    @property
    def label(self) -> str:
        return self.name if self.reuse is None else f"{self.name} K={self.reuse}"


class EstimatorRow(NamedTuple):
    """One estimator's line. Variances are in the gradient's unit squared.

    Attributes:
      estimator, reuse: as in `Candidate`.
      window, cost, particles, nonfinite, unroll_steps, variance, variance_error: as in `Moments`.
      work: tr Cov times ``cost``: the variance of an update at equal work, up to a factor.
      depth: tr Cov times W: at equal sequential depth, the particles' number being the same.
      bias: norm of the mean's difference from the reference, what chance adds taken off; 0 where
        nothing is left.
      resolution: the least bias that can be told from none.
    """

    estimator: str
    reuse: int | None
    window: int
    cost: int
    particles: int
    nonfinite: int
    unroll_steps: int
    variance: float
    variance_error: float
    work: float
    depth: float
    bias: float
    resolution: float

    @property
    def biased(self) -> bool:
        """Whether the bias is resolved."""
        return self.bias > self.resolution


def diagnose(
    theta: Theta,
    data: PyTree,
    candidates: Sequence[Candidate],
    reference: Candidate,
    *,
    budget: int,
    key: Key,
    mesh: Mesh | None = None,
    on_progress: Callable[[str, float], None] = lambda label, done: None,
) -> tuple[list[EstimatorRow], Moments]:
    """Variance and bias of estimators at one theta.

    Args:
      theta: where.
      data: of the problem that the candidates were made for.
      candidates: what is measured. One's numbers do not depend on which others there are.
      reference: an unbiased estimator, measured with particles of its own and 4 times the budget.
      budget: unroll steps for each; at least two populations are made whatever it is.
      key: of everything random here.
      mesh: devices that make a population each at a time; see `metaopt.parallel.sharding`.
      on_progress: told ``(label, done)``, the fraction of this estimator's budget that is spent.

    Returns:
      A row for each candidate, and what the reference said.

    Raises:
      ValueError: where the budget is below 1.

    Examples:
      >>> from metaopt.estimators import full_es
      >>> from metaopt.tasks import PROBLEMS
      >>> problem = PROBLEMS["linear_recursion"]()
      >>> make = lambda n, stagger: full_es(problem, particles=n, horizon=8, sigma=0.1)
      >>> full = Candidate("full_es", None, 8, 1, make)
      >>> theta, key = problem.init_theta(jax.random.key(0)), jax.random.key(1)
      >>> (row,), reference = diagnose(theta, (), [full], full, budget=2000, key=key)
      >>> row.cost, row.unroll_steps, reference.unroll_steps
      (16, 2160, 8160)
    """
    if budget < 1:
        raise ValueError(f"budget must be at least 1 unroll step, got {budget}.")

    def moments(label, candidate, allowed):
        # By label, not by place, so that the others do not matter.
        own = jax.random.fold_in(key, zlib.crc32(label.encode()))
        particles, stagger = population(candidate, theta, data, budget)
        estimator = candidate.make(particles, stagger)
        tell = lambda done: on_progress(label, done)
        return sample(estimator, theta, data, budget=allowed, key=own, mesh=mesh, on_progress=tell)

    truth = moments("reference", reference, REFERENCE * budget)
    rows = []
    for candidate in candidates:
        found = moments(candidate.label, candidate, budget)
        square, error = squared_distance(found.populations, truth.populations)
        rows.append(
            EstimatorRow(
                estimator=candidate.name,
                reuse=candidate.reuse,
                work=found.variance * found.cost,
                depth=found.variance * found.window,
                bias=math.sqrt(np.maximum(square, 0.0)),
                resolution=math.sqrt(CLEAR * error),
                **{
                    name: value
                    for name, value in found._asdict().items()
                    if name in EstimatorRow._fields
                },
            )
        )
    return rows, truth


def affordable_budget(
    candidate: Candidate, theta: Theta, data: PyTree, *, key: Key, mesh: Mesh | None = None
) -> int:
    """Unroll steps that take about `SECONDS` here, 1, 2 or 5 times a power of ten; or `LEAST`.

    Measured on populations that grow until they take long enough to tell.
    """
    budget, elapsed = LEAST, 0.0
    while elapsed < SECONDS / 10:
        calls: list[tuple[float, float]] = []
        tell = lambda done, calls=calls: calls.append((time.perf_counter(), done))
        estimator = candidate.make(*population(candidate, theta, data, budget))
        began = time.perf_counter()
        sample(estimator, theta, data, budget=budget, key=key, mesh=mesh, on_progress=tell)
        if len(calls) == 1 and time.perf_counter() - began > 10 * SECONDS:
            return LEAST  # two populations are too many already
        (began, first), (ended, last) = calls[0], calls[-1]  # the first includes compilation
        elapsed, steps = ended - began, budget * (last - first)
        budget *= 20
    most = max(LEAST, steps / elapsed * SECONDS)
    unit = 10 ** math.floor(math.log10(most))
    return unit * max(times for times in (1, 2, 5) if times * unit <= most)


def population(
    candidate: Candidate, theta: Theta, data: PyTree, budget: int
) -> tuple[int, Stagger]:
    """How many particles a population has, and how their phases are spread.

    A multiple of the phases, so that each is there as often, ``"balanced"``; where the fewest are
    too many, ``"random"`` phases, of which any number is as good.
    """
    windows = candidate.windows
    one = candidate.make(1, "balanced")
    state = jax.eval_shape(one.init, theta, data, jax.random.key(0))
    # Beside the state: the halves' thetas, the noise, its sum, the direction, room to work.
    most = min(MOST, MEMORY / (bytes_of(state) + 6 * bytes_of(theta)))
    unit = windows if windows <= most else 1
    # A particle is burnt in to the middle of its episode on average, then goes one window on.
    steps = candidate.horizon * (1 + 1 / windows)
    times = max(int(min(most, budget / POPULATIONS / steps) / unit), math.ceil(2 / unit))
    return unit * times, "balanced" if unit == windows else "random"
