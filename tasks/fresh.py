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


RANDOM = ("kernel", "embedding", "recurrent")
HEAD = 0.1
"""What the kernels of a module called ``head`` are multiplied by: models of texts and patches start
with a blind guess."""


def fresh_parameters(
    model: nn.Module,
    *inputs: int | tuple[int, ...],
    scale: float = 1.0,
    dtype: Any = jnp.float32,
) -> Callable[[Any, Key], PyTree]:
    """``(config, key) -> params``, distributed as Flax's own ``model.init`` has them by default.

    Kernels are truncated normal with variance 1 / fan-in (LeCun), an embedding's vectors with
    variance 1 / their size, biases 0, scales 1. Flax draws for every tensor by itself, and each
    draw is a generator that has to be compiled.

    Args:
      model: of layers with these kinds of parameters, as `flax.linen.Dense`, `Conv` and `Embed`;
        a ``recurrent`` kernel is drawn as others are, one of a module called ``head`` is smaller.
      *inputs: the shape of one input; or a shape for each, where the model takes several.
      scale: what the kernels are multiplied by.
      dtype: of the inputs.

    Raises:
      ValueError: for a parameter of another kind.

    Examples:
      >>> params = fresh_parameters(nn.Dense(3), 4)((), jax.random.key(0))
      >>> params["kernel"].shape, params["bias"].tolist()
      ((4, 3), [0.0, 0.0, 0.0])
    """
    several: Any = inputs if isinstance(inputs[0], tuple) else (inputs,)
    examples = [jax.ShapeDtypeStruct((1, *shape), dtype) for shape in several]
    keys = {name: jax.random.key(0) for name in ("params", "dropout")}
    shapes = jax.eval_shape(model.init, keys, *examples)["params"]
    leaves, structure = jax.tree.flatten_with_path(shapes)
    named = [([str(part.key) for part in path], leaf.shape) for path, leaf in leaves]
    for path, _ in named:
        if path[-1] not in (*RANDOM, "bias", "scale"):
            listed = ", ".join((*RANDOM, "bias", "scale"))
            raise ValueError(f"parameters must be named one of {listed}, got {path[-1]!r}.")
    sizes = [math.prod(shape) if path[-1] in RANDOM else 0 for path, shape in named]
    ends = np.cumsum(sizes)

    def init(config: Any, key: Key) -> PyTree:
        drawn = jax.random.truncated_normal(key, -2.0, 2.0, (int(ends[-1]),), jnp.float32)
        drawn = drawn / (TRUNCATED / scale)

        def leaf(path, shape, end, size):
            if path[-1] not in RANDOM:
                return jnp.full(shape, float(path[-1] == "scale"))
            fan_in = shape[-1] if path[-1] == "embedding" else math.prod(shape[:-1])
            values = drawn[end - size : end].reshape(shape) / math.sqrt(fan_in)
            return HEAD * values if "head" in path else values

        return jax.tree.unflatten(
            structure, [leaf(*one, *at) for one, *at in zip(named, ends, sizes, strict=True)]
        )

    return init
