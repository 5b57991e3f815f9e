"""One update of every learned optimizer on a large tree, against optax's own; the MLP's, fused."""

import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.experimental.compilation_cache import compilation_cache
from rich.console import Console

from metaopt.bench.outer_steps import yardsticks
from metaopt.config.registry import catalogue
from metaopt.core.sizes import bytes_of, count_of
from metaopt.core.types import LearnedOptimizer, PyTree

ROUNDS = 5
WIDTH, LAYERS = 192, 24
MATRIX = 4096
PARTICLES, SIDE = 4, 1024

MLP_BYTES = 4 * (8 + 7)
"""What one update of the MLP optimizer cannot do without, a parameter: gradient, parameter and six
momenta read, six momenta and the update written. Its normalisers read the first eight twice."""


def large_tree(width: int = WIDTH, layers: int = LAYERS) -> PyTree:
    """Parameters like a transformer's: 11.0 million in 292 tensors of 7 shapes.

    Examples:
      >>> sum(leaf.size for leaf in jax.tree.leaves(large_tree(8, 1)))
      17240
    """
    norm = {"scale": jnp.ones(width), "bias": jnp.zeros(width)}
    block = {
        "norms": [norm, norm],
        "attention": {name: jnp.ones((width, width)) for name in "qkvo"},
        "up": {"kernel": jnp.ones((width, 4 * width)), "bias": jnp.zeros(4 * width)},
        "down": {"kernel": jnp.ones((4 * width, width)), "bias": jnp.zeros(width)},
    }
    return {
        "embedding": jnp.ones((1024, width)),
        **{f"block_{i}": block for i in range(layers)},
        "norm": norm,
        "head": jnp.ones((width, 1024)),
    }


def time_updates(console: Console) -> dict[str, dict[str, float]]:
    """What an update of `large_tree` takes, ``{name: figures}``; `optax.adam` and Muon first.

    Figures are ``ms`` an update (median of rounds in turn with Adam's); ``against_adam``, its ratio
    round by round, median, and ``_low`` and ``_high``; ``state_bytes`` a parameter;
    ``temporary_bytes`` a parameter of a matrix of 4096 x 4096, which an update needs beside state,
    gradients and parameters; ``compile_s``, from the function to the program, and
    ``compile_against_adam``.
    """
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # what is decided at the first compilation holds for the rest
    params = large_tree()
    optimizers = {
        "optax.adam": optax.with_extra_args_support(optax.adam(1e-3)),
        "optax.contrib.muon": optax.with_extra_args_support(optax.contrib.muon(1e-3)),
    }
    for name, factory in sorted(catalogue("learned optimizer").items()):
        optimizers[name] = _optimizer(factory())
    adam, rows = _Update(optimizers["optax.adam"], params), {}
    for name, tx in optimizers.items():
        with console.status(f"update of {name} ..."):
            update = _Update(tx, params)
            pairs = [(update(), adam()) for _ in range(ROUNDS)]
        ratios = sorted(ours / theirs for ours, theirs in pairs)
        rows[name] = {
            "ms": 1e3 * statistics.median(ours for ours, _ in pairs),
            "against_adam": statistics.median(ratios),
            "against_adam_low": ratios[0],
            "against_adam_high": ratios[-1],
            "state_bytes": update.state_bytes,
            "temporary_bytes": _temporary_bytes(tx),
            "compile_s": update.compile_s,
            "compile_against_adam": update.compile_s / adam.compile_s,
        }
    return rows


def time_mlp_updates(console: Console) -> dict[str, dict[str, float]]:
    """The MLP optimizer's update of 4 particles of 1.05 million parameters, each under its theta.

    As everywhere here, updates are also applied, which the bytes leave out.

    Returns:
      ``{"plain": figures, "fused": figures}``, fused on a GPU only: ``ms`` an update (median),
      ``gbytes`` (`MLP_BYTES` a parameter and second), ``copy_gbytes`` (a large copy's, in turn) and
      ``bytes_fraction``, the one by the other.
    """
    params = jnp.ones((PARTICLES, SIDE, SIDE))
    copy = yardsticks()["copy_gbytes"]
    rows = {}
    for name in ("plain", "fused") if jax.default_backend() == "gpu" else ("plain",):
        with console.status(f"update of mlp, {name} ..."):
            optimizer = catalogue("learned optimizer")["mlp"](fused=name == "fused")
            update = _Update(_of_particles(optimizer), params)
            times, rates = zip(*[(update(), copy()) for _ in range(ROUNDS)], strict=True)
        seconds, limit = statistics.median(times), statistics.median(rates)
        rate = MLP_BYTES * params.size / seconds / 1e9
        figures = {"ms": 1e3 * seconds, "gbytes": rate, "copy_gbytes": limit}
        rows[name] = figures | {"bytes_fraction": rate / limit}
    return rows


def _of_particles(optimizer: LearnedOptimizer) -> optax.GradientTransformationExtraArgs:
    """One transformation of all of them, particles as axis 0."""
    thetas = jax.vmap(optimizer.init)(jax.random.split(jax.random.key(0), PARTICLES))

    def update(grads, state, params=None, **extra_args):
        one = lambda theta, *each: optimizer.optimizer(theta).update(*each)
        return jax.vmap(one)(thetas, grads, state, params)

    def init(params):
        return jax.vmap(lambda theta, p: optimizer.optimizer(theta).init(p))(thetas, params)

    return optax.GradientTransformationExtraArgs(init, update)


class _Update:
    """A compiled update and its state; calling it makes one and says how many seconds it took.

    Attributes:
      state_bytes: of the state, a parameter.
      compile_s: seconds from the function to the program.
    """

    def __init__(self, tx: optax.GradientTransformationExtraArgs, params: PyTree):
        # Copies, because the step is given its state and parameters for good.
        self.params = jax.tree.map(jnp.copy, params)
        self.grads = jax.tree.map(lambda leaf: 1e-2 * leaf, params)
        self.state = jax.jit(tx.init)(params)
        began = time.perf_counter()
        self.step = _step(tx).lower(self.grads, self.state, self.params).compile()
        self.compile_s = time.perf_counter() - began
        self.state_bytes = bytes_of(self.state) / count_of(params)
        self()

    def __call__(self) -> float:
        began = time.perf_counter()
        self.params, self.state = self.step(self.grads, self.state, self.params)
        jax.block_until_ready(self.params)
        return time.perf_counter() - began


def _step(tx: optax.GradientTransformationExtraArgs) -> Any:
    def step(grads, state, params):
        updates, state = tx.update(grads, state, params, value=jnp.float32(1.0))
        return optax.apply_updates(params, updates), state

    return jax.jit(step, donate_argnums=(1, 2))


def _temporary_bytes(tx: optax.GradientTransformationExtraArgs) -> float:
    """What an update of a large matrix needs beside inputs and outputs, a parameter; not run."""
    matrix = {"w": jax.ShapeDtypeStruct((MATRIX, MATRIX), jnp.float32)}
    compiled = _step(tx).lower(matrix, jax.eval_shape(tx.init, matrix), matrix).compile()
    return compiled.memory_analysis().temp_size_in_bytes / MATRIX**2


def _optimizer(optimizer: LearnedOptimizer) -> optax.GradientTransformationExtraArgs:
    return optimizer.optimizer(optimizer.init(jax.random.key(0)), num_steps=1000)
