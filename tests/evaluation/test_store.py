"""What an evaluation keeps on disk: damaged, it is run again; a full disk is a sentence."""

import errno
import os

import jax.numpy as jnp
import numpy as np
import pytest

from metaopt import UserError, evaluate
from metaopt.evaluation import store
from metaopt.learned_optimizers import sgd
from metaopt.tasks import quadratic

CURVES = {"loss/4": np.ones((1, 2, 5, 3), np.float32)}
LIKE = {"loss/4": (1, 2, 5, 3)}


def kept(file, curves=CURVES, facts=(0.5, 8, 4)):
    store.write(file, curves, list(facts))
    return file


def test_what_was_kept_is_read(tmp_path):
    assert store.read(tmp_path / "nothing.npz", LIKE, 3) is None
    curves, facts = store.read(kept(tmp_path / "a.npz"), LIKE, 3)
    np.testing.assert_array_equal(curves["loss/4"], CURVES["loss/4"])
    assert facts == [0.5, 8.0, 4.0]


def cut(file):
    file.write_bytes(file.read_bytes()[:-40])


def flipped(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGES = {
    "cut": cut,
    "flipped": flipped,
    "empty": lambda file: file.write_bytes(b""),
    "a folder": lambda file: (file.unlink(), file.mkdir()),
    "numbers": lambda file: file.write_bytes(b"\x93NUMPY" + file.read_bytes()),
    "objects": lambda file: np.savez(file, facts=np.array([{}], object)),
    "other types": lambda file: kept(file, {"loss/4": np.full((1, 2, 5, 3), "x")}),
    "float64": lambda file: kept(file, {"loss/4": np.ones((1, 2, 5, 3))}),
    "other shapes": lambda file: kept(file, {"loss/4": np.ones((1, 2, 4, 3), np.float32)}),
    "other names": lambda file: kept(file, CURVES | {"more/4": CURVES["loss/4"]}),
    "too few facts": lambda file: kept(file, facts=(0.5,)),
    "facts that are none": lambda file: kept(file, facts=(0.5, np.nan, 4)),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_what_is_damaged_is_run_again_with_a_notice(how, tmp_path):
    file = kept(tmp_path / "a.npz")
    DAMAGES[how](file)
    with pytest.warns(UserWarning, match=r"a.npz is damaged \(.*\): what it held is run again"):
        assert store.read(file, LIKE, 3) is None


def test_a_full_disk_is_a_sentence(tmp_path, monkeypatch):
    def full(file, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store, "write_atomically", full)
    said = r"out cannot be written \(No space left on device\): mend that, and the same command"
    with pytest.raises(UserError, match=said):
        evaluate(
            {"mine": (sgd(), {"log_lr": jnp.float32(-1.0)})},
            tasks={"mine": quadratic()},
            baselines=["sgd"],
            num_steps=2,
            seeds=2,
            rates=(0.1,),
            out=tmp_path / "out",
        )
