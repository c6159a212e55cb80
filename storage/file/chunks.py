"""Chunks as they lie in the file: where, and with which checksum.

Every dataset of the store has the filters shuffle, gzip and Fletcher-32 in this order, so a chunk in the file is

    gzip(shuffle(values)) then its Fletcher-32 checksum, a little-endian uint32

and whoever has compared the checksum knows that these are the bytes that were written, without unpacking them: so a seal
copies chunks as they are. Reading is left to HDF5, which unpacks them and compares the same checksums.

Shuffle puts the first bytes of all values first, then all second bytes, and so on. Fletcher-32 is the one of HDF5's
H5checksum.c: sums modulo 65535 of big-endian 16-bit words, an odd last byte being the high byte of a last word.
"""

import os
import zlib

import h5py
import numpy as np
from h5py._objects import phil
from numpy.typing import NDArray

FILTER_IDS = (h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32)
FLETCHER32_SKIPPED = 4
CHECKSUM_BYTES = 4
MODULUS = 65535
BLOCK_WORDS = 256
# How often Fletcher's second sum meets each word of a block.
WEIGHTS = np.arange(BLOCK_WORDS, 0, -1, dtype=np.uint32)


class ChunkDamage(ValueError):
    """The bytes of a chunk are not those that were written."""


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
    _refuse_unchecked(filter_mask)
    payload, stored = view[:-CHECKSUM_BYTES], int.from_bytes(view[-CHECKSUM_BYTES:], "little")
    if len(view) <= CHECKSUM_BYTES or fletcher32(payload) != stored:
        raise ChunkDamage("its Fletcher-32 checksum differs")
    return payload


def _refuse_unchecked(filter_mask: int) -> None:
    if filter_mask & FLETCHER32_SKIPPED:
        raise ChunkDamage("it was written without its Fletcher-32 checksum")


def pack_chunk(values: NDArray, level: int) -> bytes:
    """A whole chunk of values as it lies in the file, no filter skipped."""
    shuffled = np.ascontiguousarray(values.reshape(-1).view(np.uint8).reshape(-1, values.dtype.itemsize).T)
    payload = zlib.compress(shuffled.data, level)
    return payload + fletcher32(payload).to_bytes(CHECKSUM_BYTES, "little")


def has_our_chunks(dataset: h5py.Dataset) -> bool:
    """Whether a dataset has chunks of whole rows and exactly our filters, so that they can be copied as they are."""
    chunks, created = dataset.chunks, dataset.id.get_create_plist()
    filters = tuple(created.get_filter(index)[0] for index in range(created.get_nfilters()))
    return (
        chunks is not None and chunks[1:] == dataset.shape[1:] and filters == FILTER_IDS and not dataset.dtype.hasobject
    )


def chunk_range(dataset: h5py.Dataset, first: int) -> tuple[int, int]:
    """Offset and size in the file of the chunk that begins at a position.

    Raises ChunkDamage for one that HDF5 reads without comparing anything: it was never written, or without its checksum.
    """
    with phil:
        found = dataset.id.get_chunk_info_by_coord((first, *(0,) * (dataset.ndim - 1)))
    if found.byte_offset is None:
        raise ChunkDamage("it was never written")
    _refuse_unchecked(found.filter_mask)
    return found.byte_offset, found.size


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


def n_processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
