"""What was read once from TFDS is read again as plain arrays, or anew where it is damaged."""

import sys

import jax
import numpy as np
import pytest

from metaopt.tasks import datasets
from metaopt.tasks.plain_arrays import arrays_file, read_arrays, write_arrays

SPLITS = {
    "train": {"image": np.arange(6, dtype=np.uint8).reshape(2, 3), "label": np.arange(2)},
    "test": {"image": np.zeros((1, 3), np.uint8), "label": np.ones(1)},
}


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert jax.tree.map(lambda x: x.dtype, a) == jax.tree.map(lambda x: x.dtype, b)


def test_they_come_back_as_they_were(tmp_path):
    write_arrays(tmp_path / "arrays.npz", SPLITS)
    same(read_arrays(tmp_path / "arrays.npz"), SPLITS)
    assert [file.name for file in tmp_path.iterdir()] == ["arrays.npz"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other"])
def test_damaged_ones_are_not_read(tmp_path, damage):
    file = tmp_path / "arrays.npz"
    write_arrays(file, SPLITS)
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 1
    whole = file.read_bytes()
    file.write_bytes(
        {"cut": whole[:-30], "flipped": content, "empty": b"", "other": b"PK\3\4nothing"}[damage]
    )
    assert read_arrays(file) is None


def test_the_second_time_needs_no_tfds(tmp_path, monkeypatch):
    folder = str(tmp_path)
    first = datasets.digits(folder)
    assert arrays_file("digits", folder).is_file()
    monkeypatch.setitem(sys.modules, "metaopt.tasks.sklearn_builder", None)  # cannot be imported
    same(datasets.digits(folder), first)


def test_a_folder_that_takes_no_file_is_none_the_worse(tmp_path):
    write_arrays(tmp_path / "missing" / "arrays.npz", SPLITS)
    assert read_arrays(tmp_path / "missing" / "arrays.npz") is None
