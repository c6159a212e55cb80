"""Chunks as they lie in the file: their checksum, and many of them unpacked side by side.

Every dataset of the store has the filters shuffle, gzip and Fletcher-32 in this order, so a chunk in the file is

    gzip(shuffle(values)) then its Fletcher-32 checksum, a little-endian uint32

and whoever has compared the checksum knows that these are the bytes that were written, without unpacking them. HDF5 itself
unpacks one chunk at a time under its lock; here chunks are fetched under h5py's lock and unpacked by several threads
straight into the result, as zlib and NumPy let other threads run. Datasets with other filters or chunks, as a foreign tool
may have rewritten them, are read by HDF5: slower, with the same result.

Shuffle puts the first bytes of all values first, then all second bytes, and so on. Fletcher-32 is the one of HDF5's
H5checksum.c: sums modulo 65535 of big-endian 16-bit words, an odd last byte being the high byte of a last word.
"""

import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod

import h5py
import numpy as np
from h5py._objects import phil
from numpy.typing import NDArray

FILTER_IDS = (h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32)
SHUFFLE_SKIPPED, GZIP_SKIPPED, FLETCHER32_SKIPPED = 1, 2, 4
CHECKSUM_BYTES = 4
MODULUS = 65535
BLOCK_WORDS = 256
# How often Fletcher's second sum meets each word of a block.
WEIGHTS = np.arange(BLOCK_WORDS, 0, -1, dtype=np.uint32)
MAX_THREADS = 8
PREFETCHED_CHUNKS, PREFETCHED_BYTES = 16, 16 << 20

Selection = slice | NDArray[np.int64]
Prefetch = Callable[[Iterable[tuple[int, int]]], None]


class ChunkDamage(ValueError):
    """The bytes of a chunk are not those that were written."""


@dataclass(frozen=True)
class ChunkRows:
    """Which rows of which chunk go where: result[rows] = chunk[within]. first: the chunk's first position."""

    first: int
    within: Selection
    rows: Selection


