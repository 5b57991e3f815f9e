"""One update of every learned optimizer on a large tree, against optax's Adam; the MLP's, fused."""

import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import optax
from rich.console import Console

from metaopt.bench.outer_steps import yardsticks
from metaopt.config.registry import catalogue
from metaopt.core.sizes import bytes_of, count_of
from metaopt.core.types import LearnedOptimizer, PyTree

ROUNDS = 5
WIDTH, LAYERS = 512, 4
PARTICLES, SIDE = 4, 1024

MLP_BYTES = 4 * (8 + 7)
"""What one update of the MLP optimizer cannot do without, a parameter: gradient, parameter and six
momenta read, six momenta and the update written. Its normalisers read the first eight twice."""


def large_tree(width: int = WIDTH, layers: int = LAYERS) -> PyTree:
    """Parameters like a small transformer's: 10.5 million in 33 tensors of 6 shapes.

    Examples:
      >>> sum(leaf.size for leaf in jax.tree.leaves(large_tree(8, 1)))
      1048
    """
    block = {
        "attention": {name: jnp.ones((width, width)) for name in "qkvo"},
        "up": jnp.ones((width, 2 * width)),
        "up_bias": jnp.ones(2 * width),
        "down": jnp.ones((2 * width, width)),
        "scale": jnp.ones(width),
    }
    return {
        "embedding": jnp.ones((8 * width, width)),
        **{f"block_{i}": block for i in range(layers)},
    }


def time_updates(console: Console) -> dict[str, dict[str, float]]:
    """``{name: figures}``, `optax.adam` first: ``ms`` an update (median of rounds in turn with
    Adam's), ``against_adam`` (ratio, round by round), ``state_bytes`` and ``peak_bytes`` (state,
    gradients, parameters and temporaries of the compiled program), each a parameter."""
    params = large_tree()
    grads = jax.tree.map(lambda leaf: 1e-2 * leaf, params)
    count = count_of(params)
    adam = _Update(optax.with_extra_args_support(optax.adam(1e-3)), params, grads)
    rows = {
        "optax.adam": {"against_adam": 1.0} | adam.figures([adam() for _ in range(ROUNDS)], count)
    }
    for name, factory in sorted(catalogue("learned optimizer").items()):
        with console.status(f"update of {name} ..."):
            update = _Update(_optimizer(factory()), params, grads)
            pairs = [(update(), adam()) for _ in range(ROUNDS)]
        ratio = statistics.median(ours / theirs for ours, theirs in pairs)
        times = [ours for ours, _ in pairs]
        rows[name] = {"against_adam": ratio} | update.figures(times, count)
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
    grads, copy = 1e-2 * params, yardsticks()["copy_gbytes"]
    rows = {}
    for name in ("plain", "fused") if jax.default_backend() == "gpu" else ("plain",):
        with console.status(f"update of mlp, {name} ..."):
            optimizer = catalogue("learned optimizer")["mlp"](fused=name == "fused")
            update = _Update(_of_particles(optimizer), params, grads)
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
    """A compiled update and its state; calling it makes one and says how many seconds it took."""

    def __init__(self, tx: optax.GradientTransformationExtraArgs, params: PyTree, grads: PyTree):
        def step(grads, state, params):
            updates, state = tx.update(grads, state, params, value=jnp.float32(1.0))
            return optax.apply_updates(params, updates), state

        # Copies, because the step is given its state and parameters for good.
        self.params = jax.tree.map(jnp.copy, params)
        self.grads, self.state = grads, jax.jit(tx.init)(params)
        self.state_bytes = bytes_of(self.state)
        self.step: Any = jax.jit(step, donate_argnums=(1, 2))
        self.step = self.step.lower(self.grads, self.state, self.params).compile()
        self()

    def __call__(self) -> float:
        began = time.perf_counter()
        self.params, self.state = self.step(self.grads, self.state, self.params)
        jax.block_until_ready(self.params)
        return time.perf_counter() - began

    def figures(self, times: list[float], count: int) -> dict[str, float]:
        memory = self.step.memory_analysis()
        peak = memory.temp_size_in_bytes + memory.argument_size_in_bytes
        return {
            "ms": 1e3 * statistics.median(times),
            "state_bytes": self.state_bytes / count,
            "peak_bytes": peak / count,
        }


def _optimizer(optimizer: LearnedOptimizer) -> optax.GradientTransformationExtraArgs:
    return optimizer.optimizer(optimizer.init(jax.random.key(0)), num_steps=1000)
