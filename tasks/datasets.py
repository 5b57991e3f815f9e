"""Data sets, through TensorFlow Datasets; TensorFlow itself is not needed.

A data set is prepared on first use (``array_record`` files in TFDS' own data folder:
``~/tensorflow_datasets``, or where the variable ``TFDS_DATA_DIR`` points) and read back whole, to
be kept on the device in its stored integer types.
"""

import contextlib
import io

import jax
import jax.numpy as jnp
import numpy as np

from metaopt import Key, PyTree, UserError

Splits = dict[str, dict[str, np.ndarray]]


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
    from tasks.digits_builder import Digits  # TFDS is slow to import, and not always there

    return _read(Digits, data_dir)


def random_rows(rows: PyTree, count: int, key: Key) -> PyTree:
    """``count`` rows drawn with replacement, by index: the cost does not grow with their number.

    Args:
      rows: a tree, every leaf ``[n, ...]``, n at most 2^23.
      count: how many.
      key: of the draw.

    Example:
      >>> random_rows({"x": jnp.arange(5)}, 3, jax.random.key(0))["x"].shape
      (3,)
    """
    total = len(jax.tree.leaves(rows)[0])
    # One draw of bits, where randint takes two; they are a good part of a small inner step.
    index = (jax.random.uniform(key, (count,)) * total).astype(jnp.int32)
    return jax.tree.map(lambda column: column[index], rows)


def _read(builder_class, data_dir: str | None) -> Splits:
    builder = builder_class(data_dir=data_dir, file_format="array_record")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it announces itself at length
            builder.download_and_prepare()
        return {split: _stack(builder.as_data_source(split)) for split in builder.info.splits}
    except OSError as error:
        raise UserError(
            f"the data folder {builder.data_dir} cannot be used ({error}): set TFDS_DATA_DIR to "
            "one that can be written."
        ) from error


def _stack(source) -> dict[str, np.ndarray]:
    rows = source.__getitems__(range(len(source)))
    columns = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    # Labels come as int64, which the device does not have by default.
    return {k: v.astype(np.int32) if v.dtype == np.int64 else v for k, v in columns.items()}
