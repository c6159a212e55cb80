"""Opening a sealed store, wherever it lies."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from storage import reading
from storage.catalog import resolve_store
from storage.remote import is_address, local_path, open_remote
from storage.store import AttributionStore


def open_store(path: Path | str, *, storage_options: Mapping[str, Any] | None = None) -> AttributionStore:
    """Open the store at `path`: an attributions.h5, a night's folder, the symlink `latest`, or the root of all nights.

    The path may be an address, https:// or s3:// or file:// or whatever fsspec opens, which is read by ranges (but file://,
    which is a path); then storage_options go to fsspec's file system. A pickled store carries them, and opens itself again.
    Raises StoreNotFound, StoreUnreachable, StoreFormatError (not HDF5, not ours), StoreIncomplete (not sealed),
    StoreVersionError or StoreCorrupt (truncated, damaged); each says what to do.
    """
    if is_address(path):
        local = local_path(str(path))
        if local is None:
            return _open_address(str(path), storage_options)
        path = local
    if storage_options:
        raise ValueError(f"storage_options are for addresses such as s3://bucket/night, got the path {path}")
    resolved = resolve_store(path)
    file = reading.opened(resolved)
    try:
        return AttributionStore(file, resolved, (str(resolved), None))
    except BaseException:
        file.close()
        raise


def reopen_store(path: str, storage_options: Mapping[str, Any] | None) -> AttributionStore:
    """What a pickled store becomes where it is read."""
    return open_store(path, storage_options=storage_options)


def _open_address(address: str, storage_options: Mapping[str, Any] | None) -> AttributionStore:
    source = open_remote(address, storage_options)
    try:
        file = reading.opened_hdf5(source, source.shown)
    except BaseException:
        source.close()
        raise
    try:
        return AttributionStore(file, source.shown, (address, storage_options), source)
    except BaseException:
        file.close()
        source.close()
        raise
