"""A night's folder copied to an address: s3://bucket/prefix, or whatever else fsspec writes. Needs the extra `remote`.

    ADDRESS/nights/<id>/...    as in a root
    ADDRESS/latest             a file that names the night, so that `open_store(ADDRESS)` opens it

The order is the point: pictures and records first, then the parts of a store that has some, the store, night.json, and `latest`
at the very end. So a copy that is cut has no night.json, and no `latest` names it. The same copy again sends what is missing or
differs, and nothing else.

Every file is verified by reading it back and comparing its size and sha256, be it sent now or there already: checksums of servers
are of other kinds from one to the next, and of large files not of the content alone. That is as many bytes down as up.
Where a file system shows a file while it is written, it is written under another name and renamed.
"""

import hashlib
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from prefect.logging import get_run_logger

from storage import StoreCorrupt, StoreError, StoreNotFound
from storage.file.catalog import LATEST, STORE_NAME, night_in_text
from storage.nights.night_records import NIGHT_RECORD
from storage.nights.packed_files import night_files
from storage.read.parts.linked_parts import parts_folder
from storage.read.progress_line import Progress
from storage.read.remote.address import local_path
from storage.read.remote.refusals import raised_as_store_errors, without_secrets
from tasks.handover.late_warning import add_late_warning
from tasks.night.progress import Progress as StageProgress
from tasks.night.progress import report
from tasks.night.result import NightResult, NightWarning

__all__ = ["Copied", "check_address", "copy_night", "not_whole_at", "publish_copy"]

BLOCK_BYTES = 8 << 20
# Objects are there whole or not at all, and have no folders.
OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "r2")
# Patience with a server that does not answer: botocore's own is minutes.
S3_PATIENCE = {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 2}}


@dataclass(frozen=True)
class Copied:
    """A night at its address. n_sent, bytes_sent: of its n_files what was not there already."""

    address: str
    n_files: int
    n_sent: int
    bytes: int
    bytes_sent: int


