"""Rows in blocks of bounded memory."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from storage.store import AttributionStore

BLOCK_BYTES = 32 << 20


def blocks(store: AttributionStore, rows: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """The rows, cut so that the attributions of each piece take some 32 MiB: (position of its first row, row numbers)."""
    bytes_per_row = int(np.prod(store.integrated_gradients.shape[1:])) * 4
    step = max(1, BLOCK_BYTES // bytes_per_row)
    for start in range(0, len(rows), step):
        yield start, rows[start : start + step]
