"""Two-phase meta-training: parts of theta that stay as they start."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metaopt import UserError
from metaopt.config.schema import Component, Config, OuterConfig, from_json, to_json
from metaopt.training.experiment import build


def config(*frozen, **outer):
    return Config(
        task=Component("quadratic"),
        optimizer=Component("celo"),
        outer=OuterConfig(frozen=frozen, warmup_steps=0, **outer),
    )


def test_only_the_rest_moves_and_counts():
    """What is frozen does not move, and its gradient is not in the norm that is clipped."""
    phase_two = config("rule", "scheduler/start", optimizer="sgd", learning_rate=1.0)
    experiment = build(from_json(to_json(phase_two)))
    theta = experiment.problem.init_theta(jax.random.key(0))
    grads = jax.tree.map(jnp.ones_like, theta)
    grads["rule"] = jax.tree.map(lambda leaf: 1e6 * leaf, grads["rule"])
    ravel, unravel = experiment.vector
    vector = ravel(theta)
    updates, _ = jax.jit(experiment.tx.update)(ravel(grads), experiment.tx.init(vector), vector)
    updates = unravel(updates)
    for still in (updates["rule"], updates["scheduler"]["start"]):
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(still))
    assert float(optax.tree.norm(updates)) == pytest.approx(1.0, rel=1e-4)


def test_a_part_may_be_held_at_a_number():
    """One leaf, or all below a path; also of a theta that is started from another."""
    for start in (None, "scheduled-adam-small"):
        held = Config(
            task=Component("quadratic"),
            optimizer=Component("scheduled_adam", ("knots=5",)),
            start_from=start,
            outer=OuterConfig(frozen=("log_epsilon=-7", "schedule=0.25")),
        )
        experiment = build(from_json(to_json(held)))
        theta = jax.jit(experiment.problem.init_theta)(jax.random.key(0))
        free = build(dataclasses.replace(held, outer=OuterConfig()))
        expected = free.problem.init_theta(jax.random.key(0))
        expected |= {"log_epsilon": jnp.float32(-7), "schedule": jnp.full(5, 0.25, jnp.float32)}
        jax.tree.map(np.testing.assert_array_equal, theta, expected)


@pytest.mark.parametrize(
    "frozen, said",
    [
        (("rules",), "unknown part of theta in outer.frozen 'rules': did you mean 'rule'"),
        (("rule/layer_9",), "rule/layer_2/kernel"),
        (("rule=big",), "outer.frozen takes PATH or PATH=NUMBER, finite, got 'rule=big'"),
        (("rules=1",), "unknown part of theta in outer.frozen 'rules'"),
        (("rule", "scheduler"), "must leave a part of theta to train, got ('rule', 'scheduler')"),
    ],
)
def test_faults_are_found_before_anything_runs(frozen, said):
    with pytest.raises(UserError) as error:
        build(config(*frozen))
    assert said in str(error.value)