def publish_copy(result: NightResult, address: str) -> NightResult:
    """Copies the folder of a night that is sealed and written; the result, with a warning more if that failed."""
    shown, logger = without_secrets(address), get_run_logger()

    def heard(what: str, done: int, total: int) -> None:
        report(StageProgress(stage="publish", done=done // 10**6, total=-(-total // 10**6), unit="MB", note=what))

    try:
        copied = copy_night(result.store.parent, address, is_latest=result.moves_latest, progress=heard)
    except StoreError as error:
        words = [
            "nightlens",
            "publish",
            str(result.store.parent),
            shown,
            *([] if result.moves_latest else ["--not-latest"]),
        ]
        again = f"`{shlex.join(words)}` goes on with it"
        message = f"{not_whole_at(address)}{_reason(error)}; {again}"
        return add_late_warning(result, NightWarning(kind="not-published", message=message))
    logger.info("%d files at %s, %d of them sent now, all read back", copied.n_files, copied.address, copied.n_sent)
    return result


def not_whole_at(address: str) -> str:
    """How the warning begins."""
    return f"not whole at {without_secrets(address)}: "


def _reason(error: StoreError) -> str:
    """What went wrong, in a line, without the advice, which is for readers of stores."""
    return " ".join(str(error).split()).partition("; ")[0]


def check_address(address: str | None) -> None:
    """Raises StoreError, before a night begins, if the packages that write to such an address are missing."""
    if address is not None:
        _file_system(address)


def copy_night(
    folder: Path,
    address: str,
    *,
    is_latest: bool = True,
    progress: Progress = lambda what, done, total: None,
) -> Copied:
    """Copy a finished night's folder to ADDRESS/nights/<id>, and verify all of it there.

    is_latest: whether ADDRESS/latest is to name it, if it names no later one. progress: called with the file's name, bytes
    done and bytes in all.
    Raises StoreNotFound for a folder without night.json and for an address that is not there, StoreUnreachable, StoreCorrupt
    for what reads back as something else.
    """
    if not (folder / NIGHT_RECORD).is_file():
        raise StoreNotFound(
            f"{folder}: no {NIGHT_RECORD} in it: the night did not finish, and only whole ones are copied"
        )
    files = {name.partition("/")[2]: path for name, path in night_files(folder / STORE_NAME, images=True)}
    shown = f"{without_secrets(address).rstrip('/')}/nights/{folder.name}"
    system, root = _file_system(address)
    place = f"{root.rstrip('/')}/nights/{folder.name}"
    total = sum(path.stat().st_size for path in files.values())
    done = bytes_sent = n_sent = 0
    ordered = sorted(files, key=lambda name: (_turn(name), name))
    for name in ordered:
        path = files[name]
        if not _is_same(system, f"{place}/{name}", path, f"{shown}/{name}"):
            if not n_sent and name != NIGHT_RECORD:
                _withdraw(system, f"{place}/{NIGHT_RECORD}", shown)
            _send(system, path, f"{place}/{name}", f"{shown}/{name}")
            n_sent, bytes_sent = n_sent + 1, bytes_sent + path.stat().st_size
        done += path.stat().st_size
        progress(name, done, total)
    if is_latest:
        with raised_as_store_errors(shown):
            _point_latest(system, f"{root.rstrip('/')}/{LATEST}", folder.name)
    return Copied(shown, len(files), n_sent, total, bytes_sent)


def _point_latest(system: Any, pointer: str, night: str) -> None:
    """Names the night, but where a later one is named: one that is published afterwards does not take its place."""
    named = night_in_text(system.cat_file(pointer)) if system.exists(pointer) else None
    if named is None or named <= night:
        system.pipe_file(pointer, f"nights/{night}\n".encode())


def _turn(name: str) -> int:
    """What is looked for first comes last."""
    if name.startswith(f"{parts_folder(Path(STORE_NAME)).name}/"):
        return 1
    return {STORE_NAME: 2, NIGHT_RECORD: 3}.get(name, 0)


def _file_system(address: str) -> tuple[Any, str]:
    """fsspec's file system of an address, and the path on it. Raises StoreError where a package is missing."""
    shown, options = without_secrets(address), {}
    if urlsplit(address).scheme in ("s3", "s3a"):
        options = {"config_kwargs": S3_PATIENCE}
    with raised_as_store_errors(shown):
        import fsspec

        local = local_path(address)
        system, path = fsspec.core.url_to_fs(local or address, **options)
        # What it remembers of folders may be older than what another process wrote.
        system.invalidate_cache()
        return system, path


def _is_same(system: Any, place: str, path: Path, shown: str) -> bool:
    """Whether a file is there already, read back and compared."""
    with raised_as_store_errors(shown):
        try:
            size = system.info(place)["size"]
        except FileNotFoundError:
            return False
    return size == path.stat().st_size and _sha256_at(system, place, shown) == _sha256_of(path)


def _send(system: Any, path: Path, place: str, shown: str) -> None:
    """Raises StoreCorrupt if what is there then is not the file."""
    whole = _is_object_store(system)
    written = place if whole else f"{place}.partial"
    with raised_as_store_errors(shown):
        if not whole:
            system.makedirs(place.rpartition("/")[0], exist_ok=True)
        system.put_file(str(path), written)
        system.invalidate_cache()
    came, expected = _sha256_at(system, written, shown), _sha256_of(path)
    if came != expected:
        raise StoreCorrupt(f"{shown}: sent with the sha256 {expected}, read back as {came}; copy it again")
    if not whole:
        with raised_as_store_errors(shown):
            system.mv(written, place)


def _withdraw(system: Any, place: str, shown: str) -> None:
    """A night that was whole, and is sent anew, is not whole meanwhile."""
    with raised_as_store_errors(shown):
        if system.exists(place):
            system.rm_file(place)


def _is_object_store(system: Any) -> bool:
    protocols = (system.protocol,) if isinstance(system.protocol, str) else system.protocol
    return any(protocol in OBJECT_STORES for protocol in protocols)


def _sha256_at(system: Any, place: str, shown: str) -> str:
    with raised_as_store_errors(shown), system.open(place, "rb", block_size=BLOCK_BYTES) as stream:
        return _digest(stream.read)


def _sha256_of(path: Path) -> str:
    with path.open("rb") as stream:
        return _digest(stream.read)


def _digest(read: Callable[[int], bytes]) -> str:
    digest = hashlib.sha256()
    while block := read(BLOCK_BYTES):
        digest.update(block)
    return digest.hexdigest()
