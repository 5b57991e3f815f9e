"""Digests of a checkpoint: who makes them, and what they find."""

import json
import shutil

import pytest
from runs import TINY

from metaopt.core.files import sha256
from metaopt.training.digests import SUMS, find_damage, seal
from metaopt.training.loop import train


def test_what_a_process_has_digested_is_not_digested_again(tmp_path):
    state = tmp_path / "state"
    (state / "ocdbt.process_3").mkdir(parents=True)
    for name in ("ocdbt.process_3/array", "manifest"):
        (state / name).write_text(name)
    own = {"ocdbt.process_3/array": "by process 3", "ocdbt.process_3/gone": "removed since"}
    (state / "ocdbt.process_3.sha256").write_text(json.dumps(own))
    (tmp_path / "beside").write_text("Orbax writes here later")
    seal(tmp_path)
    assert json.loads((tmp_path / SUMS).read_text()) == {
        "state/manifest": sha256(b"manifest"),
        "state/ocdbt.process_3/array": "by process 3",
    }
    assert not (state / "ocdbt.process_3.sha256").exists()


@pytest.mark.parametrize("sums", ["{}", "[]", '{"state/_METADATA": 3}'])
def test_digests_that_list_too_little_are_damage(sums, tmp_path):
    train(TINY, tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints"
    assert find_damage(folder / "13") is None
    shutil.copytree(folder / "13", tmp_path / "copy")
    (tmp_path / "copy" / SUMS).write_text(sums)
    assert find_damage(tmp_path / "copy") is not None
    (tmp_path / "copy" / SUMS).write_bytes((folder / "13" / SUMS).read_bytes())
    assert find_damage(tmp_path / "copy") is None
    (tmp_path / "copy" / "state" / "ocdbt.process_0" / "d" / "more").write_text("")
    assert "does not list" in find_damage(tmp_path / "copy")
