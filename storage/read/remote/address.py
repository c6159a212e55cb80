"""Stores by address, such as https:// and s3://, read by ranges through fsspec and never copied whole.

A file is fetched in blocks of BLOCK_BYTES, of which the last CACHE_BLOCKS are kept; chunks that are about to be read are
fetched together, many requests at a time. fsspec's own caches fetch what one read misses, range after range; the one that
takes several ranges at once, `mmap`, keeps a file as large as the store.

Messages show an address without user, password and query, in which a signature may be, and never the storage options. Needs
the extra `remote`; `import storage` does not load it.
"""

import gc
import io
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from storage.errors import StoreCorrupt, StoreError, StoreFormatError, StoreNotFound, StoreUnreachable
from storage.file.catalog import LATEST, POINTER_BYTES, STORE_NAME, night_in_text
from storage.file.layout import MAGIC
from storage.read.checked import PREFETCHED_BYTES
from storage.read.remote.refusals import ASK, NO_RANGES, AddressRefused, raised_as_store_errors, without_secrets

BLOCK_BYTES = 1 << 16
# Twice what is fetched ahead of a read, so that two threads do not drive out each other's.
CACHE_BLOCKS = 2 * PREFETCHED_BYTES // BLOCK_BYTES


def is_address(path: object) -> bool:
    """Whether open_store is given an address, scheme://..., and not a path."""
    return isinstance(path, str) and "://" in path


def local_path(address: str) -> str | None:
    """The path that a file:// address means, or None for one of another kind. Raises StoreError for one that names a host."""
    parts = urlsplit(address)
    if parts.scheme != "file":
        return None
    if parts.netloc not in ("", "localhost"):
        raise StoreError(f"{address}: expected file:///path, with three slashes; {parts.netloc!r} would be a host")
    return unquote(parts.path)


def open_remote(address: str, storage_options: Mapping[str, Any] | None = None) -> "RemoteFile":
    """The store at an address: the file itself, or the attributions.h5 of a night's folder or of the root's latest night.

    storage_options: what fsspec's file system of this scheme takes, such as {"anon": True} or {"endpoint_url": ...}.
    Raises StoreNotFound, StoreUnreachable (connection, rights, credentials, no ranges), or StoreError for a package that
    is missing.
    """
    shown = without_secrets(address)
    with raised_as_store_errors(shown):
        import fsspec

    waiting, tried, was_refused = _candidates(address), list[str](), False
    is_alone = len(waiting) == 1
    while waiting:
        candidate = waiting.pop(0)
        name = without_secrets(candidate)
        with raised_as_store_errors(name):
            system, path = fsspec.core.url_to_fs(candidate, **(storage_options or {}))
        try:
            return _opened(system, path, name)
        except (StoreNotFound, StoreFormatError, AddressRefused) as error:
            if is_alone:
                raise
            tried.append(f"{name} ({_reason(error, name)})")
            was_refused |= isinstance(error, AddressRefused)
            if isinstance(error, StoreFormatError) and (night := _night_in_file(system, path, name)):
                folder, query = _split(candidate)
                waiting = [f"{folder}nights/{night}/{STORE_NAME}{query}"]
    message = f"{shown}: no store was found; tried {', '.join(tried)}; give the address of {STORE_NAME}"
    raise StoreUnreachable(f"{message}, or {ASK.removeprefix('give ')}") if was_refused else StoreNotFound(message)


def _reason(error: StoreError, name: str) -> str:
    """What an error says of an address, without the address and the advice."""
    return str(error).removeprefix(f"{name}: ").partition(";")[0]


def _opened(system: Any, path: str, shown: str) -> "RemoteFile":
    file = RemoteFile(system, path, shown)
    start = file.read(len(MAGIC)) or b""
    if start == MAGIC:
        return file
    file.close()
    raise StoreFormatError(f"{shown}: expected an HDF5 file, got {file.size} bytes that begin with {start!r}")


def _night_in_file(system: Any, path: str, shown: str) -> str | None:
    """The night that a file `latest` names, as there is one on file systems without symbolic links; else None."""
    if PurePosixPath(urlsplit(path).path).name != LATEST:
        return None
    with RemoteFile(system, path, shown) as file:
        return night_in_text(file.read(POINTER_BYTES) or b"")


def _candidates(address: str) -> list[str]:
    """What is tried: an address that ends with .h5 is meant as it is. A query stays behind the path."""
    parts = urlsplit(address)
    path = parts.path.rstrip("/")
    if path.endswith(".h5"):
        return [address]
    below = [path, f"{path}/{STORE_NAME}", f"{path}/{LATEST}/{STORE_NAME}", f"{path}/{LATEST}"]
    return [urlunsplit((parts.scheme, parts.netloc, each, parts.query, "")) for each in below]


