"""Orthogonalisation by products alone, as Muon does it (Jordan et al. 2024)."""

import jax
import jax.numpy as jnp

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of X <- a X + (b A + c A A) X, A = X X^T: singular values go to between 0.7 and 1.2 quickly."""

STEPS = 5


def newton_schulz(x: jax.Array) -> jax.Array:
    """An approximately orthogonal matrix with the singular vectors of ``x``: ``[rows, columns]``.

    Examples:
      >>> x = newton_schulz(jnp.diag(jnp.array([3.0, 2.0, 1.0])))
      >>> bool((abs(jnp.linalg.svd(x)[1] - 1) < 0.35).all())
      True
    """
    if x.shape[0] > x.shape[1]:
        return newton_schulz(x.T).T
    a, b, c = COEFFICIENTS
    # Its norm without a root of 0, whose derivative is infinite.
    x = x / (jnp.sqrt(jnp.maximum(jnp.square(x).sum(), 1e-30)) + 1e-8)
    for _ in range(STEPS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x
