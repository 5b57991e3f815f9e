"""Data that does not fit the device: a window of rows at a time, a function of the outer step.

Window k is on the device for outer steps k S to (k + 1) S, and the next one is read meanwhile.
Where a run stands in the stream follows from its outer step alone: going on needs nothing else.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import NamedTuple

import jax
import numpy as np

from metaopt.core.own_numbers import own_numbers
from metaopt.core.types import PyTree


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

    Examples:
      >>> window = shuffled_rows(np.asarray, 5, rows=2)
      >>> seen = [int(i) for k in range(5) for i in window(k)]
      >>> sorted(seen[:5]), sorted(seen[5:])
      ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4])
    """
    if not isinstance(rows, int) or not 1 <= rows <= total:
        raise ValueError(f"rows must be an integer from 1 to {total}, got {rows!r}.")

    def order(epoch: int) -> np.ndarray:
        with own_numbers(), jax.default_device(jax.local_devices(backend="cpu")[0]):
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
      stream: ``() -> Stream``, or ``None`` where the data is always the same.
      first: that data, or the first window, on the devices.
      put: brings another window there.

    Attributes:
      steps: outer steps for which a window is kept; ``None`` where it is always the same.
    """

    def __init__(
        self, stream: Callable[[], Stream] | None, first: PyTree, put: Callable[[PyTree], PyTree]
    ):
        self._stream, self._put = None if stream is None else stream(), put
        self._here = (0, first)
        self._ahead: tuple[int, Future] | None = None
        self._pool = ThreadPoolExecutor(1)
        self.steps = None if self._stream is None else self._stream.steps

    def __call__(self, step: int) -> PyTree:
        """An outer step's data, on the devices."""
        if self._stream is None:
            return self._here[1]
        k = step // self._stream.steps
        if self._here[0] != k:
            read = self._ahead[1] if self._ahead and self._ahead[0] == k else self._read(k)
            window = read.result()
            self._here = (-1, None)  # one window on the devices at a time
            self._here = (k, self._put(window))
        if self._ahead is None or self._ahead[0] != k + 1:
            self._ahead = (k + 1, self._read(k + 1))
        return self._here[1]

    def _read(self, k: int) -> Future:
        assert self._stream is not None
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
