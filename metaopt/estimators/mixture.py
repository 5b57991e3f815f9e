"""One theta for several problems of different shapes: an estimator each, their estimates averaged.

    g = mean_i g_i,  or, normalised,  mean_i g_i / sqrt(v_i),  v_i <- 0.9 v_i + 0.1 |g_i|^2

(v corrected for its start), so that a problem with large losses does not drown the others. The mean
may be a weighted one.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from metaopt.core.types import Estimate, GradientEstimator, Key, PyTree, Theta

DECAY = 0.9


class Part(NamedTuple):
    """One problem's share of the state. Axis 0 of every leaf is the particle.

    Attributes:
      estimator: its estimator's state.
      square: ``[N]`` float32, v before its correction; the same for all.
      seen: ``[N]`` int32, finite estimates so far; the same for all.
    """

    estimator: PyTree
    square: jax.Array
    seen: jax.Array


def mixture(
    parts: Mapping[str, GradientEstimator],
    *,
    weights: Sequence[float] | None = None,
    normalise: bool = False,
) -> GradientEstimator:
    """The estimator of several problems' mean gradient.

    Its data is a tuple, one problem's after the other. A part whose estimate is not finite is left
    out of the average. The metrics are the sums of the counts (those of dtype
    int32), and every part's under ``NAME/metric``.

    Args:
      parts: estimators by name, each of a problem with the same theta.
      weights: of the mean, one a part; all the same if not given. The loss is weighted, too.
      normalise: divide each estimate by the running root mean square of its norm.

    Raises:
      ValueError: for no parts at all, or weights that are not one a part and above 0.

    Examples:
      >>> from metaopt.estimators import nres
      >>> from metaopt.tasks import PROBLEMS
      >>> problem = PROBLEMS["linear_recursion"]()
      >>> of = lambda horizon: nres(problem, particles=2, horizon=horizon, window=2, sigma=0.1)
      >>> both = mixture({"short": of(4), "long": of(8)})
      >>> theta = problem.init_theta(jax.random.key(0))
      >>> state = both.init(theta, ((), ()), jax.random.key(1))
      >>> estimate, state = both.estimate(theta, state, ((), ()), jax.random.key(2))
      >>> int(estimate.metrics["unroll_steps"]), int(estimate.metrics["long/unroll_steps"])
      (16, 8)
    """
    if not parts:
        raise ValueError("a mixture needs at least one part.")
    shares = [1.0] * len(parts) if weights is None else [float(weight) for weight in weights]
    if len(shares) != len(parts) or not all(0 < share < math.inf for share in shares):
        raise ValueError(
            f"weights must be {len(parts)} finite numbers above 0, one for each of "
            f"{', '.join(parts)}, got {shares}."
        )

    def init(theta: Theta, data: PyTree, key: Key) -> tuple[Part, ...]:
        def start(i, estimator):
            state = estimator.init(theta, data[i], jax.random.fold_in(key, i))
            particles = len(jax.tree.leaves(state)[0])
            return Part(state, jnp.zeros(particles), jnp.zeros(particles, jnp.int32))

        return tuple(start(i, estimator) for i, estimator in enumerate(parts.values()))

    def estimate(theta: Theta, state: tuple[Part, ...], data: PyTree, key: Key):
        after, estimates = [], {}
        for i, (part, (name, estimator)) in enumerate(zip(state, parts.items(), strict=True)):
            key_of_part = jax.random.fold_in(key, i)
            said, inner = estimator.estimate(theta, part.estimator, data[i], key_of_part)
            norm = optax.tree.norm(said.grad)
            finite = jnp.isfinite(norm)
            square = DECAY * part.square + (1 - DECAY) * jnp.where(finite, norm, 0.0) ** 2
            square = jnp.where(finite, square, part.square)
            seen = part.seen + finite.astype(jnp.int32)
            if normalise:
                # Estimates that are not finite so far, or all 0, leave the scale finite, too.
                corrected = square[0] / (1 - DECAY ** jnp.maximum(seen[0], 1).astype(jnp.float32))
                scale = jax.lax.rsqrt(jnp.maximum(corrected, 1e-30))
                said = said._replace(grad=optax.tree.scale(scale, said.grad))
            after.append(Part(inner, square, seen))
            estimates[name] = said
        return _average(estimates, shares), tuple(after)

    def resize(theta: Theta, state: tuple[Part, ...], data: PyTree, key: Key):
        def resized(i, part, estimator):
            own = jax.random.fold_in(key, i)
            inner = estimator.resize(theta, part.estimator, data[i], own)
            particles = len(jax.tree.leaves(inner)[0])
            alike = lambda leaf: jnp.broadcast_to(leaf[0], particles)
            return Part(inner, alike(part.square), alike(part.seen))

        pairs = zip(state, parts.values(), strict=True)
        return tuple(resized(i, part, estimator) for i, (part, estimator) in enumerate(pairs))

    can = all(estimator.resize for estimator in parts.values())
    return GradientEstimator(init, estimate, resize if can else None)


def _average(estimates: dict[str, Estimate], shares: Sequence[float]) -> Estimate:
    """The weighted mean of the finite ones, with every one's metrics under its name."""
    parts = list(estimates.values())
    finite = jnp.stack([jnp.isfinite(optax.tree.norm(e.grad)) for e in parts])
    weight = finite.astype(jnp.float32) * jnp.array(shares, jnp.float32)
    by = lambda column, leaves: column.reshape(-1, *[1] * leaves[0].ndim)
    # Where no part is finite this is 0/0: the outer step sees a NaN and skips the update.
    mean = lambda *leaves: (
        jnp.where(by(finite, leaves), by(weight, leaves) * jnp.stack(leaves), 0).sum(axis=0)
        / weight.sum()
    )
    metrics = {
        f"{name}/{metric}": value
        for name, part in estimates.items()
        for metric, value in (part.metrics | {"loss": part.loss}).items()
    }
    counts = [n for n, value in parts[0].metrics.items() if value.dtype == jnp.int32]
    metrics |= {
        count: jnp.stack([e.metrics[count] for e in parts]).sum()
        for count in counts
        if all(count in e.metrics for e in parts)
    }
    grads, losses = [e.grad for e in parts], [e.loss for e in parts]
    return Estimate(jax.tree.map(mean, *grads), mean(*losses), metrics)
