"""From the particles' windows to one estimate: sums over each device's share, then their ratios."""

import jax
import jax.numpy as jnp
import optax

from metaopt.core.types import Estimate, Key, PyTree
from metaopt.estimators.kernel import ParticleKernel, Window

Sums = dict[str, PyTree]
"""By name, sums over particles: float32, counts as well, so that they go into one all-reduce."""

CELLS = 1024
"""Numbers by which the halves of the particles are compared."""

KEY_OF_SIGNS = 0x68616C66
"""Folded into the outer step's key, into which the estimate folds particles' indices."""


def sum_particles(
    kernel: ParticleKernel, carry: PyTree, windows: Window, index: jax.Array, counts: Sums, key: Key
) -> tuple[Sums, jax.Array]:
    """Sums over a share of n particles, with ``counts [n]`` among them; and who is finite ``[n]``.

    A particle counts where its losses and its direction are finite throughout. ``index`` is its
    place among all ``[n]``, whose parity says in which half it is. ``key``: this outer step's.
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
    halves = jax.tree.map(lambda leaf: jnp.tensordot(by_half, leaf, axes=1), direction)
    sums = {name: values.sum(dtype=jnp.float32) for name, values in sums.items()}
    grad = jax.tree.map(lambda leaf: leaf[0] + leaf[1], halves)
    return sums | {"grad": grad, "halves": sketch(halves, key)}, finite


def sketch(halves: PyTree, key: Key) -> jax.Array:
    """Sums over the two halves of the particles in `CELLS` numbers, to compare them by.

    A number of theta goes to the cell of its place modulo `CELLS`, with a random sign: a count
    sketch (Charikar et al. 2002), linear and with inner products that are right on average; of
    their cosine the standard deviation is about 1 / sqrt(CELLS). A theta of no more numbers is
    left as it is.

    Args:
      halves: leaves ``[2, ...]``.
      key: of the signs; the same on all devices.

    Returns:
      Float32 ``[2, CELLS]`` at most.

    Examples:
      >>> sketch({"a": jnp.ones((2, 3)), "b": jnp.ones(2)}, jax.random.key(0)).shape
      (2, 4)
      >>> sketch(jnp.ones((2, 3, 4000)), jax.random.key(0)).shape
      (2, 1024)
    """
    leaves = [leaf.reshape(2, -1).astype(jnp.float32) for leaf in jax.tree.leaves(halves)]
    if sum(leaf.shape[1] for leaf in leaves) <= CELLS:
        return jnp.concatenate(leaves, axis=1)
    key = jax.random.fold_in(key, KEY_OF_SIGNS)

    def cells(number: int, leaf: jax.Array) -> jax.Array:
        size = leaf.shape[1]
        signs = jax.random.rademacher(jax.random.fold_in(key, number), (size,), jnp.float32)
        padded = jnp.pad(signs * leaf, ((0, 0), (0, -size % CELLS)))
        return padded.reshape(2, -1, CELLS).sum(axis=1)

    return jnp.stack([cells(number, leaf) for number, leaf in enumerate(leaves)]).sum(axis=0)


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
      - ``half_cosine``: cosine between the estimates of the even and of the odd particles, of a
        theta of more than 1,024 numbers to within some .03 (`sketch`);
      - ``effective_particles``: (sum |g_i|)^2 / sum |g_i|^2, N where all say as much.

      The last four are 0 where they would be 0/0: where all particles say 0 or none is finite, the
      first two of them also where one alone is, and the cosine where a half has none.
    """
    count = sums["finite"]
    even, odd = sums["halves"]
    # Where no particle is finite this is 0/0: the outer step sees a NaN and skips the update.
    grad = jax.tree.map(lambda leaf: leaf / count, sums["grad"])
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
        "half_cosine": _ratio(even @ odd, jnp.linalg.norm(even) * jnp.linalg.norm(odd)),
        "effective_particles": _ratio(sums["length"] ** 2, square),
    }
    return Estimate(grad, sums["loss"] / count, metrics)


def _ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
    """``part / whole``, 0 where the whole is 0."""
    return jnp.where(whole == 0, 0.0, part / jnp.where(whole == 0, 1.0, whole))
