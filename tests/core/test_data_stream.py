"""Windows of data: every row equally often, a function of the outer step, bit for bit resumed."""

import dataclasses
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaopt import Stream, UserError, shuffled_rows
from metaopt.config.schema import Component, Config
from metaopt.core.data_stream import Feed
from metaopt.estimators import NRES
from metaopt.tasks import TASKS, datasets
from metaopt.training.experiment import build
from metaopt.training.loop import train

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("rows", [1, 3, 4, 7])
def test_every_epoch_has_every_row_once_in_an_order_of_its_own(rows):
    window = shuffled_rows(lambda numbers: numbers, 7, rows=rows)
    seen = np.concatenate([window(k) for k in range(4 * 7)])
    epochs = seen.reshape(-1, 7)
    assert (np.sort(epochs) == np.arange(7)).all()
    assert len({tuple(epoch) for epoch in epochs}) > 1
    again = shuffled_rows(lambda numbers: numbers, 7, rows=rows)
    np.testing.assert_array_equal(again(9), window(9))  # whatever was asked for before


def test_the_next_window_is_read_ahead_and_no_other():
    asked, ahead = [], threading.Event()

    def window(k):
        asked.append(k)
        if k == 3:
            ahead.set()
        return k

    with Feed(lambda: Stream(window, steps=10), "first", put=lambda k: k) as feed:
        assert feed(9) == "first"
        assert [feed(step) for step in (20, 25, 29)] == [2, 2, 2]
        assert ahead.wait(10) and asked == [1, 2, 3]
        assert feed(30) == 3 and feed(5) == 0
    assert set(asked) <= {0, 1, 2, 3, 4}
    with Feed(None, "always", put=lambda k: k) as feed:
        assert feed.steps is None and feed(10**6) == "always"


def test_digits_come_in_windows():
    whole, stream = datasets.digits(), datasets.digits_stream(rows=400, steps=5)
    windows = [stream.window(k)["train"] for k in range(3)]
    images = np.concatenate([window["image"] for window in windows])[:1079]
    order = lambda x: x[np.lexsort(x.T)]
    np.testing.assert_array_equal(order(images), order(whole["train"]["image"]))
    np.testing.assert_array_equal(stream.window(1)["test"]["label"], whole["test"]["label"])


SMALL = Config(
    task=Component(
        "digits_mlp", ("hidden=[4]", "batch_size=8", "stream_rows=16", "stream_steps=3")
    ),
    optimizer=Component("sgd"),
    estimator=NRES(particles=4, horizon=6, window=2),
    outer_steps=11,
    checkpoint_every=4,
)


def test_a_run_on_a_stream_is_gone_on_with_to_the_bit(tmp_path):
    """Its windows change after 3, 6 and 9 outer steps; it is cut at 4 and 8."""
    whole = train(SMALL, tmp_path / "whole").theta
    for steps in (4, 8, 11):
        cut = train(dataclasses.replace(SMALL, outer_steps=steps), tmp_path / "cut").theta
    jax.tree.map(np.testing.assert_array_equal, cut, whole)
    held = dataclasses.replace(SMALL.task, args=(*SMALL.task.args[:3], "stream_steps=100"))
    other = train(dataclasses.replace(SMALL, task=held), tmp_path / "held").theta
    assert not all(map(jnp.array_equal, jax.tree.leaves(other), jax.tree.leaves(whole)))


def test_bad_values_are_refused():
    with pytest.raises(ValueError, match="stream_rows must be an integer of at least 1, got 0"):
        TASKS["digits_mlp"](stream_rows=0)
    with pytest.raises(ValueError, match="rows must be an integer from 1 to 1079, got 2000"):
        datasets.digits_stream(rows=2000, steps=1)
    with pytest.raises(UserError, match="cannot be streamed"):
        build(dataclasses.replace(SMALL, mixture=("quadratic",)))
