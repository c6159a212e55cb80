"""Filling a dataset chunk by chunk: rows are collected until a chunk is whole, and packed beside the writing.

HDF5 would compress on the thread that writes, and take a chunk apart again for each slice that falls into it.
"""

from collections import deque
from concurrent.futures import Executor, Future

import h5py
import numpy as np
from numpy.typing import NDArray

from storage.file.chunks import pack_chunk, put_chunk
from storage.file.layout import GZIP_LEVEL

MAX_PENDING = 4


class ChunkWriter:
    """Writes rows to an empty dataset that has_our_chunks, from its first position on.

    Holds one chunk of rows, and at most MAX_PENDING that are being packed.
    """

    def __init__(self, dataset: h5py.Dataset, packers: Executor) -> None:
        """packers: threads that pack chunks; they never touch HDF5."""
        self._dataset, self._packers = dataset, packers
        self._shape, self._dtype = dataset.chunks, dataset.dtype
        self._chunk = np.zeros(self._shape, self._dtype)
        self._first = self._filled = 0
        self._pending: deque[tuple[int, Future[bytes]]] = deque()

    def append(self, rows: NDArray) -> None:
        """Put rows (row, ...) behind those that are there."""
        while len(rows):
            taken = rows[: self._shape[0] - self._filled]
            self._chunk[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            rows = rows[len(taken) :]
            if self._filled == self._shape[0]:
                self._pack()

    def finish(self) -> None:
        """Write what is left; the last chunk is filled up with zeros, as HDF5 does."""
        if self._filled:
            self._pack()
        self._put(keep=0)

    def _pack(self) -> None:
        self._pending.append((self._first, self._packers.submit(pack_chunk, self._chunk, GZIP_LEVEL)))
        self._chunk = np.zeros(self._shape, self._dtype)
        self._first, self._filled = self._first + self._shape[0], 0
        self._put(keep=MAX_PENDING)

    def _put(self, keep: int) -> None:
        while len(self._pending) > keep:
            first, packed = self._pending.popleft()
            put_chunk(self._dataset, first, packed.result())
