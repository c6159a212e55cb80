"""Reading files of the store so that a damaged one is an error with a name, never a number.

h5py reports damage as OSError, RuntimeError or KeyError with the HDF5 library's words. Here these become the StoreError
family, and a failed checksum names the dataset and the rows that are lost.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import ceil, prod
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
from storage.layout import CACHE_BYTES
from storage.schema import ROOT_ATTRIBUTES, SCHEMA_VERSION, TEXT, Variable

MAGIC = b"\x89HDF\r\n\x1a\n"
DAMAGE = (OSError, RuntimeError, KeyError, ValueError)
# HDF5's words for a file that another process, this one, or nobody any more has open for writing.
UNCLOSED = ("consistency flags", "unable to lock file", "already open for write")
RESTORE = "restore the file from a copy, or compute its rows again"


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
    try:
        return h5py.File(path, "r", rdcc_nbytes=CACHE_BYTES)
    except OSError as error:
        if any(sign in str(error) for sign in UNCLOSED):
            reason = "it is still being written, or its writer was killed; wait, or compute it again"
            raise StoreIncomplete(f"{path}: the file was not closed: {reason}") from error
        if error.errno is not None:
            raise
        cut = "the file is truncated" if "truncated" in str(error) else "the file cannot be opened"
        raise StoreCorrupt(f"{path}: {cut}: {error}; {RESTORE}") from error


@contextmanager
def named_damage(path: Path, what: str) -> Iterator[None]:
    """Turn what h5py raises in the block into StoreCorrupt, naming the file and what was read."""
    try:
        yield
    except StoreError:
        raise
    except DAMAGE as error:
        raise StoreCorrupt(f"{path}: {what} cannot be read: {error}; {RESTORE}") from error


def check_header(
    path: Path, attributes: dict[str, object], required: Iterable[str], kind: str, *, oldest: int = SCHEMA_VERSION
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


def check_datasets(file: h5py.File, path: Path, variables: Sequence[Variable]) -> dict[str, int]:
    """Check that every dataset is there with its dtype and axes that agree. Returns the length of each dimension.

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
        for scale, size in zip(variable.scales, shape, strict=False):
            if len(shape) != len(variable.scales) or sizes.setdefault(scale, size) != size:
                expected = tuple(sizes.get(scale, "?") for scale in variable.scales)
                raise StoreFormatError(f"{path}: expected {variable.path} of shape {expected}, got {shape}; {RESTORE}")
    return sizes


def check_chunks(dataset: h5py.Dataset, numbers: Sequence[int] | NDArray[np.int64]) -> None:
    """Read a whole dataset, chunk by chunk, so that every checksum is compared. Raises StoreCorrupt.

    numbers: the row number of each position of the first axis, for the message.
    """
    with named_damage(Path(dataset.file.filename), dataset.name):
        expected = prod(ceil(size / chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True))
        written = dataset.id.get_num_chunks()
    if written != expected:
        reason = f"expected {expected} chunks, got {written}"
        raise StoreCorrupt(f"{dataset.file.filename}: {dataset.name}: {reason}; {RESTORE}")
    for start in range(0, len(dataset), dataset.chunks[0]):
        read_rows(dataset, start, min(len(dataset), start + dataset.chunks[0]), numbers)


def read_rows(
    dataset: h5py.Dataset, start: int, stop: int, numbers: Sequence[int] | NDArray[np.int64] | None = None
) -> NDArray:
    """The positions [start, stop) of a dataset's first axis. Raises StoreCorrupt naming the rows that are lost."""
    try:
        return dataset[start:stop]
    except DAMAGE as error:
        lost = _lost_positions(dataset, start, stop)
        rows = name_rows(lost if numbers is None else [int(numbers[position]) for position in lost])
        where = f"{dataset.file.filename}: {dataset.name.lstrip('/')}, rows {rows}"
        raise StoreCorrupt(f"{where}: the checksum or the data is wrong ({error}); {RESTORE}") from error


def gather_rows(
    dataset: h5py.Dataset, positions: NDArray[np.int64], numbers: Sequence[int] | NDArray[np.int64] | None = None
) -> NDArray:
    """The given positions of the first axis, in any order and repeated; every chunk is read and unpacked once."""
    gathered = np.empty((len(positions), *dataset.shape[1:]), dtype=dataset.dtype)
    order = np.argsort(positions, kind="stable")
    chunk_of = positions[order] // dataset.chunks[0]
    for block in np.split(order, np.flatnonzero(np.diff(chunk_of)) + 1):
        if len(block):
            first, last = int(positions[block[0]]), int(positions[block[-1]])
            gathered[block] = read_rows(dataset, first, last + 1, numbers)[positions[block] - first]
    return gathered


def _lost_positions(dataset: h5py.Dataset, start: int, stop: int) -> list[int]:
    lost: list[int] = []
    step = dataset.chunks[0]
    for chunk_start in range(start - start % step, stop, step):
        span = range(max(start, chunk_start), min(stop, chunk_start + step))
        try:
            dataset[span.start : span.stop]
        except DAMAGE:
            lost.extend(span)
    return lost or list(range(start, stop))


def is_dtype(dtype: np.dtype, expected: str) -> bool:
    """Whether a dtype is the one a variable of the schema has; `expected` as in Variable.dtype."""
    if expected == TEXT:
        info = h5py.check_string_dtype(dtype)
        return info is not None and info.encoding == TEXT and info.length is not None
    return dtype == np.dtype(expected)
