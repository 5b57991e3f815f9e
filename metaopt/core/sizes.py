"""How large trees are: of arrays, or of their `jax.ShapeDtypeStruct`s."""

import math

import jax
import jax.numpy as jnp

from metaopt.core.types import PyTree, Task


def count_of(tree: PyTree) -> int:
    """Numbers in a tree's arrays, such as the d of a theta.

    Examples:
      >>> import jax.numpy as jnp
      >>> count_of({"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)})
      9
    """
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def bytes_of(tree: PyTree) -> int:
    """Bytes of a tree's arrays; a random key counts as the numbers that it is made of.

    Examples:
      >>> import jax.numpy as jnp
      >>> bytes_of(jnp.zeros((2, 3)))
      24
    """
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def flops_of(task: Task) -> float:
    """FLOPs of one training step of a task, loss and gradient, as XLA counts them before it fuses.

    Public as `metaopt.flops_of`. Nothing is compiled.

    Examples:
      >>> from metaopt.tasks import digits_mlp
      >>> one, two = (flops_of(digits_mlp(batch_size=size)) for size in (100, 200))
      >>> 1.9 < two / one < 2.1
      True
    """
    key = jax.random.key(0)
    data = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, task.data()))
    config = jax.eval_shape(task.sample, key)
    params = jax.eval_shape(task.init, config, key)

    def loss_and_grad(data, config, params, key):
        batch = task.batch(data, config, "train", key)
        return jax.value_and_grad(task.loss, argnums=1)(config, params, batch, key)

    lowered = jax.jit(loss_and_grad).lower(data, config, params, key)
    return float((lowered.cost_analysis() or {}).get("flops", 0.0))
