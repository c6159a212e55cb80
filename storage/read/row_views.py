"""Lazy arrays of a store, indexed by row number: nothing is read before it is asked for.

Row numbers are names, not positions: in a store of the rows 100-199, `view[100]` is the first image, a slice takes the
rows whose numbers it spans, and row -1 does not exist (it is an IndexError, not the last row).
"""

from collections.abc import Callable
from types import EllipsisType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from storage.read.row_means import block_rows

BASIC = (int, np.integer, slice, EllipsisType, type(None))
RowSelection = int | np.integer | slice | EllipsisType | ArrayLike


class RowView:
    """One variable of a store, read on indexing with rows first, e.g. view[5], view[mask], view[[9, 2, 2], 4:20].

    shape is (row, ...) with the axes of the schema. The first index selects rows by number: an int (the axis falls
    away), a slice, a boolean mask over the store's rows, or row numbers in any order and repeated. Further indices are
    NumPy's, for the other axes. Whole rows are read, for ints and slices a block at a time.
    """

    def __init__(self, name: str, rows: range, shape: tuple[int, ...], dtype: np.dtype, read: Callable) -> None:
        """read: a function from an int64 array of row numbers to their values, (len(rows), *shape[1:])."""
        self.name, self.shape, self.dtype = name, shape, dtype
        self._rows, self._read = rows, read

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<RowView {self.name}, {name_span(self._rows)}, shape {self.shape}, {self.dtype}, read on indexing>"

    def __getitem__(self, index: Any) -> NDArray:
        selection, rest = self._split(index if isinstance(index, tuple) else (index,))
        numbers = select_rows(selection, self._rows)
        if numbers.ndim == 0:
            return self._read(np.atleast_1d(numbers))[(0, *rest)]
        if not rest:
            return self._read(numbers)
        if not all(isinstance(i, BASIC) for i in rest):
            rows = slice(None) if isinstance(selection, slice | EllipsisType) else np.arange(len(numbers))
            return self._read(numbers)[(rows, *rest)]
        step = block_rows(self.shape[1:], self.dtype.itemsize)
        blocks = [numbers[start : start + step] for start in range(0, max(1, len(numbers)), step)]
        return np.concatenate([self._read(block)[(slice(None), *rest)].copy() for block in blocks])

    def _split(self, index: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
        """The selection of rows, and what is for the other axes. A leading Ellipsis stands for as many axes as are left."""
        selection, *rest = index or (slice(None),)
        if isinstance(selection, EllipsisType) and rest:
            named = sum(np.ndim(i) if _is_mask(i) else i is not None for i in rest)
            if named == self.ndim:
                selection, *rest = rest
            else:
                rest = [..., *rest]
        return selection, tuple(rest)

    def __array__(self, dtype: DTypeLike = None, copy: bool | None = None) -> NDArray:
        """All rows at once; they must fit into memory."""
        return self[:].astype(dtype or self.dtype, copy=False)


def select_rows(selection: RowSelection, rows: range) -> NDArray[np.int64]:
    """The row numbers that a selection means, int64: 0-dimensional for an int, otherwise one axis.

    rows: the row numbers of the store, consecutive.
    Raises IndexError for rows outside, negative slice bounds, masks of another length and what is no selection.
    """
    if isinstance(selection, EllipsisType):
        selection = slice(None)
    if isinstance(selection, slice):
        return _select_slice(selection, rows)
    numbers = np.asarray(selection)
    if numbers.dtype == bool:
        if numbers.shape != (len(rows),):
            raise IndexError(f"expected a mask of shape ({len(rows)},), one per row, got shape {numbers.shape}")
        return np.flatnonzero(numbers) + rows.start
    if numbers.size == 0:
        numbers = numbers.astype(np.int64)
    if numbers.dtype.kind not in "iu" or numbers.ndim > 1:
        raise IndexError(f"expected a row number, a slice, a mask or an array of row numbers, got {selection!r}")
    outside = (numbers < rows.start) | (numbers >= rows.stop)
    if outside.any():
        first = np.atleast_1d(numbers)[np.atleast_1d(outside)][0]
        raise IndexError(f"row {first} is not in this store, which has {name_span(rows)}")
    return numbers.astype(np.int64)


def _is_mask(index: Any) -> bool:
    return not isinstance(index, BASIC) and np.asarray(index).dtype == bool


def name_span(rows: range) -> str:
    """The rows of a store in words."""
    return f"rows {rows.start}-{rows.stop - 1}"


def _select_slice(selection: slice, rows: range) -> NDArray[np.int64]:
    bounds = [bound for bound in (selection.start, selection.stop) if bound is not None]
    if any(bound < 0 for bound in bounds):
        raise IndexError(f"row numbers are not counted from the end, got {selection}; this store has {name_span(rows)}")
    start, stop = (None if b is None else b - rows.start for b in (selection.start, selection.stop))
    forward = selection.step is None or selection.step > 0
    if start is not None and start < 0:
        start, stop = (0, stop) if forward else (0, 0)
    if stop is not None and stop < 0:
        stop = 0 if forward else None
    return np.array(rows[slice(start, stop, selection.step)], dtype=np.int64)
