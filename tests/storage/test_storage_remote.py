"""Stores by address: a local HTTP server with ranges, a local S3, and everything that can go wrong on the way.

Each server counts the bytes that it sends, so that "little is transferred" is measured and not believed.
"""

import io
import pickle
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from command import printed_by_python, python
from example_store import ATTRIBUTES, CLASS_NAMES, chunk_offset, flip_byte, joined_arrays, seal, write_parts
from file_server import FileServer, Handler, served
from storage import StoreCorrupt, StoreError, StoreFormatError, StoreNotFound, StoreUnreachable, open_store, seal_store
from storage.read.checked import gather_rows
from storage.read.remote import address as addressing
from storage.read.remote.address import BLOCK_BYTES, RemoteFile
from storage.read.remote.refusals import without_secrets

pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")

STOP = 500
ARRAYS = joined_arrays(0, STOP)
IG = "integrated_gradients/attribution"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with one night and `latest`, and beside them the same rows in the layout virtual."""
    root = tmp_path_factory.mktemp("remote")
    night = root / "nights" / "20261123T020000Z-ab12cd"
    parts = write_parts(root / "parts", 0, STOP)
    seal(night / "attributions.h5", parts)
    attributes = {"class_names": CLASS_NAMES, "attributes": ATTRIBUTES}
    seal_store(root / "many" / "attributions.h5", parts, layout="virtual", **attributes)
    (root / "latest").symlink_to("nights/20261123T020000Z-ab12cd")
    return root


@pytest.fixture(scope="module")
def serving(root: Path) -> Iterator[FileServer]:
    with served(root) as server:
        yield server


@pytest.fixture
def server(serving: FileServer) -> Iterator[FileServer]:
    serving.reset()
    yield serving
    serving.reset()


def assert_reads_right(address: str, **options: object) -> None:
    with open_store(address, **options) as store:
        rows = np.array([499, 3, 3, 250])
        np.testing.assert_array_equal(store.attributions(rows), ARRAYS[IG][rows])
        np.testing.assert_array_equal(store.maps(...), ARRAYS["grad_cam/map"])
        assert len(store.table()) == STOP
        assert address.partition("?")[0].partition("://")[2] in repr(store.path)


# Where a store may lie.


@pytest.mark.parametrize("place", ["latest/attributions.h5", "nights/20261123T020000Z-ab12cd/", "latest", ""])
def test_http_file_night_latest_and_root(server: FileServer, place: str) -> None:
    with open_store(f"{server.address}/{place}") as store:
        np.testing.assert_array_equal(store.attributions([499, 0]), ARRAYS[IG][[499, 0]])
        assert str(store.path).endswith("attributions.h5")


def test_http_reads_right(server: FileServer) -> None:
    assert_reads_right(f"{server.address}/latest/attributions.h5")


@pytest.mark.parametrize("place", ["", "latest", "latest/attributions.h5"])
def test_file_address_is_a_path(root: Path, place: str) -> None:
    with open_store(f"file://{root}/{place}") as store:
        assert isinstance(store.path, Path) and len(store) == STOP


def test_memory(root: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/nights/latest/attributions.h5", (root / "latest" / "attributions.h5").read_bytes())
    for address in ("memory://nights/latest/attributions.h5", "memory://nights/latest", "memory://nights"):
        with open_store(address) as store:
            np.testing.assert_array_equal(store.attributions(...), ARRAYS[IG])


@pytest.fixture(scope="module")
def s3(root: Path) -> Iterator[str]:
    """The address of a local S3 with the night in the bucket `nights`."""
    boto3 = pytest.importorskip("boto3")
    pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **KEYS)
    client.create_bucket(Bucket="nights")
    client.upload_file(str(root / "latest" / "attributions.h5"), "nights", "one/attributions.h5")
    for path in (root / "many").rglob("*.h5"):
        client.upload_file(str(path), "nights", path.relative_to(root).as_posix())
    yield endpoint
    server.stop()


KEYS = {"aws_access_key_id": "dummy", "aws_secret_access_key": "dummy-secret"}


@pytest.mark.parametrize("place", ["one/attributions.h5", "one", "one/"])
def test_s3_by_storage_options(s3: str, place: str) -> None:
    options = {"key": "dummy", "secret": "dummy-secret", "endpoint_url": s3}
    with open_store(f"s3://nights/{place}", storage_options=options) as store:
        np.testing.assert_array_equal(store.attributions([499, 0]), ARRAYS[IG][[499, 0]])
        assert "secret" not in repr(store) + str(store.path)
        with pickle.loads(pickle.dumps(store)) as again:
            assert len(again) == STOP


def test_s3_by_environment(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    for name, value in (*KEYS.items(), ("aws_endpoint_url", s3)):
        monkeypatch.setenv(name.upper(), value)
    assert_reads_right("s3://nights/one/attributions.h5")


def test_s3_with_parts_beside_the_store(s3: str) -> None:
    options = {"key": "dummy", "secret": "dummy-secret", "endpoint_url": s3}
    assert_reads_right("s3://nights/many/attributions.h5", storage_options=options)


def test_a_store_that_is_not_there_is_said_once() -> None:
    """Python 3.13 prints what goes wrong in closing a file that nobody has any more, older ones in development mode."""
    program = """
