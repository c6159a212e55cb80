"""Reading files of the store so that a damaged one is an error with a name, never a number.

h5py reports damage as OSError, RuntimeError or KeyError with the HDF5 library's words. Here these become the StoreError
family, and a failed checksum names the dataset and the rows that are lost.
"""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from storage.errors import (
    StoreCorrupt,
    StoreError,
    StoreFormatError,
    StoreIncomplete,
    StoreNotFound,
    StoreVersionError,
    name_rows,
)
from storage.file.added_tables import PARTS, TABLES, Table
from storage.file.chunks import checked_payload, chunk_range, fetch_chunk, has_our_chunks
from storage.file.layout import CACHE_BYTES, MAGIC
from storage.file.methods import CAM_AXES, METHODS
from storage.file.schema import IMAGE, LEFT_OUT, MAPS_OPTIONAL_SINCE, ROOT_ATTRIBUTES, SCHEMA_VERSION
from storage.file.variable import TEXT, Variable

DAMAGE = (OSError, RuntimeError, KeyError, ValueError)
# HDF5's words for a file that another process, this one, or nobody any more has open for writing.
UNCLOSED = ("consistency flags", "unable to lock file", "already open for write")
CHECKED_CHUNKS = 16
PREFETCHED_CHUNKS, PREFETCHED_BYTES = 16, 16 << 20
RESTORE = "restore the file from a copy, or compute its rows again"

Selection = slice | NDArray[np.int64]
Prefetch = Callable[[Iterable[tuple[int, int]]], None]


@dataclass(frozen=True)
class ChunkRows:
    """Which rows of which chunk go where: result[rows] = chunk[within]. first: the chunk's first position."""

    first: int
    within: Selection
    rows: Selection