class RemoteFile(io.RawIOBase):
    """A file behind an fsspec file system, for h5py: seekable, cached in blocks, safe to share among threads.

    n_bytes: how many bytes were fetched until now.
    """

    def __init__(self, system: Any, path: str, shown: str) -> None:
        """Raises StoreNotFound for what is no HDF5 file, and what open_remote raises."""
        super().__init__()
        self.shown, self.n_bytes = shown, 0
        self._system, self._path = system, path
        self._position = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.RLock()
        self._stream: Any = io.BytesIO()  # what is closed with this file where opening fails
        with raised_as_store_errors(shown), no_collection():
            self._stream = system.open(path, "rb", block_size=BLOCK_BYTES, cache_type="none")
            try:
                self.size = self._stream.seek(0, io.SEEK_END)
            except ValueError:
                if not self._stream.read(1):
                    raise StoreFormatError(f"{shown}: expected an HDF5 file, got an empty file") from None
                raise

    def __repr__(self) -> str:
        return self.shown

    def beside(self, name: str) -> "RemoteFile":
        """The file of that name, as seen from this one's folder, by the same file system; a query stays behind the path."""
        address, shown = ((*_split(each),) for each in (self._path, self.shown))
        return RemoteFile(self._system, f"{address[0]}{name}{address[1]}", f"{shown[0]}{name}")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer from the position on, as far as the file goes. Raises StoreError as open_remote does."""
        with self._lock:
            view = memoryview(buffer).cast("B")
            start, stop = self._position, min(self.size, self._position + len(view))
            self.prefetch([(start, stop - start)])
            for block in _blocks_of(start, stop):
                first = block * BLOCK_BYTES
                piece = self._blocks[block][max(0, start - first) : stop - first]
                at = max(0, first - start)
                view[at : at + len(piece)] = piece
            self._position = max(start, stop)
            return max(0, stop - start)

    def prefetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Fetch the blocks of some ranges (offset, size) that are not there, in as few requests as may be, all at once."""
        with self._lock:
            wanted = sorted({block for offset, size in ranges for block in _blocks_of(offset, offset + size)})
            for block in wanted:
                if block in self._blocks:
                    self._blocks.move_to_end(block)
            runs: list[list[int]] = []
            for block in (block for block in wanted if block not in self._blocks):
                if runs and block == runs[-1][1]:
                    runs[-1][1] += 1
                else:
                    runs.append([block, block + 1])
            spans = [(first * BLOCK_BYTES, min(self.size, last * BLOCK_BYTES)) for first, last in runs]
            for (first, _), data in zip(runs, self._fetch(spans), strict=True):
                for at in range(0, len(data), BLOCK_BYTES):
                    self._blocks[first + at // BLOCK_BYTES] = data[at : at + BLOCK_BYTES]
            while len(self._blocks) > max(CACHE_BLOCKS, len(wanted)):
                self._blocks.popitem(last=False)

    def _fetch(self, spans: list[tuple[int, int]]) -> list[bytes]:
        if not spans:
            return []
        with raised_as_store_errors(self.shown), no_collection():
            if len(spans) == 1:
                # By the stream, which notices a server that ignores ranges before it sends everything.
                self._stream.seek(spans[0][0])
                fetched = [self._stream.read(spans[0][1] - spans[0][0])]
            else:
                starts, stops = zip(*spans, strict=True)
                fetched = self._system.cat_ranges([self._path] * len(spans), list(starts), list(stops))
                # What goes wrong is returned by default; older fsspec return it even where they are asked to raise it.
                for failure in (each for each in fetched if isinstance(each, Exception)):
                    raise failure
        self.n_bytes += sum(map(len, fetched))
        for (start, stop), data in zip(spans, fetched, strict=True):
            if len(data) > stop - start:
                raise StoreUnreachable(f"{self.shown}: {NO_RANGES}")
            if len(data) < stop - start:
                came = f"expected {stop - start} bytes from {start} on, got {len(data)}"
                raise StoreCorrupt(f"{self.shown}: {came}: the file is truncated or was replaced; open it again")
        return fetched

    def close(self) -> None:
        """Forget the blocks and close the stream."""
        if not self.closed:
            self._blocks.clear()
            self._stream.close()
        super().close()


def _split(path: str) -> tuple[str, str]:
    """A file's folder, with the slash, and its query: of an address, or of a path that has no scheme and so no query."""
    if "://" not in path:
        return path[: path.rfind("/") + 1], ""
    parts = urlsplit(path)
    folder = urlunsplit((parts.scheme, parts.netloc, parts.path[: parts.path.rfind("/") + 1], "", ""))
    return folder, f"?{parts.query}" if parts.query else ""


_collecting = threading.Lock()
_n_fetching = 0
_was_enabled = False


@contextmanager
def no_collection() -> Iterator[None]:
    """No garbage collection while fsspec's own thread works for a thread that may hold h5py's lock.

    A collection in that thread that meets an h5py object waits for the lock, whose holder waits for that thread: h5py's
    documentation on threads names this deadlock, and this remedy.
    """
    global _n_fetching, _was_enabled
    with _collecting:
        if _n_fetching == 0:
            _was_enabled = gc.isenabled()
            gc.disable()
        _n_fetching += 1
    try:
        yield
    finally:
        with _collecting:
            _n_fetching -= 1
            if _n_fetching == 0 and _was_enabled:
                gc.enable()


def _blocks_of(start: int, stop: int) -> range:
    return range(start // BLOCK_BYTES, -(-stop // BLOCK_BYTES)) if stop > start else range(0)