import nightlens
try:
    nightlens.open_store("memory://nights")
except nightlens.StoreNotFound as error:
    print(str(error).partition(":")[0])
"""
    done = python("-X", "dev", "-W", "ignore", "-c", program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "memory\n", "")


def test_s3_without_the_object_or_the_bucket(s3: str) -> None:
    options = {"key": "dummy", "secret": "dummy-secret", "endpoint_url": s3}
    for address in ("s3://nights/two/attributions.h5", "s3://nowhere/one", "s3://nights"):
        with pytest.raises(StoreNotFound, match=address):
            open_store(address, storage_options=options)


def test_s3_without_credentials(s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(StoreUnreachable, match=r"access was refused \(NoCredentialsError.*storage_options"):
        open_store("s3://nights/one/attributions.h5", storage_options={"endpoint_url": s3})


# How much is transferred.


def test_opening_and_ten_rows_transfer_little(server: FileServer, root: Path) -> None:
    """Chunks here are 64 rows, 440 KB each: ten rows of two chunks are a fraction of the file."""
    size = (root / "latest" / "attributions.h5").stat().st_size
    with open_store(f"{server.address}/latest/attributions.h5") as store:
        opened = server.n_bytes
        assert opened <= 12 * BLOCK_BYTES
        store.attributions(slice(128, 138))
        chunk = 64 * 24 * 24 * 3 * 4
        assert server.n_bytes - opened <= chunk + 2 * BLOCK_BYTES
        before = server.n_bytes
        store.attributions(slice(130, 140))
        assert server.n_bytes == before
    assert server.n_bytes < size / 3


def test_chunks_are_fetched_together(server: FileServer) -> None:
    with open_store(f"{server.address}/latest/attributions.h5") as store:
        before, arrays = server.n_requests, store.attributions([0, 130, 260, 390])
        assert server.n_requests - before <= 5
    np.testing.assert_array_equal(arrays, ARRAYS[IG][[0, 130, 260, 390]])


def test_what_is_fetched_ahead_of_a_read_is_there_when_it_is_read() -> None:
    """Chunks of 3 MiB that nothing compresses: sixteen of them are more than the blocks that are kept."""
    import fsspec

    values = np.random.default_rng(0).integers(0, 256, (16, 3 << 20), np.uint8)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        filters = {"shuffle": True, "compression": "gzip", "compression_opts": 1, "fletcher32": True}
        file.create_dataset("it", data=values, chunks=(1, 3 << 20), **filters)
    system = fsspec.filesystem("memory")
    system.pipe("/large.h5", buffer.getvalue())
    with RemoteFile(system, "/large.h5", "it") as source, h5py.File(source) as file:
        np.testing.assert_array_equal(gather_rows(file["it"], np.arange(16), prefetch=source.prefetch), values)
        assert source.n_bytes <= source.size + 4 * BLOCK_BYTES
    system.rm("/large.h5")


def test_blocks_are_forgotten_one_by_one(server: FileServer, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addressing, "CACHE_BLOCKS", 3)
    assert_reads_right(f"{server.address}/latest/attributions.h5")
    import fsspec

    system, path = fsspec.core.url_to_fs(f"{server.address}/latest/attributions.h5")
    whole, random = (root / "latest" / "attributions.h5").read_bytes(), np.random.default_rng(3)
    with RemoteFile(system, path, "it") as file:
        for _ in range(50):
            start, size = int(random.integers(len(whole))), int(random.integers(4 * BLOCK_BYTES))
            file.seek(start)
            assert file.read(size) == whole[start : start + size]
            assert len(file._blocks) <= 5
        assert file.seek(0, 2) == len(whole) and file.read(4) == b""


def test_threads_share_a_remote_store(server: FileServer) -> None:
    with open_store(f"{server.address}/latest/attributions.h5") as store:
        wrong: list[int] = []

        def read(first: int) -> None:
            for start in range(first, STOP, 90):
                if not np.array_equal(store.attributions(slice(start, start + 9)), ARRAYS[IG][start : start + 9]):
                    wrong.append(start)

        threads = [threading.Thread(target=read, args=(first,)) for first in (0, 17, 40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert wrong == []


def run(code: str) -> str:
    """What a process of its own prints; one that hangs or crashes fails the test."""
    return printed_by_python(code, timeout_s=60)


def test_a_store_left_open_does_not_crash_the_end_of_the_process(server: FileServer) -> None:
    """With h5py 3.14 an HDF5 file on a Python object that is open then can be a segmentation fault; it is closed before."""
    code = f"""
