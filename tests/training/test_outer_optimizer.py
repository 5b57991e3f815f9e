"""What a configuration makes of the outer optimizer."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import pytest
from runs import TINY

from metaopt import UserError
from metaopt.config.schema import OuterConfig
from metaopt.training.experiment import build


def test_eps_root_is_under_the_root_of_adam():
    """A first gradient g moves theta by rate * g / (sqrt(g^2 + eps_root) + 1e-8)."""
    outer = OuterConfig(learning_rate=0.5, warmup_steps=0, clip_norm=None, eps_root=0.04)
    tx = build(dataclasses.replace(TINY, outer=outer)).tx
    theta = {"a": jnp.float32(1.0)}
    with jax.numpy_dtype_promotion("standard"):  # as in the outer step: optax mixes them
        updates, _ = tx.update({"a": jnp.float32(0.1)}, tx.init(theta), theta)
    assert float(updates["a"]) == pytest.approx(-0.5 * 0.1 / math.sqrt(0.01 + 0.04), rel=1e-5)
    for optimizer, value, said in (
        ("sgd", 1e-8, r"for adam and adamw, got outer\.optimizer=sgd"),
        ("adam", -1.0, "must be at least 0 or None, got -1"),
    ):
        bad = dataclasses.replace(outer, optimizer=optimizer, eps_root=value)
        with pytest.raises(UserError, match=said):
            build(dataclasses.replace(TINY, outer=bad))
