"""A meta-loss that is progress: 1 at the start, 0 at the reference, and nothing else changed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaopt import Task, UserError, make_task
from metaopt.config.components import make
from metaopt.config.schema import component_of
from metaopt.core.inner import training
from metaopt.learned_optimizers import sgd
from metaopt.tasks import TASKS, progress
from metaopt.tasks.progress import references


def test_it_is_one_at_the_start_and_zero_at_the_reference():
    plain = make_task("quadratic_plain")
    config, key = plain.sample(jax.random.key(0)), jax.random.key(2)
    params = plain.init(config, jax.random.key(1))
    batch = plain.batch(plain.data(), config, "valid", key)
    start = float(plain.loss(config, params, batch, key))
    task = progress(task=plain, start=start, reference=start / 4)
    halfway = (params + config.centre) / 2
    left = [task.outer_loss(config, at, batch, key) for at in (params, halfway)]
    # The loss is quadratic: at half the distance it is a quarter.
    np.testing.assert_allclose(left, [1, 0], atol=1e-6)


def test_the_optimizer_sees_what_it_saw():
    """The same gradients, so the same parameters after a step; only the meta-loss is another."""
    plain = make_task("iris_mlp_32")
    task = progress(task="iris_mlp_32")
    theta, data = {"log_lr": jnp.float32(-2.0)}, plain.data()
    known, after = references()["iris_mlp_32"], []
    for one in (plain, task):
        problem = training(one, sgd())
        state = problem.init(theta, data, 4, jax.random.key(3))
        after.append(problem.step(theta, state, data))
    (ours, left), (theirs, loss) = reversed(after)
    jax.tree.map(np.testing.assert_array_equal, ours.params, theirs.params)
    expected = (loss - known.best) / (known.start - known.best)
    np.testing.assert_allclose(left, expected, rtol=1e-5)


def test_what_diverged_counts_as_the_most():
    capped = make_task("quadratic_plain")._replace(
        loss=lambda config, params, batch, key: params, loss_cap=3.0
    )
    task = progress(task=capped, start=2.0, reference=1.0)
    values = [task.outer_loss((), jnp.float32(x), (), None) for x in (1.5, 9.0, jnp.nan, jnp.inf)]
    assert task.loss_cap is None
    np.testing.assert_allclose(values, [0.5, 2, 2, 2])


def test_every_reference_is_of_a_member_as_it_is_now():
    """Sizes agree, and the stored start is what the member begins with."""
    for name, known in references().items():
        task = TASKS[name]()
        params = jax.eval_shape(
            lambda key, of=task: of.init(of.sample(key), key), jax.random.key(0)
        )
        sizes = [leaf.size for leaf in jax.tree.leaves(params)]
        assert sum(sizes) == known.parameters, name
        assert known.best < known.start and known.mflops > 0 and known.microseconds > 0, name


def test_faults_are_sentences():
    with pytest.raises(UserError, match=r"no reference is stored for 'quadratic': give start and "):
        progress(task="quadratic")
    with pytest.raises(UserError, match="a task without a name"):
        progress(task=make_task("quadratic"))
    with pytest.raises(ValueError, match="must be below start=1, got 2"):
        progress(task="quadratic", start=1.0, reference=2.0)
    with pytest.raises(ValueError, match="most must be a number above 1 and below"):
        progress(task="iris_mlp_32", most=1.0)
    with pytest.raises(UserError, match="unknown task 'quadratc'"):
        progress(task="quadratc")
    with pytest.raises(ValueError, match="start must be a number below"):
        progress(task="quadratic", start=1e40, reference=0.1)
    with pytest.raises(UserError, match="give reference, or a member of the zoo"):
        progress(task="quadratic", start=1.0)
    assert isinstance(make("task", component_of("progress task=wine_mlp_32")), Task)
