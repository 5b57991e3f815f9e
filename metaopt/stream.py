"""Data that does not fit the device: a window of rows at a time, a function of the outer step.

Window k is on the device for outer steps k S to (k + 1) S, and the next one is read meanwhile.
Where a run stands in the stream follows from its outer step alone: going on needs nothing else.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, NamedTuple

import jax
import numpy as np

from metaopt.types import PyTree


class Stream(NamedTuple):
    """Windows of data.

    Attributes:
      window: ``k -> data``, a tree of arrays, of the same shapes for every k >= 0; a pure function,
        called in a thread.
      steps: S, outer steps for which a window is kept.
    """

    window: Callable[[int], PyTree]
    steps: int


def shuffled_rows(
    read: Callable[[np.ndarray], PyTree], total: int, *, rows: int, seed: int = 0
) -> Callable[[int], PyTree]:
    """Windows of a source that is read by index, shuffled anew in every epoch.

    Window k has the rows k R to (k + 1) R of the endless sequence of shuffled epochs, so that all
    rows are seen equally often.

    Args:
      read: row numbers, int ``[R]``, to their rows, a tree of ``[R, ...]``.
      total: rows in the source.
      rows: R, at most ``total``.
      seed: of the order.

    Raises:
      ValueError: where ``rows`` is not 1 to ``total``.

    Example:
      >>> window = shuffled_rows(np.asarray, 5, rows=2)
      >>> seen = [int(i) for k in range(5) for i in window(k)]
      >>> sorted(seen[:5]), sorted(seen[5:])
      ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4])
    """
    if not isinstance(rows, int) or not 1 <= rows <= total:
        raise ValueError(f"rows must be an integer from 1 to {total}, got {rows!r}.")

    def order(epoch: int) -> np.ndarray:
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            key = jax.random.fold_in(jax.random.key(seed), epoch)
            return np.asarray(jax.random.permutation(key, total))

    latest: dict[int, np.ndarray] = {}

    def window(k: int) -> PyTree:
        first, last = k * rows // total, ((k + 1) * rows - 1) // total
        for epoch in [epoch for epoch in latest if not first <= epoch <= last]:
            del latest[epoch]
        for epoch in range(first, last + 1):
            if epoch not in latest:
                latest[epoch] = order(epoch)
        places = np.arange(k * rows, (k + 1) * rows)
        numbers = np.concatenate([latest[epoch] for epoch in range(first, last + 1)])
        return read(numbers[places - first * total])

    return window


class Feed:
    """The data of any outer step, the next window read ahead in a thread; a context manager.

    Args:
      stream: what there is.
      put: brings a window to the devices.
    """

    def __init__(self, stream: Stream, put: Callable[[PyTree], PyTree]):
        self._stream, self._put = stream, put
        self._pool = ThreadPoolExecutor(1)
        self._here: tuple[int, Any] = (-1, None)
        self._ahead: tuple[int, Future | None] = (-1, None)

    def __call__(self, step: int) -> PyTree:
        """The window of an outer step, on the devices."""
        k = step // self._stream.steps
        if self._here[0] != k:
            index, future = self._ahead
            read = future if future is not None and index == k else self._read(k)
            self._here = (-1, None)  # one window on the devices at a time
            self._here = (k, self._put(read.result()))
            self._ahead = (k + 1, self._read(k + 1))
        return self._here[1]

    def _read(self, k: int) -> Future:
        return self._pool.submit(self._stream.window, k)

    def __enter__(self) -> "Feed":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
