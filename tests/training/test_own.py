"""Meta-training of what is in no catalogue: the same loop, guarded by a name and a digest."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from runs import TINY, bits, metrics

import metaopt
from metaopt import LearnedOptimizer, UserError
from metaopt.estimators import NRES, nres
from metaopt.tasks import linear_recursion, quadratic

pytestmark = pytest.mark.slow

OPTIONS = NRES(particles=4, horizon=8, window=2, sigma=0.1)
MINE = {"name": "mine", "estimator": OPTIONS, "quiet": True}


def sgd(*, rate=0.1):
    return LearnedOptimizer(
        init=lambda key: {"rates": {"log": jnp.log(jnp.float32(rate))}},
        optimizer=lambda theta, num_steps=None: optax.with_extra_args_support(
            optax.sgd(jnp.exp(theta["rates"]["log"]))
        ),
    )


def test_a_problem_of_ones_own_resumes_to_the_bit(tmp_path):
    """And is the problem of the catalogue, where it is that one."""
    train = lambda folder, steps, **more: metaopt.train(
        TINY, problem=linear_recursion(), out=tmp_path / folder, outer_steps=steps, **MINE, **more
    )
    whole = train("whole", 9)
    train("parts", 4)
    parts = train("parts", 9)
    assert metrics(whole.path) == metrics(parts.path)
    np.testing.assert_array_equal(whole.theta, parts.theta)
    config = dataclasses.replace(
        TINY, problem=metaopt.Component("linear_recursion"), estimator=OPTIONS, outer_steps=9
    )
    named = metaopt.train(config, out=tmp_path / "named", quiet=True)
    assert metrics(named.path) == metrics(whole.path)
    assert "mine by nres" in repr(whole)


def test_a_task_and_an_optimizer_of_ones_own(tmp_path):
    run = metaopt.train(TINY, task=quadratic(dim=2), optimizer=sgd(), out=tmp_path / "run", **MINE)
    assert run.finished and run.theta["rates"]["log"].shape == ()
    params = {"w": jnp.ones(2)}
    tx = run.load(num_steps=8)
    updates, _ = tx.update(params, tx.init(params), params)
    rate = jnp.exp(run.theta["rates"]["log"])
    np.testing.assert_allclose(updates["w"], -rate * params["w"], rtol=1e-6)
    assert metaopt.report(run, quiet=True).is_file()
    assert "mine" in json.loads((run.path / "evaluation.json").read_text())["tasks"]
    with pytest.raises(UserError, match=r"has no optimizer: .* metaopt\.train with the same"):
        metaopt.Run(run.path).load(num_steps=8)


def test_an_optimizer_of_the_catalogue_on_a_task_of_ones_own_is_loaded_by_everyone(tmp_path):
    run = metaopt.train(TINY, task=quadratic(dim=2), out=tmp_path / "run", **MINE)
    params = {"w": jnp.ones(2)}
    for tx in (run.load(8), metaopt.load(str(run.path), 8)):
        updates, _ = tx.update(params, tx.init(params), params)
        np.testing.assert_allclose(updates["w"], -jnp.exp(run.theta["log_lr"]), rtol=1e-6)
    found = metaopt.evaluate(
        {"learned": run}, tasks={"q": quadratic(dim=2)}, baselines=["sgd"], num_steps=8, seeds=2
    )
    assert found.optimizers[0] == "learned"
    with pytest.raises(UserError, match="no task is given, and the optimizers name none"):
        metaopt.evaluate([run.path], baselines=["sgd"], seeds=2)


def test_an_outer_optimizer_and_a_made_estimator(tmp_path):
    problem = linear_recursion()
    made = nres(problem, particles=4, horizon=8, window=2, sigma=0.1)
    options = {"problem": problem, "tx": optax.sgd(0.1), "name": "mine", "quiet": True}
    run = metaopt.train(TINY, estimator=made, out=tmp_path / "made", **options)
    other = metaopt.train(TINY, estimator=OPTIONS, devices=1, out=tmp_path / "options", **options)
    assert metrics(run.path) == metrics(other.path)
    for a, b in zip(bits(run.theta), bits(other.theta), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_run_starts_from_the_theta_of_another_problem_run(tmp_path):
    first = metaopt.train(TINY, problem=linear_recursion(), out=tmp_path / "a", **MINE)
    config = dataclasses.replace(TINY, start_from=str(first.path))
    again = metaopt.train(
        config, problem=linear_recursion(), tx=optax.sgd(0.0), out=tmp_path / "b", **MINE
    )
    np.testing.assert_array_equal(first.theta, again.theta)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"name": "other"}, "problem.name: 'mine' there, 'other' here"),
        ({"problem": linear_recursion(dim=3)}, "problem.args: ('digest="),
        ({"tx": optax.sgd(0.1)}, "problem.args: ('digest="),
        ({"estimator": dataclasses.replace(OPTIONS, sigma=0.2)}, "estimator.sigma: 0.1 there"),
        ({"name": None}, "give what is yours a name"),
        ({"out": None}, "say where the run goes"),
        ({"estimator": nres(linear_recursion(), particles=4, horizon=8, window=2, sigma=0.1),
          "devices": 2}, "an estimator that is made already runs on one device"),
    ],
)  # fmt: skip
def test_another_run_is_refused(tmp_path, change, said):
    arguments = {"problem": linear_recursion(), "out": tmp_path / "run", **MINE}
    metaopt.train(TINY, **arguments)
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError) as error:
        metaopt.train(TINY, **arguments | change)
    assert said in str(error.value)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
