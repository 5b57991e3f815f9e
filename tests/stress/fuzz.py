"""Random trees, dtypes and numbers for every optimizer: parameters stay finite, states as they are.

    python tests/stress/fuzz.py --minutes 60

Each trial draws an optimizer, a tree of parameters and a course of gradients and losses: ordinary,
enormous, tiny, zero, and (inside `optax.apply_if_finite`) not finite. It checks that an update has
its parameter's dtype and shape, that the state keeps its types, that parameters stay finite and
that ordinary gradients move them in the end. Prints what is needed to repeat a trial that fails.
"""

import argparse
import sys
import time
import traceback
import warnings
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax

import metaopt
from metaopt.learned_optimizers import LEARNED_OPTIMIZERS

FLOATS = (jnp.float32, jnp.bfloat16, jnp.float16, jnp.complex64)
OTHERS = (jnp.int32, jnp.bool_)
SHAPES = ((), (1,), (7,), (3, 4), (1, 5), (2, 3, 4), (3, 3, 2, 4), (0, 3), (300, 250))
STEPS = 8
LARGEST = 1e3
"""Of a parameter: beyond, a rule that scales its steps by it leaves float16."""


@cache
def transformation(name: str) -> optax.GradientTransformationExtraArgs:
    """An optimizer at where its theta starts, or as it is shipped."""
    if name in metaopt.shipped():
        return metaopt.load(name, num_steps=100)
    learned = LEARNED_OPTIMIZERS[name]()
    return learned.optimizer(learned.init(jax.random.key(0)), num_steps=100)


def tree_of(draw: np.random.Generator) -> dict[str, jax.Array]:
    """Parameters: a few of all kinds, now and then many of one shape."""
    shapes = [SHAPES[i] for i in draw.integers(len(SHAPES), size=draw.integers(1, 5))]
    shapes += [(3, 4)] * (10 * (draw.random() < 0.2))
    kinds = [*FLOATS, *OTHERS] if draw.random() < 0.5 else [jnp.float32]
    tree = {}
    for i, shape in enumerate(shapes):
        dtype = kinds[draw.integers(len(kinds))]
        size = 10.0 ** draw.uniform(-6, np.log10(LARGEST))
        tree[f"p{i}"] = jnp.asarray(size * draw.standard_normal(shape)).astype(dtype)
    return tree


def gradients(draw: np.random.Generator, params, kind: str):
    """Like the parameters; zeros for what has no gradient."""
    sizes = {"ordinary": 1.0, "enormous": 10.0 ** draw.uniform(5, 37), "zero": 0.0, "nan": np.nan}
    size = sizes.get(kind, 10.0 ** draw.uniform(-37, -5))

    def of(p):
        if not jnp.issubdtype(p.dtype, jnp.inexact):
            return jnp.zeros_like(p)  # optax.apply_if_finite takes no float0
        largest = float(jnp.finfo(p.dtype).max)
        values = np.clip(size * draw.standard_normal(p.shape), -largest, largest)
        return jnp.asarray(values).astype(p.dtype)

    return jax.tree.map(of, params)


def trial(seed: int, names: list[str]) -> str:
    """One trial; the name of its optimizer.

    Raises:
      AssertionError: where something does not hold.
    """
    draw = np.random.default_rng(seed)
    name, params = names[draw.integers(len(names))], tree_of(draw)
    tx = optax.apply_if_finite(transformation(name), STEPS + 1)
    state, update = tx.init(params), jax.jit(tx.update)
    types = jax.tree.map(lambda x: (x.shape, x.dtype), state)
    kinds = draw.choice(["ordinary", "enormous", "tiny", "zero", "nan"], size=STEPS)
    for kind in [*kinds, "ordinary", "ordinary"]:
        loss = jnp.float32(draw.choice([1.0, 1e30, 1e-30, 0.0, np.nan, np.inf]))
        updates, state = update(gradients(draw, params, kind), state, params, value=loss)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == types, (name, kind)
        for key, p in params.items():
            assert updates[key].dtype == p.dtype and updates[key].shape == p.shape, (name, key)
        params = optax.apply_updates(params, updates)
        for key, p in params.items():
            if jnp.issubdtype(p.dtype, jnp.inexact):
                assert np.isfinite(np.asarray(p, np.complex64)).all(), (name, kind, key, p.dtype)
        bound = lambda p: jnp.clip(p, -LARGEST, LARGEST) if p.dtype in FLOATS[:3] else p
        params = jax.tree.map(bound, params)
    # Where theta starts, a few hidden units may all be off for all of a small tensor's elements.
    moved = [np.any(u) for u in updates.values() if u.dtype == jnp.float32 and u.size >= 1000]
    assert all(moved), (name, "does not move")
    return name


def main() -> int:
    """Trials until the time is over; 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0, help="of the first trial")
    parser.add_argument("--trials", type=int, default=10**9)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    names = [*LEARNED_OPTIMIZERS, *metaopt.shipped()]
    end, done, failed = time.monotonic() + 60 * arguments.minutes, dict.fromkeys(names, 0), 0
    seed = arguments.seed
    while time.monotonic() < end and seed < arguments.seed + arguments.trials:
        try:
            done[trial(seed, names)] += 1
        except Exception:
            failed += 1
            print(f"--seed {seed} --trials 1\n{traceback.format_exc(limit=-2)}", flush=True)
        seed += 1
        if seed % 10 == 0:
            jax.clear_caches()  # a process has only so many programs
    print(f"{sum(done.values())} trials of {len(names)} optimizers passed, {failed} failed: {done}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
