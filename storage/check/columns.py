"""All values of a store, read once, block by block along the chunks, and kept as small columns: a few numbers a row.

A block that cannot be read becomes a finding, and its rows are marked as not intact; everything else is still judged.
Of large datasets only what the checks need is kept: the attribution's sums, the extremes of maps and probabilities.
Memory grows by about 100 bytes a row, not with the images.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from storage.check.findings import Finding, noted
from storage.check.part_check import CheckedParts
from storage.file.layout import FILTERS
from storage.file.rounding import has_significant_bits
from storage.file.variable import TEXT, Variable
from storage.read import checked
from storage.read.progress_line import Progress

__all__ = ["Column", "Columns", "read_columns"]

CHECKSUM, VALUES = "checksum", "values"
# Position of Fletcher-32 in the pipeline: it is applied last, after shuffle and gzip.
CHECKSUM_BIT = 1 << (len([name for name in FILTERS if name != "compression_opts"]) - 1)
# What is kept of large datasets, beside a column under its own path for every dataset of a number a row.
TOTAL, MAGNITUDE, LARGEST, SMALLEST, AT_PREDICTION = "total", "magnitude", "largest", "smallest", "at prediction"


@dataclass(frozen=True)
class Column:
    """values: (position,). intact: (position,), false where the bytes could not be read."""

    values: NDArray
    intact: NDArray[np.bool_]


@dataclass
class Columns:
    """Columns by path, or by path and what is kept of it. variables: what was read, by path.

    numbers: the row number of each position, by path of the scale. Those of `row` are consecutive, whatever single numbers are
    wrong; those of the misclassified rows are as stored.
    """

    variables: Mapping[str, Variable]
    columns: dict[tuple[str, str], Column] = field(default_factory=dict)
    numbers: dict[str, NDArray[np.int64]] = field(default_factory=dict)

    def __getitem__(self, key: str | tuple[str, str]) -> Column | None:
        return self.columns.get((key, "") if isinstance(key, str) else key)

    def named(self, path: str, positions: NDArray) -> tuple[int, ...]:
        """The row numbers of a dataset's positions, ascending, or () where their coordinate is lost."""
        numbers = self.numbers.get(self.variables[path].scales[0])
        return () if numbers is None else tuple(np.sort(numbers[positions]).tolist())


def read_columns(
    file: h5py.File,
    path: Path,
    variables: Sequence[Variable],
    kept_bits: int | None,
    progress: Progress,
    parts: CheckedParts | None = None,
) -> tuple[Columns, list[Finding]]:
    """Reads everything, so that every checksum is compared. variables: those whose structure is right.

    kept_bits: explicit bits of the significand that attributions may have, None to take any.
    parts: where the pictures of a virtual store are; None where all is in the file.
    Returns the columns and a finding for each dataset with lost rows, with rows that are not finite, or with more bits.
    """
    columns, findings = Columns({variable.path: variable for variable in variables}), list[Finding]()
    # Coordinates first: they name the rows of the others.
    ordered = sorted(variables, key=lambda variable: not variable.is_coordinate)
    sizes = {v.path: int(np.prod(file[v.path].shape)) * file[v.path].dtype.itemsize for v in ordered}
    done, total = 0, sum(sizes.values())
    for variable in ordered:
        n_rows = len(file[variable.path])
        reader, unguarded = _Reader(variable, columns, kept_bits, n_rows), 0
        with noted(findings, CHECKSUM, path, variable.path):
            if parts is not None and variable.holds_pictures:
                pieces = parts.pieces(variable, n_rows, columns.numbers.get(variable.scales[0]), findings)
            else:
                pieces = iter([(0, n_rows, file[variable.path])])
            for offset, n, dataset in pieces:
                if dataset is None:
                    reader.leave_out(offset, n)
                    continue
                unguarded += reader.take_chunks(dataset, offset)
                for start, block in _blocks(dataset, offset, reader.intact):
                    reader.take(start, block)
                    progress("datasets", done + int(sizes[variable.path] * start / n_rows), total)
        if unguarded:
            detail = f"{unguarded} {'chunks have' if unguarded > 1 else 'chunk has'} no checksum"
            findings.append(Finding(CHECKSUM, variable.path, detail))
        reader.finish()
        findings += reader.findings()
        done += sizes[variable.path]
        progress("datasets", done, total)
    return columns, findings


def _blocks(dataset: h5py.Dataset, offset: int, intact: NDArray[np.bool_]) -> Iterator[tuple[int, NDArray]]:
    """Each chunk's start, from `offset` on, and values; where one cannot be read its rows become not intact."""
    step = dataset.chunks[0]
    for start in range(0, len(dataset), step):
        stop = min(len(dataset), start + step)
        if not intact[offset + start]:
            continue
        try:
            block = dataset[start:stop]
        except checked.DAMAGE:
            intact[offset + start : offset + stop] = False
        else:
            yield offset + start, block