from storage import open_store
store = open_store({server.address + "/latest/attributions.h5"!r})
kept = store._file["image"]
print(len(store))
"""
    assert run(code) == f"{STOP}\n"


def test_a_collection_in_the_fetching_thread_is_no_deadlock(server: FileServer) -> None:
    """fsspec's thread meets h5py objects that are garbage, while the main thread holds h5py's lock and waits for it."""
    code = f"""
import gc
import fsspec.asyn, fsspec.implementations.http as http
import h5py
from storage import open_store

fetch, starts = http.HTTPFile.async_fetch_range, []
async def fetch_and_collect(self, start, end):
    starts.append(start)
    if gc.isenabled() and len(starts) > 1:  # the first is ours, without h5py
        gc.collect()
    return await fetch(self, start, end)
http.HTTPFile._fetch_range = fsspec.asyn.sync_wrapper(fetch_and_collect)

gc.set_threshold(10**9)
file = h5py.File("x.h5", "w", driver="core", backing_store=False)
cycle = [file.create_dataset("x", data=[1])]
cycle.append(cycle)
del cycle
print(len(open_store({server.address + "/latest/attributions.h5"!r})), len(starts) > 1)
"""
    assert run(code) == f"{STOP} True\n"


# What can go wrong, and what is said.


def refusal(error: type[StoreError], address: str, **options: object) -> str:
    with pytest.raises(error) as refused:
        open_store(address, **options)
    assert "secret" not in str(refused.value.__cause__)
    return str(refused.value)


def test_not_found_lists_what_was_tried(server: FileServer) -> None:
    message = refusal(StoreNotFound, f"{server.address}/nowhere")
    assert f"{server.address}/nowhere/latest/attributions.h5" in message
    # The address has a port, which may have a 404 in it.
    assert "404" not in refusal(StoreNotFound, f"{server.address}/nowhere.h5").replace(server.address, "")
    assert server.n_requests <= 12


@pytest.mark.parametrize("refused", ["", "latest/", "latest"], ids=["root", "slash", "no-slash"])
def test_a_folder_that_is_refused_does_not_hide_its_store(server: FileServer, refused: str) -> None:
    """As a bucket does that nobody may list, and a server that shows no folders."""
    server.refused = {f"/{refused}", f"/{refused.rstrip('/')}"}
    with open_store(f"{server.address}/{refused}") as store:
        assert str(store.path) == f"{server.address}/latest/attributions.h5"


def test_where_all_is_refused_each_address_is_said(server: FileServer) -> None:
    server.status = 403
    message = refusal(StoreUnreachable, f"{server.address}/data?token=secret")
    assert message.startswith(
        f"{server.address}/data: no store was found; tried {server.address}/data (access was refused"
    )
    for path in ("data/attributions.h5", "data/latest/attributions.h5", "data/latest"):
        assert f", {server.address}/{path} (access was refused" in message
    assert message.endswith(
        "or credentials in the environment or by storage_options, or renew a signed address that has expired"
    )
    assert "secret" not in message


@pytest.mark.parametrize("place", ["", "/", "/latest", "/latest?token=secret"])
def test_a_file_latest_is_followed_as_the_link_would_be(tmp_path: Path, root: Path, place: str) -> None:
    """As roots have it on file systems without symbolic links."""
    shutil.copytree(root / "nights", tmp_path / "nights")
    (tmp_path / "latest").write_text("nights/20261123T020000Z-ab12cd\n")
    with served(tmp_path) as server, open_store(f"{server.address}{place}") as store:
        assert str(store.path) == f"{server.address}/nights/20261123T020000Z-ab12cd/attributions.h5"
        np.testing.assert_array_equal(store.attributions([499, 0]), ARRAYS[IG][[499, 0]])


def test_connection_refused() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/attributions.h5"
    assert "cannot be reached" in refusal(StoreUnreachable, address)


@pytest.mark.parametrize(
    ("status", "word"), [(403, "access was refused"), (401, "access was refused"), (500, "reached")]
)
def test_refusals_hide_the_signature(server: FileServer, status: int, word: str) -> None:
    server.status = status
    host = server.address.partition("://")[2]
    message = refusal(StoreUnreachable, f"http://zoe:secret@{host}/latest/attributions.h5?X-Amz-Signature=secret")
    assert word in message and f"http://{host}/latest/attributions.h5" in message
    assert "secret" not in message and "zoe" not in message


def test_an_open_store_hides_the_signature(server: FileServer) -> None:
    with open_store(f"{server.address}/latest/attributions.h5?X-Amz-Signature=secret") as store:
        assert len(store.table()) == STOP
        assert "secret" not in repr(store) + str(store.path) + repr(store.image) + repr(store._source)
        server.status = 403
        with pytest.raises(StoreUnreachable, match="access was refused") as refused:
            store.attributions([499])
        assert "secret" not in str(refused.value)


def test_a_signed_folder_keeps_its_query(server: FileServer) -> None:
    with open_store(f"{server.address}/latest?token=secret") as store:
        assert str(store.path) == f"{server.address}/latest/attributions.h5"


def test_a_server_without_ranges(server: FileServer, root: Path) -> None:
    server.ranges = False
    message = refusal(StoreUnreachable, f"{server.address}/latest/attributions.h5")
    assert "does not send parts of a file" in message and "copy the file" in message
    assert server.n_bytes < 4 * (root / "latest" / "attributions.h5").stat().st_size


def test_a_truncated_file(server: FileServer, root: Path, tmp_path: Path) -> None:
    whole = (root / "latest" / "attributions.h5").read_bytes()
    (root / "cut.h5").write_bytes(whole[: len(whole) // 2])
    assert "truncated" in refusal(StoreCorrupt, f"{server.address}/cut.h5")
    (root / "cut.h5").write_bytes(b"")
    assert "expected an HDF5 file" in refusal(StoreFormatError, f"{server.address}/cut.h5")


def test_a_file_that_ends_early(server: FileServer) -> None:
    server.lie = 10 * BLOCK_BYTES
    refusal(StoreCorrupt, f"{server.address}/latest/attributions.h5")


def test_what_is_no_store(server: FileServer, root: Path) -> None:
    (root / "page.h5").write_text("<html>sign in</html>")
    assert "begin with b'<html>si'" in refusal(StoreFormatError, f"{server.address}/page.h5?token=secret")


def test_a_flipped_byte_is_told_from_afar(server: FileServer, root: Path) -> None:
    spoilt = root / "spoilt.h5"
    spoilt.write_bytes((root / "latest" / "attributions.h5").read_bytes())
    flip_byte(spoilt, chunk_offset(spoilt, IG, 64))
    with open_store(f"{server.address}/spoilt.h5") as store:
        with pytest.raises(StoreCorrupt, match=rf"{server.address}/spoilt.h5: {IG}, rows 100: the checksum"):
            store.attributions([100, 3])
        np.testing.assert_array_equal(store.attributions([3]), ARRAYS[IG][[3]])


def test_a_connection_lost_while_reading(server: FileServer) -> None:
    with open_store(f"{server.address}/latest/attributions.h5") as store:
        server.status = 503
        with pytest.raises(StoreUnreachable, match="cannot be reached .*503"):
            store.attributions([400, 1])
        server.status = 200
        np.testing.assert_array_equal(store.attributions([400, 1]), ARRAYS[IG][[400, 1]])


@pytest.mark.parametrize(
    ("missing", "address"), [("fsspec", "https://x/y.h5"), ("s3fs", "s3://x/y.h5"), ("aiohttp", "https://x/y.h5")]
)
def test_a_missing_package_says_how_to_install(missing: str, address: str) -> None:
    code = f"""
