"""Faults in problems and tasks of one's own are a sentence that names the field."""

import jax.numpy as jnp
import numpy as np
import pytest

import metaopt
from metaopt import Metric, UnrolledProblem, UserError
from metaopt.estimators import NRES
from metaopt.tasks import linear_recursion, quadratic

GOOD = UnrolledProblem(
    init=lambda theta, data, horizon, key: {"x": jnp.zeros(2)},
    step=lambda theta, state, data: ({"x": 0.9 * state["x"] + theta["a"]}, jnp.mean(state["x"])),
    init_theta=lambda key: {"a": jnp.zeros(2)},
    done=lambda state: state["x"][0] > 5,
    test_loss=lambda theta, data, key: jnp.sum(theta["a"]),
)


def train(tmp_path, **what):
    options = NRES(particles=2, horizon=4, window=2, sigma=0.1)
    how = {"name": "mine", "estimator": options, "outer_steps": 1, "quiet": True} | what
    return metaopt.train("tiny", out=tmp_path / "run", **how)


def test_a_good_one_runs(tmp_path):
    assert train(tmp_path, problem=GOOD).finished


@pytest.mark.parametrize(
    "change, said",
    [
        ({"step": lambda t, s, d: (s, s["x"])}, "step's loss must be a float scalar, got float32["),
        ({"step": lambda t, s, d: (s, jnp.int32(1))}, "loss must be a float scalar, got int32"),
        ({"step": lambda t, s, d: s}, "step must return (state, loss), got {x: float32[2]}"),
        ({"step": lambda t, s, d: (jnp.float32(0), s)}, "step must return a state like init's"),
        ({"step": lambda t, s, d: ({"x": jnp.zeros(3)}, jnp.float32(0))}, "at 'x' where init"),
        ({"init_theta": lambda key: {"a": jnp.zeros(2, int)}}, "init_theta must make float arrays"),
        ({"init_theta": lambda key: {}}, "init_theta must make at least one number"),
        ({"init_theta": lambda key: {"a": {"b": jnp.zeros(2)}, "a/b": jnp.zeros(2)}}, "a/b' twice"),
        ({"done": lambda state: state["x"] > 5}, "done must be a bool scalar, got bool[2]"),
        ({"done": lambda state: state["x"][0]}, "done must be a bool scalar, got float32[]"),
        ({"done": True}, "done must be a function or None, got True"),
        ({"test_loss": lambda theta, data, key: theta["a"]}, "test_loss must be a float scalar"),
        ({"test_metric": "return"}, "test_metric must be a metaopt.Metric, got 'return'"),
        ({"loss_cap": "10"}, "loss_cap must be a number or None, got '10'"),
        ({"shared": {"y": True}}, "shared must be a tree like the state's"),
        ({"data": lambda: {"names": np.array(["a", "b"])}}, "data must be arrays of numbers"),
    ],
)  # fmt: skip
def test_a_fault_of_a_problem_is_named(change, said, tmp_path):
    with pytest.raises(UserError) as error:
        train(tmp_path, problem=GOOD._replace(**change))
    assert str(error.value).startswith("problem 'mine': ") and said in str(error.value)
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    "change, said",
    [
        ({"loss": lambda config, params, batch, key: params}, "loss must be a float"),
        ({"loss": lambda config, params, batch, key: (jnp.float32(0), 1)}, "loss must be a float"),
        ({"data": lambda: ["a", "b"]}, "data must be arrays of numbers, got dtype"),
    ],
)  # fmt: skip
def test_a_fault_of_a_task_is_named(change, said, tmp_path):
    with pytest.raises(UserError) as error:
        train(tmp_path, task=quadratic(dim=2)._replace(**change))
    assert str(error.value).startswith("task 'mine': ") and said in str(error.value)


@pytest.mark.parametrize(
    "what, said",
    [
        ({"estimator": "pes"}, "estimator must be options, such as metaopt.estimators.PES("),
        ({"estimator": NRES}, "estimator must be options"),
        ({"tx": 0.1}, "tx must be an optax transformation, such as optax.adam(0.1), got 0.1"),
        ({"name": " "}, "a name has at least one letter, got ' '"),
        ({"task": quadratic()}, "hand over a problem, or a task and an optimizer, not both"),
    ],
)
def test_arguments_of_other_kinds_are_named(what, said, tmp_path):
    with pytest.raises(UserError) as error:
        train(tmp_path, problem=linear_recursion(), **what)
    assert said in str(error.value)


def test_a_direction_is_true_or_false():
    with pytest.raises(UserError, match="higher_is_better must be a bool, got 'no'"):
        Metric("return", higher_is_better="no")
    assert Metric("return", "points", True).title == "test return (points), higher is better"
