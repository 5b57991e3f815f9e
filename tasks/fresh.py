"""Fresh parameters of a network from a single draw of random numbers."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from metaopt import Key, PyTree

TRUNCATED = 0.87962566103423978
"""Standard deviation of a standard normal that is cut off at 2."""


def fresh_parameters(
    model: nn.Module, *inputs: int | tuple[int, ...], scale: float = 1.0
) -> Callable[[Any, Key], PyTree]:
    """``(config, key) -> params``, distributed as Flax's own ``model.init`` has them by default.

    Kernels are truncated normal with variance 1 / fan-in (LeCun), biases 0, scales 1. Flax draws
    for every tensor by itself, and each draw is a generator that has to be compiled.

    Args:
      model: of layers with these three kinds of parameters, as `flax.linen.Dense` and `Conv`.
      *inputs: the shape of one input; or a shape for each, where the model takes several.
      scale: what the kernels are multiplied by.

    Raises:
      ValueError: for a parameter of another kind.

    Examples:
      >>> params = fresh_parameters(nn.Dense(3), 4)((), jax.random.key(0))
      >>> params["kernel"].shape, params["bias"].tolist()
      ((4, 3), [0.0, 0.0, 0.0])
    """
    several: Any = inputs if isinstance(inputs[0], tuple) else (inputs,)
    examples = [jax.ShapeDtypeStruct((1, *shape), jnp.float32) for shape in several]
    keys = {name: jax.random.key(0) for name in ("params", "dropout")}
    shapes = jax.eval_shape(model.init, keys, *examples)["params"]
    leaves, structure = jax.tree.flatten_with_path(shapes)
    named = [(str(path[-1].key), leaf.shape) for path, leaf in leaves]
    for name, _ in named:
        if name not in ("kernel", "bias", "scale"):
            raise ValueError(f"parameters must be named kernel, bias or scale, got {name!r}.")
    sizes = [math.prod(shape) if name == "kernel" else 0 for name, shape in named]
    ends = np.cumsum(sizes)

    def init(config: Any, key: Key) -> PyTree:
        drawn = jax.random.truncated_normal(key, -2.0, 2.0, (int(ends[-1]),), jnp.float32)
        drawn = drawn / (TRUNCATED / scale)

        def leaf(name, shape, end, size):
            if name != "kernel":
                return jnp.full(shape, float(name == "scale"))
            return drawn[end - size : end].reshape(shape) / math.sqrt(math.prod(shape[:-1]))

        return jax.tree.unflatten(
            structure, [leaf(*one, *at) for one, *at in zip(named, ends, sizes, strict=True)]
        )

    return init