def _consecutive(values: NDArray[np.int64], intact: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Consecutive numbers that agree with most of the values, so that one wrong number is the one that is named."""
    steps = np.arange(len(values))
    starts, counts = np.unique((values - steps)[intact], return_counts=True)
    return starts[counts.argmax()] + steps


class _Reader:
    """Takes the blocks of one variable and keeps what the checks need."""

    def __init__(self, variable: Variable, columns: Columns, kept_bits: int | None, n_rows: int):
        self.variable, self.columns, self.kept_bits = variable, columns, kept_bits
        self.kept: dict[str, NDArray] = {}
        self.intact, self.finite, self.few_bits, self.reported = (np.ones(n_rows, bool) for _ in range(4))
        self.reported[:] = False
        if not n_rows and variable.is_coordinate:
            self.kept[""] = np.zeros(0, variable.dtype)

    def leave_out(self, offset: int, n: int) -> None:
        """Marks n positions as not intact, which a finding has reported already."""
        self.intact[offset : offset + n] = False
        self.reported[offset : offset + n] = True

    def take_chunks(self, dataset: h5py.Dataset, offset: int) -> int:
        """Marks the rows of chunks that were never written; returns how many have no checksum. offset: of the first row."""
        n_rows, step, starts, unguarded = len(dataset), dataset.chunks[0], set[int](), list[int]()

        def visit(chunk: h5py.h5d.StoreInfo) -> None:
            starts.add(chunk.chunk_offset[0])
            if chunk.filter_mask & CHECKSUM_BIT:
                unguarded.append(chunk.chunk_offset[0])

        try:
            dataset.id.chunk_iter(visit)
        except checked.DAMAGE:
            # Nothing is kept of what comes after; of a store's part only this piece is lost.
            self.intact[offset : offset + n_rows] = False
            if not offset and n_rows == len(self.intact):
                raise
            return 0
        for start in set(range(0, n_rows, step)) - starts:
            self.intact[offset + start : offset + min(n_rows, start + step)] = False
        return len(unguarded)

    def take(self, start: int, block: NDArray) -> None:
        rows, axes = slice(start, start + len(block)), tuple(range(1, block.ndim))
        if block.dtype.kind == "f":
            self.finite[rows] = np.isfinite(block).all(axis=axes)
        if self.variable.path == "probability":
            self._keep(LARGEST, rows, block.max(axis=axes))
            if (prediction := self.columns["prediction"]) is not None:
                chosen = np.clip(prediction.values[rows], 0, block.shape[1] - 1)
                self._keep(AT_PREDICTION, rows, block[np.arange(len(block)), chosen])
        elif self.variable.needs_map and self.variable.holds_pictures:
            self._keep(LARGEST, rows, block.max(axis=axes))
            self._keep(SMALLEST, rows, block.min(axis=axes))
        elif self.variable.holds_pictures and block.dtype.kind == "f":
            self._keep(TOTAL, rows, block.sum(axis=axes, dtype=np.float64))
            self._keep(MAGNITUDE, rows, np.abs(block).sum(axis=axes, dtype=np.float64))
            if self.kept_bits is not None:
                self.few_bits[rows] = has_significant_bits(block, self.kept_bits).all(axis=axes)
        elif block.ndim == 1 and self.variable.dtype != TEXT:
            self._keep("", rows, block)

    def _keep(self, what: str, rows: slice, values: NDArray) -> None:
        self.kept.setdefault(what, np.zeros(len(self.intact), values.dtype))[rows] = values

    def finish(self) -> None:
        path = self.variable.path
        for what, values in self.kept.items():
            self.columns.columns[path, what] = Column(values, self.intact & self.finite)
        if "" not in self.kept or not self.intact.any():
            return
        if path == "row":
            self.columns.numbers[path] = _consecutive(self.kept[""], self.intact)
        elif self.variable.is_coordinate and self.variable.is_per_row and self.intact.all():
            self.columns.numbers[path] = self.kept[""]

    def findings(self) -> list[Finding]:
        expected = f"at most {self.kept_bits} explicit bits of the significand"
        lost = "the checksum or the data is wrong, or was never written"
        return [
            self._finding(check, detail, np.flatnonzero(~good))
            for check, detail, good in (
                (CHECKSUM, lost, self.intact | self.reported),
                (VALUES, "not finite", self.finite | ~self.intact),
                (VALUES, f"expected {expected}, as significant_bits says, got more", self.few_bits | ~self.intact),
            )
            if not good.all()
        ]

    def _finding(self, check: str, detail: str, positions: NDArray) -> Finding:
        scale = self.variable.scales[0]
        rows = self.columns.named(self.variable.path, positions) if self.variable.is_per_row else ()
        where = "" if rows else f"; positions {positions[0]} to {positions[-1]} of {scale}"
        return Finding(check, self.variable.path, detail + where, rows)
