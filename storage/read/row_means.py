"""Means over rows, read a block at a time: memory does not grow with the rows."""

from collections.abc import Callable
from math import prod

import numpy as np
from numpy.typing import NDArray

from storage.read.progress_line import Progress

BLOCK_BYTES = 16 << 20


def mean_over_rows(
    read: Callable[[NDArray[np.int64]], NDArray],
    numbers: NDArray[np.int64],
    row_shape: tuple[int, ...],
    progress: Progress = lambda what, done, total: None,
) -> NDArray[np.float64]:
    """The mean, (row_shape), of the rows of these numbers, of which there must be some; summed in float64.

    read: gives the values (row, ...) of row numbers. progress: called with "rows", rows done and rows in all.
    """
    total, block = np.zeros(row_shape), block_rows(row_shape, 8)
    for start in range(0, len(numbers), block):
        total += read(numbers[start : start + block]).sum(axis=0, dtype=np.float64)
        progress("rows", min(start + block, len(numbers)), len(numbers))
    return total / len(numbers)


def values_of_rows(
    read: Callable[[NDArray[np.int64]], NDArray],
    numbers: NDArray[np.int64],
    row_shape: tuple[int, ...],
    dtype: np.dtype,
    progress: Progress,
) -> NDArray:
    """The values (row, ...) of these rows, read a block at a time so that it can be said how far it is. Otherwise as above."""
    values, block = np.empty((len(numbers), *row_shape), dtype), block_rows(row_shape, dtype.itemsize)
    for start in range(0, len(numbers), block):
        values[start : start + block] = read(numbers[start : start + block])
        progress("rows", min(start + block, len(numbers)), len(numbers))
    return values


def means_by_group(
    read: Callable[[NDArray[np.int64]], NDArray],
    numbers: NDArray[np.int64],
    groups: NDArray[np.int64],
    row_shape: tuple[int, ...],
) -> dict[int, NDArray[np.float64]]:
    """The mean, (row_shape), of each group's rows, in one pass over all of them. groups: the group of each row number."""
    totals = {int(group): np.zeros(row_shape) for group in np.unique(groups)}
    block = block_rows(row_shape, 8)
    for start in range(0, len(numbers), block):
        values, its = read(numbers[start : start + block]), groups[start : start + block]
        for group in np.unique(its):
            totals[int(group)] += values[its == group].sum(axis=0, dtype=np.float64)
    return {group: total / np.count_nonzero(groups == group) for group, total in totals.items()}


def block_rows(row_shape: tuple[int, ...], itemsize: int) -> int:
    """How many rows are read at once, so that they stay near BLOCK_BYTES."""
    return max(1, BLOCK_BYTES // max(1, prod(row_shape) * itemsize))