import sys
sys.modules[{missing!r}] = None
from storage import StoreError, open_store
try:
    open_store({address!r})
except StoreError as error:
    print(error)
"""
    printed = run(code)
    assert "pip install 'nightlens[remote]'" in printed and missing in printed


def test_an_unknown_scheme() -> None:
    assert "expected one as https://" in refusal(StoreError, "hppts://x/attributions.h5")


def test_storage_options_are_for_addresses(root: Path) -> None:
    for path in (str(root), f"file://{root}"):
        with pytest.raises(ValueError, match="storage_options are for addresses"):
            open_store(path, storage_options={"anon": True})


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://u:p@h:1/a/b.h5?sig=1#x", "https://h:1/a/b.h5"),
        ("s3://bucket/key", "s3://bucket/key"),
        ("403, message='no', url='https://h/a?X-Amz-Signature=1'", "403, message='no', url='https://h/a'"),
        ("no address?", "no address?"),
    ],
)
def test_without_secrets(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_a_slow_server_is_waited_for(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    part_of = Handler.part_of

    def slow(self: Handler, data: bytes) -> tuple[int, bytes, dict[str, str]]:
        time.sleep(0.05)
        return part_of(self, data)

    monkeypatch.setattr(Handler, "part_of", slow)
    assert_reads_right(f"{server.address}/latest/attributions.h5")
