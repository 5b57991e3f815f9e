"""Accuracy beside the loss, what a meta-training took, and a definition of every column."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import metaopt
from metaopt import Task, UserError
from metaopt.config.schema import innermost
from metaopt.evaluation import tables, words
from metaopt.evaluation.evaluate import measure
from metaopt.evaluation.inputs import trained_on
from metaopt.learned_optimizers import LEARNED_OPTIMIZERS
from metaopt.tasks import TASKS

SGD = LEARNED_OPTIMIZERS["sgd"]()
RATES = (0.01, 0.1, 0.2, 5.0)


def threshold() -> Task:
    """One number w that is to become 1; row i is right where w is at least its threshold."""
    at = {"train": [0.5], "valid": [0.5], "test": [0.2, 0.4, 0.6, 0.8]}
    return Task(
        data=lambda: {split: np.array(values, np.float32) for split, values in at.items()},
        init=lambda config, key: jnp.float32(0.0),
        batch=lambda data, config, split, key: data[split],
        loss=lambda config, w, batch, key: jnp.square(w - 1) / 2,
        accuracy=lambda config, w, batch, key: (w >= batch).mean(),
    )


@pytest.fixture(scope="module")
def found():
    """SGD at rate 0.1 on it and on a quadratic: w is 1 - 0.9^t after t steps."""
    return metaopt.evaluate(
        {"mine": (SGD, {"log_lr": jnp.log(jnp.float32(0.1))})},
        tasks={"threshold": threshold(), "quadratic": TASKS["quadratic"]()},
        baselines=["sgd", "adam_cosine"], num_steps=8, seeds=2, rates=RATES,
    )  # fmt: skip


def test_it_is_the_fraction_that_is_right_after_each_step(found):
    w = 1 - 0.9 ** np.arange(9)
    right = (w[:, None] >= np.array([0.2, 0.4, 0.6, 0.8])).mean(axis=1)
    for accuracies in found.accuracies("threshold", "mine"):
        np.testing.assert_allclose(accuracies, right)
    assert found.row("threshold", "mine").accuracy == (right[-1], 0)
    longer = found.trials["threshold"]["sgd"].accuracies
    assert sorted(longer) == [2, 4, 8, 16, 32] and longer[32].shape == (4, 2, 33, 3)
    np.testing.assert_array_equal(longer[8], longer[32][:, :, :9])


def test_a_baseline_is_at_the_rate_that_is_best_for_it(found):
    """At 0.2 w ends at 1 - 0.8^8 = 0.83; at 5 it is far below every threshold."""
    ends = found.trials["threshold"]["sgd"].accuracies[8][:, 0, -1, 2]
    assert ends.tolist() == [0, 0.5, 1, 0]
    assert found.row("threshold", "sgd").accuracy.mean == 1


def test_a_task_without_one_has_none(found):
    assert found.row("quadratic", "mine").accuracy is None
    with pytest.raises(UserError, match="the task 'quadratic' has no accuracy"):
        found.accuracies("quadratic", "mine")
    mine, quadratic = (tables.cells(found, found.row(task, "mine")) for task in found.tasks)
    assert mine["accuracy"] == "50±0%" and quadratic["accuracy"] == "–"
    assert tables.page_cells(found, found.row("threshold", "mine"))["accuracy"] == "50 ± 0%"


def test_every_column_has_a_definition(found):
    defined = words.definitions(found)
    for row in found.rows:
        for cells in (tables.cells, tables.page_cells, tables.further_cells):
            for head in [*cells(found, row)][1:]:
                assert head in defined, head
    assert {*tables.aggregate_heads(found)} <= {*defined}
    assert "at RATE" in defined  # what stands in the first column


def test_the_rates_that_do_nearly_as_well(found):
    """In closed form: from 0.5 to the mean over t of (1 - rate)^2t / 2."""
    made = [0.5 - np.mean((1 - rate) ** (2 * np.arange(1, 9))) / 2 for rate in RATES[:3]]
    assert made[1] < 0.9 * made[2]
    cells = tables.further_cells(found, found.row("threshold", "sgd"))
    assert cells["rates at 90%"] == "0.2"
    assert tables.further_cells(found, found.row("threshold", "mine"))["rates at 90%"] == "–"


def test_the_page_says_what_meta_training_took():
    known = {"mlp-digits": trained_on("mlp-digits")}
    found = measure(
        {"mlp-digits": (SGD, {"log_lr": jnp.float32(0.0)})}, known, tasks=["quadratic"],
        baselines=["sgd"], num_steps=2, seeds=2, rates=(0.1,),
    )  # fmt: skip
    assert "mlp-digits: meta-trained once, with seed 0: 800 outer steps" in found.to_html()
    assert found.machine in found.to_html() and "jax 0." in found.machine


def test_a_mixture_with_weighed_losses_says_its_tasks():
    assert "digits_mlp_32" in [innermost(one).name for one in trained_on("general").tasks]


@pytest.mark.parametrize("name", ["digits_mlp", "digits_cnn", "small_mlps"])
def test_the_classifiers_of_the_catalogue_have_one(name):
    """A guess is right as often as there are classes; labels that follow the guesses always are."""
    task = TASKS[name]()
    member = task.sample(jax.random.key(0))
    params = task.init(member, jax.random.key(1))
    batch = task.batch(task.data(), member, "test", None)
    accuracy = task.accuracy(member, params, batch, None)
    assert accuracy.dtype == jnp.float32 and 0 <= accuracy <= 1
    label = lambda batch: batch["label"] if isinstance(batch, dict) else batch.label
    put = lambda value: (
        batch | {"label": value} if isinstance(batch, dict) else batch._replace(label=value)
    )
    of_class = [
        task.accuracy(member, params, put(jnp.full_like(label(batch), k)), None) for k in range(10)
    ]
    np.testing.assert_allclose(sum(of_class), 1, rtol=1e-5)  # each row is taken for one class
