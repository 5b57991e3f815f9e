"""Public checkpoints, from bytes to an optimizer that is loaded."""

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import made

import metaopt
from metaopt.commands import main as command_line
from metaopt.pretrained.importer import read_msgpack

SIZES = ["--args", "lstm_hidden_size=4", "param_inits=2"]


def public_tree(name):
    """An optimizer's start, nested as public checkpoints nest it."""
    optimizer, theta = made(name)
    ours = metaopt.flatten_theta(theta)
    tree = {}
    for theirs, path in optimizer.public_paths.items():
        *branches, leaf = theirs.split("/")
        at = tree
        for branch in branches:
            at = at.setdefault(branch, {})
        at[leaf] = ours[path]
    return tree


@pytest.fixture
def checkpoint(tmp_path):
    def write(tree):
        path = tmp_path / "theta.state"
        path.write_bytes(flax.serialization.to_bytes(tree))
        return path

    return write


def test_imported_and_loaded(checkpoint, tmp_path, capsys):
    tree = public_tree("velo")
    start = tree["lstm_init_state"]  # a named tuple, as Flax once wrote it
    tree["lstm_init_state"] = {
        "name": "LSTMState",
        "fields": {"0": "hidden", "1": "cell"},
        "values": {"0": start["hidden"] + 1, "1": start["cell"] + 2},
    }
    out = tmp_path / "velo"
    argv = ["import", str(checkpoint(tree)), "--as", "velo", "--out", str(out), *SIZES]
    assert command_line.main(argv) == 0
    assert f"metaopt.load({str(out)!r}, num_steps=...)" in capsys.readouterr().out

    params = {"w": jnp.ones((2, 3))}
    state = metaopt.load(out, num_steps=10).init(params)
    np.testing.assert_array_equal(state.carry.hidden, np.ones((1, 4)))
    np.testing.assert_array_equal(state.carry.cell, np.full((1, 4), 2.0))

    theta = metaopt.pretrained.load.read(out)[1]
    for path, value in metaopt.flatten_theta(made("velo")[1]).items():
        if "start" not in path:
            np.testing.assert_array_equal(metaopt.flatten_theta(theta)[path], value)
    assert command_line.main(argv) == 2
    assert "holds something already" in capsys.readouterr().err


def without_bias(tree):
    del tree["ff_mod_stack"]["~"]["b0"]


def with_more(tree):
    tree["more"] = np.ones(2, np.float32)


def misshapen(tree):
    tree["ff_mod_stack"]["~"]["b0"] = np.ones((9, 9), np.float32)


@pytest.mark.parametrize(
    "change, said",
    [
        (without_bias, "rule/layer_0/bias is missing"),
        (with_more, "more is not one of its leaves"),
        (misshapen, "rule/layer_0/bias has shape (9, 9) where (2, 4) belongs"),
    ],
)
def test_what_does_not_fit_is_named(checkpoint, tmp_path, capsys, change, said):
    tree = public_tree("velo")
    change(tree)
    out = tmp_path / "out"
    argv = ["import", str(checkpoint(tree)), "--as", "velo", "--out", str(out), *SIZES]
    assert command_line.main(argv) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not out.exists()


def test_what_is_no_checkpoint_is_refused(tmp_path, capsys):
    path, out = tmp_path / "file", tmp_path / "out"
    argv = ["import", str(path), "--as", "celo2", "--out", str(out)]
    for content, said in (
        (None, "cannot be read"),
        (b"\x80\x04K\x01.", "is not a Flax checkpoint"),  # a pickle
        (flax.serialization.to_bytes({"a": {"b": "text"}}), "arrays: a/b"),
        (flax.serialization.to_bytes({}), "nothing in it"),
    ):
        if content is not None:
            path.write_bytes(content)
        assert command_line.main(argv) == 2
        assert said in capsys.readouterr().err
    path.write_bytes(flax.serialization.to_bytes({"x": np.ones(1)}))
    assert command_line.main([*argv[:3], "celo3", *argv[4:]]) == 2
    assert "did you mean 'celo" in capsys.readouterr().err
    assert read_msgpack(path).keys() == {"x"}


@pytest.mark.parametrize("name", ["adafac_mlp", "celo", "celo2", "mlp", "nn_adam", "velo"])
def test_every_leaf_has_a_public_path(name):
    optimizer, theta = made(name)
    ours = metaopt.flatten_theta(theta)
    assert sorted(optimizer.public_paths.values()) == sorted(ours)
    flat = {theirs: ours[path] for theirs, path in optimizer.public_paths.items()}
    jax.tree.map(np.testing.assert_array_equal, metaopt.import_theta(optimizer, flat), theta)
