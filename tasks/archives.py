"""Readers of the published image archives: bytes to arrays, without pickle.

A reader takes a file that is there and refuses one that is not whole: what it returns has the
shapes that the format promises.
"""

import gzip
import io
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

FAULTS = (OSError, EOFError, ValueError, KeyError, zlib.error)
"""What a file that is not whole, or is something else, makes a reader raise."""


class Rows(NamedTuple):
    """Some rows of a set.

    Attributes:
      images: uint8 ``[n, height, width, channels]``.
      labels: int32 ``[n]``.
    """

    images: np.ndarray
    labels: np.ndarray


Reader = Callable[[dict[str, Path]], tuple[Rows, Rows]]
"""Files by the names under which they are published -> the training and the test rows."""


def read_idx(files: dict[str, Path]) -> tuple[Rows, Rows]:
    """The four files of MNIST and of those that copy it: ``train-images-idx3-ubyte`` and so on."""
    by_stem = {name.removesuffix(".gz"): _unpacked(path) for name, path in files.items()}

    def rows(split):
        images = idx_array(by_stem[f"{split}-images-idx3-ubyte"])
        labels = idx_array(by_stem[f"{split}-labels-idx1-ubyte"])
        return _rows(images[..., None], labels)

    return rows("train"), rows("t10k")


def idx_array(content: bytes) -> np.ndarray:
    """The array of an idx file of bytes: 0, 0, 8, rank, the sizes as big-endian int32, the values.

    Raises:
      ValueError: where it is something else, or has been cut off.

    Examples:
      >>> idx_array(bytes([0, 0, 8, 1, 0, 0, 0, 2, 5, 7])).tolist()
      [5, 7]
    """
    rank = content[3] if len(content) > 3 else 0
    if content[:3] != b"\x00\x00\x08" or not rank:
        raise ValueError("it is no idx file of bytes")
    values = 4 + 4 * rank
    shape = np.frombuffer(content[4:values], ">i4")
    if len(shape) < rank or len(content) != values + shape.prod(dtype=np.int64):
        raise ValueError(f"it holds {len(content)} bytes, not those of the sizes {shape.tolist()}")
    return np.frombuffer(content, np.uint8, offset=values).reshape(shape)


def read_cifar10(files: dict[str, Path]) -> tuple[Rows, Rows]:
    """The binary archive of CIFAR-10: five training batches and one of tests."""
    (archive,) = files.values()
    train = [f"data_batch_{i}.bin" for i in range(1, 6)]
    return _cifar(archive, "cifar-10-batches-bin", train, "test_batch.bin", labels=1)


def read_cifar100(files: dict[str, Path]) -> tuple[Rows, Rows]:
    """The binary archive of CIFAR-100; of its two labels the fine one."""
    (archive,) = files.values()
    return _cifar(archive, "cifar-100-binary", ["train.bin"], "test.bin", labels=2)


def _cifar(
    archive: Path, folder: str, train: list[str], test: str, labels: int
) -> tuple[Rows, Rows]:
    """A row is its labels, a byte each, then the planes red, green and blue of 32 x 32."""
    import tarfile  # slow to import

    def rows(tar, names):
        members = [tar.extractfile(f"{folder}/{name}") for name in names]
        content = b"".join(member.read() for member in members if member)
        table = np.frombuffer(content, np.uint8).reshape(-1, labels + 3 * 32 * 32)
        images = table[:, labels:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return _rows(images, table[:, labels - 1])

    # Unpacked to its end, where its checksum is, which tarfile does not read.
    content = io.BytesIO(_unpacked(archive))
    try:
        with tarfile.open(fileobj=content) as tar:
            return rows(tar, train), rows(tar, [test])
    except tarfile.TarError as error:
        raise ValueError(f"{archive.name}: {error}") from error


def read_svhn(files: dict[str, Path]) -> tuple[Rows, Rows]:
    """The cropped house numbers, two MATLAB files; the label 10 there stands for the digit 0."""
    from scipy.io import loadmat  # slow to import

    def rows(name):
        try:
            content = loadmat(files[name], variable_names=("X", "y"))
        except Exception as error:  # of many kinds, as its parser stumbles
            raise ValueError(f"{name}: {error}") from error
        labels = content["y"].ravel() % 10
        return _rows(np.moveaxis(content["X"], -1, 0), labels)

    return rows("train_32x32.mat"), rows("test_32x32.mat")


def read_mnist_5k(files: dict[str, Path]) -> tuple[Rows, Rows]:
    """A table of 784 pixels and a label a line, class after class; the last fifth of each tests."""
    (table,) = files.values()
    lines = _unpacked(table).decode().splitlines()
    if not lines:
        raise ValueError("it is empty")
    values = np.loadtxt(lines, np.uint8, delimiter=",", ndmin=2)
    values = values.reshape(10, -1, 785).swapaxes(0, 1).reshape(-1, 785)  # the classes in turn
    images, labels = values[:, :-1].reshape(-1, 28, 28, 1), values[:, -1]
    tests = len(values) // 5
    return _rows(images[:-tests], labels[:-tests]), _rows(images[-tests:], labels[-tests:])


def _unpacked(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def _rows(images: np.ndarray, labels: np.ndarray) -> Rows:
    if images.ndim != 4 or len(images) != len(labels):
        raise ValueError(f"it holds {len(images)} images and {len(labels)} labels")
    return Rows(np.ascontiguousarray(images, np.uint8), labels.astype(np.int32))
