"""Checkpoints leave nothing behind in memory, and are written where Orbax would write them."""

import gc
import sys
from typing import NamedTuple

import jax.numpy as jnp
import pytest
from orbax.checkpoint._src.serialization import tensorstore_utils

from metaopt.training import orbax_leak
from metaopt.training.checkpoints import Checkpoints

ARRAYS = 30
SAVES = 20


class State(NamedTuple):
    """As much of a `MetaState` as a save asks for."""

    step: jnp.ndarray
    arrays: list[jnp.ndarray]


@pytest.mark.slow
def test_saves_do_not_grow_the_process(tmp_path):
    """Without `keep_flat` 390 blocks of each stay, 250 for the metrics and 4 an array."""
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step in range(2 * SAVES):
            if step == SAVES:  # caches have what they hold by now
                gc.collect()
                before = sys.getallocatedblocks()
            checkpoints.save(State(jnp.int32(step), [jnp.ones(8)] * ARRAYS), {})
            checkpoints._manager.wait_until_finished()
    gc.collect()
    assert (sys.getallocatedblocks() - before) / SAVES < ARRAYS


OPTIONS = [
    {},
    {"use_ocdbt": False},
    {"ocdbt_process_spec": tensorstore_utils.OcdbtProcessSpec("0")},
    {
        "ocdbt_write_options": tensorstore_utils.OcdbtKvStoreWriteOptions(
            tensorstore_utils.OcdbtWriteMode.WRITE, target_data_file_size=2**20
        )
    },
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", [None, "a", "b"])
def test_specifications_are_orbaxs_own(name, options):
    """In one directory after another, with and without a process's own part of it."""
    orbax_leak.keep_flat()
    ours = tensorstore_utils.build_kvstore_tspec
    for folder in ("/x/1", "/x/2", "/x/./3", orbax_leak.ELSEWHERE):
        spec = ours(folder, name, **options)
        assert spec == ours.__wrapped__(folder, name, **options)
        spec["base"] = "changed"  # nobody else's
        assert ours(folder, name, **options) != spec


def test_another_orbax_is_left_alone(monkeypatch):
    """One that has other names inside, of functions or of the module."""
    monkeypatch.delattr(tensorstore_utils, "build_kvstore_tspec")
    monkeypatch.delattr(tensorstore_utils, "get_tensorstore_raw_bytes")
    orbax_leak.keep_flat()
    assert not hasattr(tensorstore_utils, "build_kvstore_tspec")
    assert not hasattr(tensorstore_utils, "get_tensorstore_raw_bytes")
    monkeypatch.setattr(orbax_leak, "INSIDE", "orbax.checkpoint.nowhere")
    orbax_leak.keep_flat()
