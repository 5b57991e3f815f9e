"""Image data sets that are too large to carry: found on this machine, or downloaded once.

The published archives are read as they are, in seconds, so that nothing is prepared beside them.
"""

import os
from pathlib import Path

import numpy as np

from metaopt import UserError
from metaopt.tasks import archives
from metaopt.tasks.datasets import Splits
from metaopt.tasks.downloads import download
from metaopt.tasks.image_sources import IMAGE_SOURCES, ImageSource

DATA_DIR = "METAOPT_DATA"
"""The variable that names a folder with a folder for each data set; ``--data-dir`` sets it."""

BLOCK = 10_000
"""Images that are resized at a time."""


def images(name: str, *, side: int | None = None, data_dir: str | Path | None = None) -> Splits:
    """An image data set, from this machine or downloaded once.

    Its files are looked for in the folder ``NAME`` of ``data_dir``, or of the folder that the
    variable ``METAOPT_DATA`` names; where an installed package has them; and in metaopt's cache
    (``~/.cache/metaopt/data/NAME``), into which they are downloaded if they are nowhere. A download
    is checked against its published digest before it gets its name; any file by its own lengths and
    by how many images it has to hold.

    The first 80% of the published training images are ``train``, the others ``valid``; ``test`` is
    as it was published.

    Args:
      name: ``"fashion_mnist"``, ``"mnist"``, ``"mnist_5k"``, ``"cifar10"``, ``"cifar100"`` or
        ``"svhn"``.
      side: height and width to which images are resized; as they are if not given.
      data_dir: a folder that has a folder for the data set.

    Returns:
      ``{split: {"image": uint8 [n, side, side, channels], "label": int32 [n]}}``.

    Raises:
      ValueError: for another name, or a side that is not a positive integer.
      UserError: where it is nowhere and cannot be downloaded, or a file is damaged.
    """
    source = source_of(name)
    if side is not None and (not isinstance(side, int) or side < 1):
        raise ValueError(f"side must be an integer of at least 1, got {side!r}.")
    files = find_files(name, source, data_dir)
    try:
        train, test = source.read(files)
        for rows, count in zip((train, test), source.rows, strict=True):
            _check(rows, (count, *source.shape), source.classes)
    except archives.FAULTS as error:
        where = next(iter(files.values())).parent
        raise UserError(
            f"the files of {source.title} in {where} are damaged or not whole "
            f"({str(error).partition(chr(10))[0]}): remove them, and they are looked for elsewhere "
            "or downloaded again."
        ) from error
    kept = len(train.labels) * 4 // 5
    parts = {"train": (train, slice(kept)), "valid": (train, slice(kept, None))}
    return {
        split: {"image": resize(rows.images[at], side), "label": rows.labels[at]}
        for split, (rows, at) in (parts | {"test": (test, slice(None))}).items()
    }


def source_of(name: str) -> ImageSource:
    """The entry of a data set.

    Raises:
      ValueError: for a name that there is not, with the valid ones.
    """
    if name not in IMAGE_SOURCES:
        raise ValueError(f"dataset must be one of {', '.join(IMAGE_SOURCES)}, got {name!r}.")
    return IMAGE_SOURCES[name]


def find_files(
    name: str, source: ImageSource, data_dir: str | Path | None = None
) -> dict[str, Path]:
    """Where a data set's files are, by the names under which they were published.

    Raises:
      UserError: where they are nowhere and cannot be downloaded.
    """
    given = data_dir or os.environ.get(DATA_DIR)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metaopt" / "data"
    if given and not Path(given).expanduser().is_dir():
        raise UserError(
            f"there is no folder {given}, which --data-dir or {DATA_DIR} names: name one with a "
            f"folder {name} that holds {' and '.join(source.by_name)}."
        )
    named = [Path(given).expanduser() / name] if given else []
    for folder in (*named, *source.elsewhere(), cache / name):
        found = {file: _in(folder, file) for file in source.by_name}
        if all(found.values()):
            return {file: path for file, path in found.items() if path}
    try:
        return {
            file: download(url, digest, cache / name / file)
            for file, (url, digest) in source.by_name.items()
        }
    except OSError as error:
        raise UserError(
            f"{source.title} is not on this machine and cannot be downloaded ({error}): "
            f"{_ways(name, source, given)}take the task {source.embedded}, which needs no download."
        ) from error


def _ways(name: str, source: ImageSource, given: str | Path | None) -> str:
    """How to get a data set, each with "; or " behind it."""
    ways = [source.other_way] if source.other_way else []
    if source.published:
        lacking = f" ({given}/{name} lacks them)" if given else ""
        ways.insert(
            0,
            f"put {' and '.join(source.by_name)} from {source.published} into the folder {name} of "
            f"one that --data-dir or {DATA_DIR} names{lacking}",
        )
    return "".join(f"{way}; or " for way in ways)


def resize(images: np.ndarray, side: int | None) -> np.ndarray:
    """Images of another size, bilinearly from the four nearest pixels, rounded to integers.

    Pixels' centres are at halves and nothing is averaged first, as ``tf.image.resize`` does it,
    whose images learned optimizers of the literature are trained on.

    Args:
      images: uint8 ``[n, height, width, channels]``.
      side: the new height and width; ``None`` leaves them as they are.

    Examples:
      >>> resize(np.array([0, 10, 20, 30], np.uint8).reshape(1, 2, 2, 1), 1).tolist()
      [[[[15]]]]
    """
    if side is None or images.shape[1:3] == (side, side):
        return images
    out = np.empty((len(images), side, side, images.shape[3]), np.uint8)
    for start in range(0, len(images), BLOCK):
        block = images[start : start + BLOCK]
        for axis in (1, 2):
            block = _interpolate(block, side, axis)
        out[start : start + BLOCK] = np.rint(block)
    return out


def _interpolate(images: np.ndarray, side: int, axis: int) -> np.ndarray:
    size = images.shape[axis]
    at = np.clip((np.arange(side) + 0.5) * (size / side) - 0.5, 0, size - 1)
    low = at.astype(int)
    shape = [-1 if i == axis else 1 for i in range(images.ndim)]
    weight = (at - low).astype(np.float32).reshape(shape)
    below, above = images.take(low, axis), images.take(np.minimum(low + 1, size - 1), axis)
    return below * (1 - weight) + above * weight


def _in(folder: Path, file: str) -> Path | None:
    """A file anywhere in a folder, packed or unpacked."""
    for name in (file, file.removesuffix(".gz")):
        for path in (folder / name, *sorted(folder.rglob(name))):
            if path.is_file():
                return path
    return None


def _check(rows: archives.Rows, shape: tuple[int, ...], classes: int) -> None:
    if rows.images.shape != shape:
        raise ValueError(f"there are images of shape {rows.images.shape}, not {shape}")
    if rows.labels.max() >= classes:
        raise ValueError(f"there is a label {rows.labels.max()} of {classes} classes")
