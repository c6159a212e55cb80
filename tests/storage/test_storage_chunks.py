"""Chunks: HDF5 itself is the slow twin, of the checksum, of the filters and of what is read."""

import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from command import python
from storage import StoreCorrupt
from storage.file.chunks import fletcher32, has_our_chunks, pack_chunk
from storage.file.layout import FILTERS
from storage.read import checked

SHAPES = [
    pytest.param((64, 4, 3), 16, id="whole chunks"),
    pytest.param((70, 4, 3), 16, id="ragged last chunk"),
    pytest.param((5, 4, 3), 16, id="less than a chunk"),
    pytest.param((33,), 8, id="one axis"),
    pytest.param((9, 5), 1, id="a row a chunk"),
    pytest.param((1, 7), 1, id="one row"),
    pytest.param((0, 4, 3), 4, id="empty"),
]
DTYPES = ["uint8", "int32", "int64", "float32", ">f4"]


def values(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    random = np.random.default_rng(len(shape))
    return (random.standard_normal(shape) * 50).astype(np.int64).astype(dtype)


def create(path: Path, array: np.ndarray, chunk_rows: int, **filters: object) -> h5py.File:
    file = h5py.File(path, "w", libver="v110")
    options = {"maxshape": (None, *array.shape[1:]), "chunks": (chunk_rows, *array.shape[1:])}
    file.create_dataset("x", data=array, **options, **(filters or FILTERS))
    return file


def hdf5_checksum(data: bytes, path: Path) -> int:
    """HDF5's own checksum of some bytes: what it appends to a chunk that has this filter only."""
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("x", data=np.frombuffer(data, np.uint8), chunks=(len(data),), fletcher32=True)
        _, packed = dataset.id.read_direct_chunk((0,))
    assert packed[:-4] == data
    return int.from_bytes(packed[-4:], "little")


@pytest.mark.parametrize("n_bytes", [1, 2, 3, 719, 720, 721, 722, 2047, 2048, 2049, 4096, 5001, 1_000_003])
@pytest.mark.parametrize("kind", ["random", "zeros", "ones", "zeros and a last byte", "sums to the modulus"])
def test_fletcher32_is_that_of_hdf5(tmp_path: Path, n_bytes: int, kind: str) -> None:
    data = bytearray(
        np.random.default_rng(n_bytes).integers(0, 256, n_bytes, np.uint8) if kind == "random" else n_bytes
    )
    if kind == "ones":
        data = bytearray(b"\xff" * n_bytes)
    elif kind == "zeros and a last byte":
        data[-1] = 7
    elif kind == "sums to the modulus":
        data[: n_bytes // 4 * 4] = b"\x12\x34\xed\xcb" * (n_bytes // 4)
    assert fletcher32(bytes(data)) == hdf5_checksum(bytes(data), tmp_path / "x.h5")


def test_fletcher32_known_values() -> None:
    assert fletcher32(b"") == 0 == fletcher32(bytes(10))
    assert fletcher32(b"\x00\x01\x00\x02") == (1 + 3) << 16 | 3
    assert fletcher32(b"\x01") == 0x0100_0100


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "chunk_rows"), SHAPES)
def test_what_is_read_is_what_h5py_reads(tmp_path: Path, shape, chunk_rows: int, dtype: str) -> None:
    array, random = values(shape, dtype), np.random.default_rng(1)
    with create(tmp_path / "x.h5", array, chunk_rows) as file:
        assert has_our_chunks(file["x"])
        np.testing.assert_array_equal(checked.read_rows(file["x"], 0, len(array)), file["x"][...], strict=True)
        for n in (0, 1, 7, 200) if len(array) else (0,):
            positions = random.integers(0, max(1, len(array)), n)
            np.testing.assert_array_equal(checked.gather_rows(file["x"], positions), array[positions], strict=True)
        for start, stop in [sorted(random.integers(0, len(array) + 1, 2)) for _ in range(10)]:
            np.testing.assert_array_equal(checked.read_rows(file["x"], start, stop), array[start:stop], strict=True)


@pytest.mark.parametrize(
    "filters",
    [
        {"compression": None},
        {"compression": "gzip"},
        {"compression": "lzf", "shuffle": True, "fletcher32": True},
        {"scaleoffset": 0},
    ],
    ids=["none", "gzip only", "lzf", "scale-offset"],
)
def test_other_filters_are_read_by_hdf5(tmp_path: Path, filters: dict) -> None:
    array = values((70, 4, 3), "int32")
    with create(tmp_path / "x.h5", array, 16, **filters) as file:
        assert not has_our_chunks(file["x"])
        np.testing.assert_array_equal(checked.gather_rows(file["x"], np.array([69, 3, 3])), array[[69, 3, 3]])