def fletcher32(data: bytes | memoryview) -> int:
    """HDF5's Fletcher-32 checksum of some bytes.

    Zeros in front change neither sum, so the words are filled up to whole blocks from the left, whose sums fit into
    uint32. Swapping the bytes of a word multiplies it by 256 modulo 65535, so words are read as they come to the machine,
    and the sums are swapped.
    """
    n_words = -(-len(data) // 2)
    n_blocks = -(-n_words // BLOCK_WORDS)
    padded = np.zeros(n_blocks * BLOCK_WORDS * 2, dtype=np.uint8)
    start = padded.size - 2 * n_words
    padded[start : start + len(data)] = np.frombuffer(data, dtype=np.uint8)
    words = padded.view("<u2").reshape(n_blocks, BLOCK_WORDS).astype(np.uint32)
    plain = words.sum(axis=1, dtype=np.uint32).astype(np.int64)
    weighted = np.einsum("bw,w->b", words, WEIGHTS).astype(np.int64)
    if not plain.any():
        return 0
    words_after = np.arange(n_blocks - 1, -1, -1) * BLOCK_WORDS % MODULUS
    sums = int(plain.sum()), int(((weighted + words_after * plain) % MODULUS).sum())
    # The library's sums are 0 for zeros only; else a multiple of the modulus is the modulus itself.
    first, second = (total * 256 % MODULUS or MODULUS for total in sums)
    return second << 16 | first


def checked_payload(packed: bytes | memoryview, filter_mask: int) -> memoryview:
    """A chunk's bytes without their checksum. Raises ChunkDamage if that does not fit, or is not there at all.

    filter_mask: HDF5's, a bit set for each filter that this chunk was written without.
    """
    view = memoryview(packed)
    if filter_mask & FLETCHER32_SKIPPED:
        raise ChunkDamage("it was written without its Fletcher-32 checksum")
    payload, stored = view[:-CHECKSUM_BYTES], int.from_bytes(view[-CHECKSUM_BYTES:], "little")
    if len(view) <= CHECKSUM_BYTES or fletcher32(payload) != stored:
        raise ChunkDamage("its Fletcher-32 checksum differs")
    return payload


def unpack_chunk(packed: bytes | memoryview, filter_mask: int, n_bytes: int) -> bytes | memoryview:
    """A chunk's bytes after checksum and gzip, still shuffled. Raises ChunkDamage if they are not n_bytes."""
    payload: bytes | memoryview = checked_payload(packed, filter_mask)
    if not filter_mask & GZIP_SKIPPED:
        try:
            payload = zlib.decompress(payload, bufsize=n_bytes)
        except zlib.error as error:
            raise ChunkDamage(f"its gzip data is wrong: {error}") from error
    if len(payload) != n_bytes:
        raise ChunkDamage(f"expected {n_bytes} bytes, got {len(payload)}")
    return payload


def pack_chunk(values: NDArray, level: int) -> bytes:
    """A whole chunk of values as it lies in the file, no filter skipped."""
    shuffled = np.ascontiguousarray(values.reshape(-1).view(np.uint8).reshape(-1, values.dtype.itemsize).T)
    payload = zlib.compress(shuffled.data, level)
    return payload + fletcher32(payload).to_bytes(CHECKSUM_BYTES, "little")


def has_our_chunks(dataset: h5py.Dataset) -> bool:
    """Whether a dataset has chunks of whole rows and exactly our filters, so that this module can take them apart."""
    chunks, created = dataset.chunks, dataset.id.get_create_plist()
    filters = tuple(created.get_filter(index)[0] for index in range(created.get_nfilters()))
    return (
        chunks is not None and chunks[1:] == dataset.shape[1:] and filters == FILTER_IDS and not dataset.dtype.hasobject
    )


def read_chunks(
    dataset: h5py.Dataset, wanted: Sequence[ChunkRows], result: NDArray, prefetch: Prefetch | None = None
) -> dict[int, Exception]:
    """Fill `result` (row, ...), C-contiguous, from chunks of a dataset that has_our_chunks, several at a time.

    prefetch: called with the ranges (offset, size) of the file that are read next: of at most PREFETCHED_CHUNKS chunks,
        and of no more than PREFETCHED_BYTES, or of a single chunk.
    Returns what went wrong, by the chunk's first position; its rows of the result are then undefined. A chunk that was
    never written is an error, too, and not its fill value: in a store there is no such thing.
    """
    n_values, itemsize = prod(result.shape[1:]), result.dtype.itemsize
    if not result.size:
        return {}
    target = result.reshape(len(result), n_values).view(np.uint8).reshape(len(result), n_values, itemsize)
    chunk_shape = (dataset.chunks[0], n_values)

    def read(chunk: ChunkRows) -> tuple[int, Exception | None]:
        try:
            filter_mask, packed = fetch_chunk(dataset, chunk.first)
            shuffled = unpack_chunk(packed, filter_mask, prod(chunk_shape) * itemsize)
        except (ChunkDamage, OSError, RuntimeError) as error:
            return chunk.first, error
        values = _unshuffled(np.frombuffer(shuffled, dtype=np.uint8), (*chunk_shape, itemsize), filter_mask)
        for byte in range(itemsize):
            target[chunk.rows, :, byte] = values[chunk.within, :, byte]
        return chunk.first, None

    if prefetch is None:
        done = side_by_side(read, wanted)
    else:
        done = []
        for batch, ranges in _batches(dataset, wanted):
            prefetch(ranges)
            done += side_by_side(read, batch)
    return {first: error for first, error in done if error is not None}


def _batches(
    dataset: h5py.Dataset, wanted: Iterable[ChunkRows]
) -> Iterator[tuple[list[ChunkRows], list[tuple[int, int]]]]:
    """The chunks that are fetched together, and their ranges in the file."""
    batch, ranges, n_bytes = list[ChunkRows](), list[tuple[int, int]](), 0
    for chunk in wanted:
        offset, size = chunk_range(dataset, chunk)
        if batch and (len(batch) == PREFETCHED_CHUNKS or n_bytes + size > PREFETCHED_BYTES):
            yield batch, ranges
            batch, ranges, n_bytes = [], [], 0
        batch.append(chunk)
        ranges.append((offset, size))
        n_bytes += size
    if batch:
        yield batch, ranges


def _unshuffled(data: NDArray[np.uint8], shape: tuple[int, ...], filter_mask: int) -> NDArray[np.uint8]:
    """A chunk's bytes as a view of shape (row, value, byte)."""
    if filter_mask & SHUFFLE_SKIPPED:
        return data.reshape(shape)
    return np.moveaxis(data.reshape(shape[-1:] + shape[:-1]), 0, -1)


def chunk_range(dataset: h5py.Dataset, chunk: ChunkRows) -> tuple[int, int]:
    """Offset and size of a chunk in the file; (0, 0) for one that was never written."""
    found = dataset.id.get_chunk_info_by_coord((chunk.first, *(0,) * (dataset.ndim - 1)))
    return (0, 0) if found.byte_offset is None else (found.byte_offset, found.size)


def fetch_chunk(dataset: h5py.Dataset, first: int) -> tuple[int, bytes]:
    """The filter mask and the bytes of the chunk that begins at a position. Raises OSError if it cannot be read.

    Raises RuntimeError for one that was never written.
    Under h5py's lock: read_direct_chunk takes it by itself only since h5py's pull request 2764 of December 2025, and
    without it threads crash the process.
    """
    with phil:
        return dataset.id.read_direct_chunk((first, *(0,) * (dataset.ndim - 1)))


def put_chunk(dataset: h5py.Dataset, first: int, packed: bytes, filter_mask: int = 0) -> None:
    """Write the chunk that begins at a position, as it is. Under h5py's lock, for the reason of fetch_chunk."""
    with phil:
        dataset.id.write_direct_chunk((first, *(0,) * (dataset.ndim - 1)), packed, filter_mask)


def side_by_side(work: Callable, items: Sequence) -> list:
    """The results of `work` on each item, in their order, computed by as many threads as there are processors."""
    n_threads = min(MAX_THREADS, n_processors(), len(items))
    if n_threads < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(work, items))


def n_processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
