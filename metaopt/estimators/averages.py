"""From the particles' windows to one estimate: sums over each device's share, then their ratios."""

import jax
import jax.numpy as jnp
import optax

from metaopt.core.types import Estimate, PyTree
from metaopt.estimators.kernel import ParticleKernel, Window

Sums = dict[str, PyTree]
"""By name, sums over particles: float32, counts as well, so that they go into one all-reduce."""


def sum_particles(
    kernel: ParticleKernel, carry: PyTree, windows: Window, index: jax.Array, counts: Sums
) -> tuple[Sums, jax.Array]:
    """Sums over a share of n particles, with ``counts [n]`` among them; and who is finite ``[n]``.

    A particle counts where its losses and its direction are finite throughout. ``index`` is its
    place among all ``[n]``, whose parity says in which half it is.
    """
    losses = windows.losses  # [n, halves, W]
    leaves = [losses, *jax.tree.leaves(windows.direction)]
    finite = jnp.stack([jnp.isfinite(x).all(axis=range(1, x.ndim)) for x in leaves]).all(axis=0)
    weight = jnp.where(finite, kernel.weigh(carry, losses, finite), 0.0)
    # A select, never a product with 0: that would leave a NaN a NaN.
    keep = jax.vmap(lambda ok, leaf: jnp.where(ok, leaf, jnp.zeros_like(leaf)))
    direction = jax.tree.map(lambda leaf: keep(finite, leaf), windows.direction)
    square = weight**2 * jax.vmap(lambda d: optax.tree.norm(d, squared=True))(direction)
    even = index % 2 == 0
    by_half = jnp.stack([jnp.where(even, weight, 0.0), jnp.where(even, 0.0, weight)])
    sums = counts | {
        "loss": jnp.where(finite, losses.mean(axis=(1, 2)), 0.0),
        "square": square,
        "length": jnp.sqrt(square),
        "finite": finite,
    }
    grad = jax.tree.map(lambda leaf: jnp.tensordot(by_half, leaf, axes=1), direction)
    sums = {name: values.sum(dtype=jnp.float32) for name, values in sums.items()}
    return sums | {"grad": grad}, finite


def estimate_of(sums: Sums, particles: int, cost: int) -> Estimate:
    """The estimate of N ``particles`` from the sums over them; ``cost`` is their kernel's.

    Returns:
      An `Estimate` with the metrics

      - ``nonfinite_pairs``: particles left out of the average, and started anew;
      - ``capped_pairs``: particles with a loss at the problem's cap;
      - ``resets``: particles that started an episode in this update;
      - ``unroll_steps``: all that this update took, burning in included;
      - ``particle_variance``: tr Cov of one particle's estimate, from those of this update;
      - ``snr``: squared norm of the estimate over the variance of the estimate, at most
        (N - 1) / 1.2e-7, where all particles agree to the last bit of float32;
      - ``half_cosine``: cosine between the estimates of the even and of the odd particles;
      - ``effective_particles``: (sum |g_i|)^2 / sum |g_i|^2, N where all say as much.

      The last four are 0 where they would be 0/0: where all particles say 0 or none is finite, the
      first two of them also where one alone is, and the cosine where a half has none.
    """
    count = sums["finite"]
    even, odd = ([leaf[half] for leaf in jax.tree.leaves(sums["grad"])] for half in (0, 1))
    # Where no particle is finite this is 0/0: the outer step sees a NaN and skips the update.
    grad = jax.tree.map(lambda leaf: leaf[0] / count + leaf[1] / count, sums["grad"])
    signal = optax.tree.norm(grad, squared=True)
    several, others = count > 1, jnp.maximum(count - 1, 1)
    square = sums["square"]
    variance = jnp.where(several, jnp.maximum(square - count * signal, 0) / others, 0.0)
    rounding = jnp.finfo(jnp.float32).eps * square / others  # what a variance of 0 may as well be
    snr = _ratio(signal * count, jnp.maximum(variance, rounding))
    whole = lambda name: sums[name].astype(jnp.int32)
    metrics = {
        "nonfinite_pairs": particles - whole("finite"),
        "capped_pairs": whole("capped"),
        "resets": whole("resets"),
        "unroll_steps": (particles + whole("uncounted")) * cost,
        "particle_variance": variance,
        "snr": jnp.where(several, snr, 0.0),
        "half_cosine": _ratio(
            optax.tree.vdot(even, odd), optax.tree.norm(even) * optax.tree.norm(odd)
        ),
        "effective_particles": _ratio(sums["length"] ** 2, square),
    }
    return Estimate(grad, sums["loss"] / count, metrics)


def _ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
    """``part / whole``, 0 where the whole is 0."""
    return jnp.where(whole == 0, 0.0, part / jnp.where(whole == 0, 1.0, whole))
