"""Short runs, and what has to be the same of two of them."""

import dataclasses
import json

import jax
import numpy as np

from metaopt import recipe

TINY = dataclasses.replace(recipe("tiny"), outer_steps=13, checkpoint_every=5)


def bits(state):
    """Every leaf of a state as plain numbers, keys included."""
    plain = lambda leaf: (
        jax.random.key_data(leaf)
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        else leaf
    )
    return [np.asarray(plain(leaf)) for leaf in jax.tree.leaves(state)]


def metrics(path):
    """A run's rows of metrics, but for the clock."""
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def after(calls):
    """A ``should_stop`` that says so from the given call on."""
    count = 0

    def should_stop():
        nonlocal count
        count += 1
        return count > calls

    return should_stop
