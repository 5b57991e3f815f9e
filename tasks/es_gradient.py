"""Tasks whose gradients are themselves estimates of an evolution strategy.

    g = mean_i [L(x + sigma e_i) - L(x - sigma e_i)] / (2 sigma) e_i,   e_i ~ N(0, I)

for P antithetic pairs on one batch: the training of what cannot be differentiated, as an inner
task. The variance grows with the number of parameters.
"""

import jax
import jax.numpy as jnp

from metaopt import PyTree, Task, make_task
from metaopt.tasks.supervised import positive


def es_gradient(*, task: str | Task = "digits_mlp", sigma: float = 0.01, pairs: int = 1) -> Task:
    """A task that is trained by gradients of an evolution strategy in place of its own.

    Its losses are as they are; a gradient of its ``loss`` is the estimate. A training step runs the
    loss ``2 pairs + 1`` times, at once.

    Args:
      task: a name with arguments, or a task.
      sigma: standard deviation of the noise on the parameters.
      pairs: antithetic pairs of an estimate.

    Raises:
      ValueError: for a value out of its range.
      UserError: for a task that there is not.

    Examples:
      >>> from metaopt.tasks import quadratic
      >>> plain, noisy = quadratic(dim=2), es_gradient(task=quadratic(dim=2), pairs=500)
      >>> config, key = plain.sample(jax.random.key(0)), jax.random.key(1)
      >>> params = plain.init(config, key)
      >>> gradients = [jax.grad(of.loss, 1)(config, params, (), key) for of in (plain, noisy)]
      >>> bool(jnp.allclose(*gradients, atol=0.2 * jnp.abs(params).max()))
      True
    """
    positive(pairs=pairs)
    if not sigma > 0:
        raise ValueError(f"sigma must be above 0, got {sigma!r}.")
    plain = make_task(task) if isinstance(task, str) else task
    if not isinstance(plain, Task):
        raise ValueError(f"task must be a task's name or a metaopt.Task, got {plain!r}.")

    def loss(config, params, batch, key):
        fixed = jax.lax.stop_gradient(params)

        def estimate(key):
            """One pair's part of the gradient; both halves see the same randomness."""
            leaves, structure = jax.tree.flatten(fixed)
            noise = jax.tree.unflatten(
                structure,
                [
                    jax.random.normal(jax.random.fold_in(key, i), leaf.shape, leaf.dtype)
                    for i, leaf in enumerate(leaves)
                ],
            )
            at = lambda sign: plain.loss(
                config, jax.tree.map(lambda x, e: x + sign * sigma * e, fixed, noise), batch, key
            )
            slope = (at(1) - at(-1)) / (2 * sigma)
            return jax.tree.map(lambda e: slope * e, noise)

        keys = jax.random.split(jax.random.fold_in(key, 1), pairs)
        grads: PyTree = jax.tree.map(lambda g: g.mean(axis=0), jax.vmap(estimate)(keys))
        grads = jax.lax.stop_gradient(grads)
        # Its value is 0, its gradient the estimate.
        pulls = jax.tree.map(lambda g, x, y: jnp.vdot(g, x - y), grads, params, fixed)
        return plain.loss(config, fixed, batch, key) + sum(jax.tree.leaves(pulls))

    return plain._replace(loss=loss, outer_loss=plain.outer_loss or plain.loss)
