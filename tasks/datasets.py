"""Data sets, through TensorFlow Datasets; TensorFlow itself is not needed.

A data set is prepared on first use (``array_record`` files in TFDS' own data folder:
``~/tensorflow_datasets``, or where the variable ``TFDS_DATA_DIR`` points) and read back whole, to
be kept on the device in its stored integer types. What was read once lies beside those files as
plain arrays, since importing TFDS alone takes longer than a first update.
"""

import contextlib
import io
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from metaopt import Key, PyTree, Stream, UserError, shuffled_rows
from metaopt.tasks.plain_arrays import Splits, arrays_file, read_arrays, write_arrays

TABLES = ("breast_cancer", "diabetes", "iris", "wine")


def digits(data_dir: str | None = None) -> Splits:
    """The 8x8 handwritten digits that scikit-learn carries (UCI optdigits' test part).

    1797 images of 10 classes. Image i is in ``train`` where i mod 5 is 0, 1 or 2 (1079 images), in
    ``valid`` where it is 3 (359), in ``test`` where it is 4 (359).

    Args:
      data_dir: TFDS data folder; TFDS' default where it is ``None``.

    Returns:
      ``{split: {"image": uint8 [n, 64] of 0 to 16, "label": int32 [n]}}``.

    Raises:
      UserError: where the folder cannot be written or read.
    """
    return _read("digits", data_dir)


def tabular(name: str, data_dir: str | None = None) -> Splits:
    """One of the small tables that scikit-learn carries, standardised.

    Splits are made as those of the digits, by i mod 5. Every feature, and the label where it is a
    real number, is moved and scaled to mean 0 and standard deviation 1 over ``train``; the files
    keep the numbers as they are in scikit-learn.

    Args:
      name: ``"breast_cancer"`` (569 rows of 30 features, 2 classes), ``"diabetes"`` (442 of 10, a
        real label), ``"iris"`` (150 of 4, 3 classes) or ``"wine"`` (178 of 13, 3 classes).
      data_dir: TFDS data folder; TFDS' default where it is ``None``.

    Returns:
      ``{split: {"features": float32 [n, features], "label": int32 or float32 [n]}}``.

    Raises:
      ValueError: for another name.
      UserError: where the folder cannot be written or read.
    """
    if name not in TABLES:
        raise ValueError(f"name must be one of {sorted(TABLES)}, got {name!r}.")
    splits = _read(name, data_dir)
    for column, values in splits["train"].items():
        if values.dtype == np.float32:
            mean, spread = values.mean(axis=0), values.std(axis=0)
            for rows in splits.values():
                rows[column] = (rows[column] - mean) / spread
    return splits


def digits_stream(*, rows: int, steps: int, data_dir: str | None = None) -> Stream:
    """The digits, ``rows`` of ``train`` at a time, shuffled anew every epoch; other splits whole.

    Read from TFDS' files by index, so that no more than two windows are in memory.

    Args:
      rows: of a window, up to 1079.
      steps: outer steps for which it is kept.
      data_dir: as for `digits`.

    Raises:
      ValueError: where there are not so many rows.
      UserError: where the folder cannot be written or read.
    """
    builder = _prepared("digits", data_dir)
    source = builder.as_data_source("train")
    others = {split: _stack(builder.as_data_source(split)) for split in ("valid", "test")}
    train = shuffled_rows(lambda numbers: _stack(source, numbers), len(source), rows=rows)
    return Stream(lambda k: {"train": train(k)} | others, steps)


def random_rows(rows: PyTree, count: int, key: Key) -> PyTree:
    """``count`` rows drawn with replacement, by index: the cost does not grow with their number.

    Args:
      rows: a tree, every leaf ``[n, ...]``, n at most 2^23.
      count: how many.
      key: of the draw.

    Examples:
      >>> random_rows({"x": jnp.arange(5)}, 3, jax.random.key(0))["x"].shape
      (3,)
    """
    total = len(jax.tree.leaves(rows)[0])
    # One draw of bits, where randint takes two; they are a good part of a small inner step.
    index = (jax.random.uniform(key, (count,), jnp.float32) * total).astype(jnp.int32)
    return jax.tree.map(lambda column: column[index], rows)


def _read(name: str, data_dir: str | None) -> Splits:
    known = read_arrays(arrays_file(name, data_dir))
    if known is not None:
        return known
    builder = _prepared(name, data_dir)
    splits = {split: _stack(builder.as_data_source(split)) for split in builder.info.splits}
    write_arrays(arrays_file(name, data_dir), splits)
    return splits


def _prepared(name: str, data_dir: str | None):
    from metaopt.tasks.sklearn_builder import (
        Sklearn,  # TFDS is slow to import, and not always there
    )

    for last in (False, True):
        builder = Sklearn(config=name, data_dir=data_dir, file_format="array_record")
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # it announces itself at length
                builder.download_and_prepare()
                builder.as_data_source("train")
            break
        except OSError as error:
            if last or not builder.data_path.exists():  # else another process was faster
                raise UserError(
                    f"the data folder {builder.data_dir} cannot be used ({error}): set "
                    "TFDS_DATA_DIR to one that can be written."
                ) from error
    return builder


def _stack(source, numbers: Iterable[int] | None = None) -> dict[str, np.ndarray]:
    wanted = range(len(source)) if numbers is None else [int(number) for number in numbers]
    rows = source.__getitems__(wanted)
    columns = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    # The device has no 64-bit numbers by default, in which labels come.
    narrow = {np.dtype(np.int64): np.int32, np.dtype(np.float64): np.float32}
    return {name: v.astype(narrow.get(v.dtype, v.dtype)) for name, v in columns.items()}