@contextmanager
def open_file(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading.

    Raises StoreNotFound, StoreFormatError (not HDF5), StoreIncomplete (its writer did not close it) or StoreCorrupt;
    what the operating system refuses (permissions, too many open files) stays the OSError it is.
    """
    file = opened(path)
    try:
        yield file
    finally:
        file.close()


def opened(path: Path) -> h5py.File:
    """The same without a context: the caller closes."""
    if not path.is_file():
        raise StoreNotFound(f"{path}: no such file")
    with path.open("rb") as stream:
        start = stream.read(len(MAGIC))
    if start != MAGIC:
        came = "an empty file" if not start else f"a file that begins with {start!r}"
        raise StoreFormatError(f"{path}: expected an HDF5 file, got {came}; its writer was cut off, or it is no store")
    return opened_hdf5(path, path)


def opened_hdf5(source: Path | io.RawIOBase, path: Path | str) -> h5py.File:
    """An HDF5 file on the disk or behind a file-like object, opened for reading; `path` is what it is called.

    Raises as open_file does.
    """
    try:
        return h5py.File(source, "r", rdcc_nbytes=CACHE_BYTES)
    except OSError as error:
        if any(sign in str(error) for sign in UNCLOSED):
            reason = "it is still being written, or its writer was killed; wait, or compute it again"
            raise StoreIncomplete(f"{path}: the file was not closed: {reason}") from error
        if error.errno is not None:
            raise
        cut = "the file is truncated" if "truncated" in str(error) else "the file cannot be opened"
        raise StoreCorrupt(f"{path}: {cut}: {error}; {RESTORE}") from error


@contextmanager
def named_damage(path: Path | str, what: str) -> Iterator[None]:
    """Turn what h5py raises in the block into StoreCorrupt, naming the file and what was read."""
    try:
        yield
    except StoreError:
        raise
    except DAMAGE as error:
        raise StoreCorrupt(f"{path}: {what} cannot be read: {error}; {RESTORE}") from error


def check_header(
    path: Path | str, attributes: dict[str, object], required: Iterable[str], kind: str, *, oldest: int = SCHEMA_VERSION
) -> int:
    """Check the root attributes that make a file ours: StoreFormatError, StoreVersionError or StoreIncomplete.

    required: attributes that must be there, but for those of a later schema than the file's.
    oldest: the first schema version that is read. Returns the file's.
    """
    schema = attributes.get("schema")
    if not isinstance(schema, int):
        raise StoreFormatError(f"{path}: expected {kind} with an attribute `schema`; this HDF5 file is not ours")
    if not oldest <= schema <= SCHEMA_VERSION:
        versions = f"{oldest} to {SCHEMA_VERSION}" if oldest < SCHEMA_VERSION else f"{SCHEMA_VERSION}"
        older = "use the nightlens that wrote it, or compute its rows again"
        todo = "install a newer nightlens" if schema > SCHEMA_VERSION else older
        raise StoreVersionError(f"{path}: expected schema {versions}, got schema {schema}; {todo}")
    since = {attribute.name: attribute.since for attribute in ROOT_ATTRIBUTES}
    missing = [name for name in required if name not in attributes and since.get(name, 1) <= schema]
    if missing:
        raise StoreFormatError(f"{path}: expected {kind}, but the attributes {missing} are missing; {RESTORE}")
    if attributes["complete"] != 1:
        reason = "it is still being written, or its writer was killed"
        raise StoreIncomplete(f"{path}: expected complete = 1, got {attributes['complete']}: {reason}; run it again")
    return schema


def tables_in(file: h5py.File, path: Path | str, schema: int) -> list[Table]:
    """The tables that a file has, but that of its parts; one is there if any piece of it is, so that the others are missed."""
    with named_damage(path, "the root group"):
        return [table for table in TABLES if table is not PARTS and table.since <= schema and table.group in file]


def has_maps(file: h5py.File, path: Path | str, schema: int) -> bool:
    """Whether a file of that schema version has maps: it has if any piece of them is there, so that the others are missed."""
    pieces = (*CAM_AXES, *(method.group for method in METHODS if method.is_map))
    with named_damage(path, "the root group"):
        return schema < MAPS_OPTIONAL_SINCE or any(name in file for name in pieces)


def has_images(attributes: Mapping[str, object], path: Path | str) -> bool:
    """Whether a store has its images; one that was handed over without them says so. Raises StoreFormatError for other words."""
    came = attributes.get(LEFT_OUT)
    if came not in (None, IMAGE):
        raise StoreFormatError(f"{path}: expected {LEFT_OUT} = {IMAGE!r} or no such attribute, got {came!r}; {RESTORE}")
    return came is None


def open_datasets(file: h5py.File, path: Path, variables: Sequence[Variable]) -> dict[str, h5py.Dataset | None]:
    """The datasets by path, None for one that is missing. Opens them as datasets at once, which h5py's get does not."""
    datasets: dict[str, h5py.Dataset | None] = {}
    for variable in variables:
        with named_damage(path, variable.path):
            try:
                datasets[variable.path] = h5py.Dataset(h5py.h5d.open(file.id, variable.path.encode()))
            except KeyError:
                datasets[variable.path] = None
    return datasets


def check_datasets(
    file: h5py.File | Mapping[str, h5py.Dataset | None], path: Path | str, variables: Sequence[Variable]
) -> dict[str, int]:
    """Check that every dataset is there with its dtype and axes that agree. Returns the length of each dimension.

    file: an open file, or its datasets by path.
    Raises StoreFormatError where the file does not follow the schema, StoreCorrupt where it cannot be read.
    """
    sizes: dict[str, int] = {}
    for variable in variables:
        with named_damage(path, variable.path):
            node = file.get(variable.path)
        if not isinstance(node, h5py.Dataset):
            raise StoreFormatError(f"{path}: the dataset {variable.path} is missing; {RESTORE}")
        with named_damage(path, variable.path):
            dtype, shape = node.dtype, node.shape
        if not is_dtype(dtype, variable.dtype):
            raise StoreFormatError(f"{path}: expected {variable.path} to be {variable.dtype}, got {dtype}; {RESTORE}")
        # HDF5 has datasets without any axis, of shape (), and without any value, of shape None.
        agrees = shape is not None and len(shape) == len(variable.scales)
        if not agrees or any(sizes.setdefault(*axis) != axis[1] for axis in zip(variable.scales, shape, strict=True)):
            expected = tuple(sizes.get(scale, "?") for scale in variable.scales)
            raise StoreFormatError(f"{path}: expected {variable.path} of shape {expected}, got {shape}; {RESTORE}")
    return sizes


def check_chunks(dataset: h5py.Dataset, numbers: Sequence[int] | NDArray[np.int64]) -> None:
    """Read a whole dataset, a few chunks at a time, so that every checksum is compared. Raises StoreCorrupt.

    numbers: the row number of each position of the first axis, for the message.
    """
    with named_damage(dataset.file.filename, str(dataset.name).lstrip("/")):
        _check_written(dataset)
    block = dataset.chunks[0] * CHECKED_CHUNKS
    for start in range(0, len(dataset), block):
        read_rows(dataset, start, min(len(dataset), start + block), numbers)


def read_whole(dataset: h5py.Dataset, numbers: Sequence[int] | NDArray[np.int64]) -> NDArray:
    """A whole dataset by HDF5 itself: the fastest way to what is small. Raises StoreCorrupt as check_chunks does."""
    values = np.empty(dataset.shape, dataset.dtype)
    if values.size:
        try:
            _check_written(dataset)
            dataset.id.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
        except DAMAGE as error:
            raise _lost_rows(dataset, range(len(values)), numbers, error) from error
    return values


def _check_written(dataset: h5py.Dataset) -> None:
    expected = prod([-(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True)])
    written = dataset.id.get_num_chunks()
    if written != expected:
        reason = f"expected {expected} chunks, got {written}"
        raise StoreCorrupt(f"{dataset.file.filename}: {str(dataset.name).lstrip('/')}: {reason}; {RESTORE}")


def read_rows(
    dataset: h5py.Dataset, start: int, stop: int, numbers: Sequence[int] | NDArray[np.int64] | None = None
) -> NDArray:
    """The positions [start, stop) of a dataset's first axis. Raises StoreCorrupt naming the rows that are lost."""
    return gather_rows(dataset, np.arange(start, stop), numbers)


def gather_rows(
    dataset: h5py.Dataset,
    positions: NDArray[np.int64],
    numbers: Sequence[int] | NDArray[np.int64] | None = None,
    prefetch: Prefetch | None = None,
) -> NDArray:
    """The given positions of the first axis, in any order and repeated; every chunk is read once.

    numbers: the row number of each position, for the message. prefetch: called with the ranges (offset, size) of the file that
        are read next: of at most PREFETCHED_CHUNKS chunks, and of no more than PREFETCHED_BYTES, or of a single chunk.
    Raises StoreCorrupt naming the rows that were asked for and are lost.
    """
    with named_damage(dataset.file.filename, str(dataset.name).lstrip("/")):
        gathered = np.empty((len(positions), *dataset.shape[1:]), dtype=dataset.dtype)
        ours = has_our_chunks(dataset)
        chunk_rows = dataset.chunks[0] if dataset.chunks else max(1, len(dataset))
    wanted, lost = _by_chunk(positions, chunk_rows), dict[int, Exception]()
    for batch, ranges in _batches(dataset, wanted, lost) if ours else [(wanted, [])]:
        if prefetch and ranges:
            prefetch(ranges)
        for chunk in batch:
            try:
                gathered[chunk.rows] = dataset[chunk.first : chunk.first + chunk_rows][chunk.within]
            except DAMAGE as error:
                lost[chunk.first] = error
    if lost:
        positions = np.unique(positions[np.isin(positions - positions % chunk_rows, list(lost))])
        raise _lost_rows(dataset, positions, numbers, lost[min(lost)])
    return gathered


def _batches(
    dataset: h5py.Dataset, wanted: Iterable[ChunkRows], lost: dict[int, Exception]
) -> Iterator[tuple[list[ChunkRows], list[tuple[int, int]]]]:
    """The chunks that are fetched together, and their ranges in the file; `lost` gets those that are not to be read."""
    batch, ranges, n_bytes = list[ChunkRows](), list[tuple[int, int]](), 0
    for chunk in wanted:
        try:
            offset, size = chunk_range(dataset, chunk.first)
        except DAMAGE as error:
            lost[chunk.first] = error
            continue
        if batch and (len(batch) == PREFETCHED_CHUNKS or n_bytes + size > PREFETCHED_BYTES):
            yield batch, ranges
            batch, ranges, n_bytes = [], [], 0
        batch.append(chunk)
        ranges.append((offset, size))
        n_bytes += size
    if batch:
        yield batch, ranges


@contextmanager
def named_chunk(dataset: h5py.Dataset, first: int, numbers: Sequence[int] | NDArray[np.int64]) -> Iterator[None]:
    """Turn what is raised in the block into StoreCorrupt, naming the rows of the chunk that begins at a position."""
    try:
        yield
    except DAMAGE as error:
        last = min(len(dataset), first + dataset.chunks[0])
        raise _lost_rows(dataset, range(first, last), numbers, error) from error


def checked_chunks(
    dataset: h5py.Dataset, numbers: Sequence[int] | NDArray[np.int64]
) -> Iterator[tuple[int, int, bytes]]:
    """The first position, filter mask and packed bytes of every chunk, its checksum compared, unpacked or not.

    numbers: the row number of each position. Raises StoreFormatError for other chunks or filters than the store's,
    StoreCorrupt naming the rows of a chunk that is damaged or was never written.
    """
    if not has_our_chunks(dataset):
        expected = f"expected {dataset.name} in chunks of whole rows with the filters of the store"
        raise StoreFormatError(f"{dataset.file.filename}: {expected}, got {dataset.chunks}; compute it again")
    for first in range(0, len(dataset), dataset.chunks[0]):
        with named_chunk(dataset, first, numbers):
            filter_mask, packed = fetch_chunk(dataset, first)
            checked_payload(packed, filter_mask)
        yield first, filter_mask, packed


def _lost_rows(
    dataset: h5py.Dataset,
    positions: Iterable[int],
    numbers: Sequence[int] | NDArray[np.int64] | None,
    reason: Exception,
) -> StoreCorrupt:
    rows = name_rows(positions if numbers is None else [int(numbers[position]) for position in positions])
    where = f"{dataset.file.filename}: {str(dataset.name).lstrip('/')}, rows {rows}"
    error = StoreCorrupt(f"{where}: the checksum or the data is wrong ({reason}); {RESTORE}")
    error.__cause__ = reason
    return error


def _by_chunk(positions: NDArray[np.int64], chunk_rows: int) -> list[ChunkRows]:
    """Positions in any order, sorted into the chunks that hold them."""
    order = np.argsort(positions, kind="stable")
    wanted = positions[order]
    blocks = np.split(order, np.flatnonzero(np.diff(wanted // chunk_rows)) + 1) if len(order) else []
    chunks = []
    for block in blocks:
        within = positions[block] % chunk_rows
        first = int(positions[block[0]] - within[0])
        chunks.append(ChunkRows(first, _as_slice(within), _as_slice(block)))
    return chunks


def _as_slice(indices: NDArray[np.int64]) -> Selection:
    """The same selection as a slice, where it is consecutive: NumPy copies that faster."""
    first, last = int(indices[0]), int(indices[-1])
    consecutive = last - first == len(indices) - 1 and (np.diff(indices) == 1).all()
    return slice(first, last + 1) if consecutive else indices


def is_dtype(dtype: np.dtype, expected: str) -> bool:
    """Whether a dtype is the one a variable of the schema has; `expected` as in Variable.dtype."""
    if expected == TEXT:
        info = h5py.check_string_dtype(dtype)
        return info is not None and info.encoding == TEXT and info.length is not None
    return dtype == np.dtype(expected)