def test_contiguous_and_otherwise_chunked_datasets_are_read_by_hdf5(tmp_path: Path) -> None:
    array = values((20, 4), "float32")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["contiguous"] = array
        file.create_dataset("columns", data=array, chunks=(20, 2), **FILTERS)
        for name in file:
            assert not has_our_chunks(file[name])
            np.testing.assert_array_equal(checked.gather_rows(file[name], np.array([19, 0])), array[[19, 0]])


def put_with_filters_skipped(file: h5py.File, array: np.ndarray, skipped: int) -> None:
    data = array.tobytes() if skipped & 1 else array.view(np.uint8).reshape(-1, 4).T.tobytes()
    if not skipped & 2:
        data = zlib.compress(data)
    if not skipped & 4:
        data += fletcher32(data).to_bytes(4, "little")
    file["x"].id.write_direct_chunk((0, 0), data, skipped)


@pytest.mark.parametrize("skipped", range(4), ids=["none", "shuffle", "gzip", "shuffle and gzip"])
def test_chunks_written_with_filters_skipped(tmp_path: Path, skipped: int) -> None:
    array = values((8, 5), "float32")
    with create(tmp_path / "x.h5", np.zeros_like(array), 8) as file:
        put_with_filters_skipped(file, array, skipped)
        np.testing.assert_array_equal(file["x"][...], array)
        np.testing.assert_array_equal(checked.read_rows(file["x"], 0, 8), array)


def test_a_chunk_without_checksum_is_refused(tmp_path: Path) -> None:
    array = values((8, 5), "float32")
    with create(tmp_path / "x.h5", np.zeros_like(array), 8) as file:
        put_with_filters_skipped(file, array, 4)
        with pytest.raises(StoreCorrupt, match="x, rows 0-7: .*without its Fletcher-32 checksum"):
            checked.read_rows(file["x"], 0, 8)


@pytest.mark.parametrize("dtype", DTYPES)
def test_hdf5_reads_what_is_packed_here(tmp_path: Path, dtype: str) -> None:
    array = values((16, 4, 3), dtype)
    with create(tmp_path / "x.h5", np.zeros_like(array), 16) as file:
        file["x"].id.write_direct_chunk((0, 0, 0), pack_chunk(array, 4), 0)
        file["x"].id.refresh()
        np.testing.assert_array_equal(file["x"][...], array)


def test_an_unwritten_chunk_is_damage_and_no_fill_value(tmp_path: Path) -> None:
    with create(tmp_path / "x.h5", values((16, 3), "float32"), 4) as file:
        file["x"].resize(20, axis=0)
        with pytest.raises(StoreCorrupt, match=r"x.h5: x, rows 116-119: "):
            checked.read_rows(file["x"], 0, 20, range(100, 120))
        checked.read_rows(file["x"], 0, 16)


@pytest.mark.parametrize("filters", [FILTERS, {"fletcher32": True}], ids=["ours", "by HDF5"])
def test_any_flipped_byte_of_a_chunk_names_its_rows(tmp_path: Path, filters: dict) -> None:
    array = values((12, 3), "float32")
    with create(tmp_path / "x.h5", array, 4, **filters) as file:
        chunk = file["x"].id.get_chunk_info(1)
    whole = (tmp_path / "x.h5").read_bytes()
    for offset in range(chunk.byte_offset, chunk.byte_offset + chunk.size):
        spoilt = bytearray(whole)
        spoilt[offset] ^= 0x10
        (tmp_path / "x.h5").write_bytes(spoilt)
        with h5py.File(tmp_path / "x.h5") as file:
            with pytest.raises(StoreCorrupt, match=r"x, rows 104-105, 107: .*checksum"):
                checked.gather_rows(file["x"], np.array([7, 5, 4, 0, 11, 5]), range(100, 112))
            np.testing.assert_array_equal(checked.gather_rows(file["x"], np.array([11, 0])), array[[11, 0]])


def test_many_threads_fetch_chunks_without_a_crash(tmp_path: Path) -> None:
    """In a process of its own: before h5py's pull request 2764 read_direct_chunk takes no lock, and crashes or fails."""
    array = np.arange(600, dtype=np.int64).reshape(300, 2)
    create(tmp_path / "x.h5", array, 1).close()
    code = f"""
import sys, threading
sys.setswitchinterval(1e-6)
import h5py, numpy as np
from storage.read import checked
dataset, wrong = h5py.File({str(tmp_path / "x.h5")!r})["x"], []
def read():
    for _ in range(10):
        values = checked.read_rows(dataset, 0, 300)
        if not np.array_equal(values.ravel(), np.arange(600)):
            wrong.append(values)
threads = [threading.Thread(target=read) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(len(wrong))
"""
    done = python("-c", code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")
