"""The nights at an address, ADDRESS/nights/<id>/..., as `run.publish_to` and `nightlens publish` leave them.

What is there is asked for again after a while: night.json is copied last, and a night that is sent anew loses its own first. Only
folders named as nights are such: servers' pages of links, and what lies beside, name much else. Needs the extra `remote`.
"""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, TypeVar

from storage import StoreCorrupt, StoreError, StoreNotFound
from storage.file.catalog import LATEST, POINTER_BYTES, SAFE_NAME, STORE_NAME, night_in_text
from storage.nights.night_entries import night_began
from storage.nights.night_records import NIGHT_RECORD, checked_result, parsed_json
from storage.read.remote.address import no_collection
from storage.read.remote.refusals import raised_as_store_errors, without_secrets

__all__ = ["PublishedNight", "PublishedNights", "split_night"]

RECORD_KEPT_S, STAMP_KEPT_S = 60.0, 10.0
MOST_RECORD_BYTES = 1 << 20
NOT_WHOLE = "being copied, or the copy was cut: then `nightlens publish` goes on with it"
_NIGHT = re.compile(rf"(?P<root>.+)/nights/(?P<night>{SAFE_NAME.pattern})(?:/{re.escape(STORE_NAME)})?")
# What of a file's entry differs once it was written anew, by the names that file systems give it.
_VERSION = ("size", "ETag", "etag", "LastModified", "last_modified", "mtime", "updated", "created")

State = Literal["sealed", "not whole", "not read", "damaged"]
Value = TypeVar("Value")


def split_night(address: str) -> tuple[str, str]:
    """The address of a root and the id of a night, where an address names a night below a root; else itself and ""."""
    found = _NIGHT.fullmatch(address.rstrip("/"))
    if found and night_began(found["night"]):
        return found["root"], found["night"]
    return address.rstrip("/"), ""


@dataclass(frozen=True)
class PublishedNight:
    """One night at an address. record: what its night.json says, empty where note says why there is nothing.

    state: "not whole" without a night.json, "not read" if that could not be had just now, "damaged" if it is none.
    """

    id: str
    state: State
    is_latest: bool = False
    record: Mapping[str, Any] = field(default_factory=dict, repr=False)
    note: str = ""

    @property
    def began(self) -> datetime | None:
        return night_began(self.id)


class PublishedNights:
    """The nights below an address."""

    def __init__(self, address: str) -> None:
        """Raises StoreError for an address of no kind that fsspec knows."""
        self.address = address.rstrip("/")
        self.shown = without_secrets(self.address)
        self._records: dict[str, tuple[float, PublishedNight]] = {}
        self._stamps: dict[str, tuple[float, object]] = {}
        with raised_as_store_errors(self.shown):
            import fsspec

            self._system, self._path = fsspec.core.url_to_fs(self.address)

    def store_address(self, night_id: str) -> str:
        """Where that night's store is. Raises StoreNotFound for an id that is no plain name."""
        if not SAFE_NAME.fullmatch(night_id):
            raise StoreNotFound(f"there is no night {night_id!r} at {self.shown}")
        return f"{self.address}/nights/{night_id}/{STORE_NAME}"

    def ids(self) -> list[str]:
        """Newest first; none where there is no such folder, and where a server of files shows no list of them.

        Raises StoreUnreachable where nobody answers, or refuses.
        """
        try:
            found = self._ask(lambda: self._system.ls(f"{self._path}/nights", detail=False))
        except StoreNotFound:
            return []
        names = {str(path).rstrip("/").rpartition("/")[2] for path in found}
        return sorted((name for name in names if SAFE_NAME.fullmatch(name) and night_began(name)), reverse=True)

    def read(self) -> list[PublishedNight]:
        """All of them, newest first. What is wrong with a record is that night's note. Raises StoreUnreachable as ids does."""
        ids, now = self.ids(), time.monotonic()
        if not ids:
            return []
        # Several threads may ask: each goes by what it has taken itself, and leaves it whole.
        records, fresh_since = self._records, now - RECORD_KEPT_S
        known = {each: records[each] for each in ids if each in records and records[each][0] > fresh_since}
        missing = [night_id for night_id in ids if night_id not in known]
        pointer, *texts = self._texts([f"{self._path}/{LATEST}", *map(self._record_path, missing)])
        latest = night_in_text(pointer[:POINTER_BYTES]) if isinstance(pointer, bytes) else None
        read = dict(zip(missing, map(self._read, missing, texts), strict=True))
        self._records = known | {each: (now, night) for each, night in read.items() if night.state == "sealed"}
        nights = [read.get(night_id) or known[night_id][1] for night_id in ids]
        return [replace(night, is_latest=night.id == latest) for night in nights]

    def stamp(self, night_id: str) -> object:
        """What differs once a night was sent anew; looked for every STAMP_KEPT_S, and as it was where nobody answers."""
        now = time.monotonic()
        looked, stamp = self._stamps.get(night_id, (-STAMP_KEPT_S, None))
        if now - looked >= STAMP_KEPT_S:
            try:
                found = self._ask(lambda: self._system.info(self._record_path(night_id)))
                stamp = tuple(str(found.get(name)) for name in _VERSION)
            except StoreNotFound:
                stamp = None
            except StoreError:
                pass
            self._stamps[night_id] = now, stamp
        return stamp

    def _record_path(self, night_id: str) -> str:
        return f"{self._path}/nights/{night_id}/{NIGHT_RECORD}"

    def _ask(self, request: Callable[[], Value]) -> Value:
        """What the file system answers now, and not what it remembers."""
        with raised_as_store_errors(self.shown), no_collection():
            self._system.invalidate_cache()
            return request()

    def _texts(self, paths: list[str]) -> list[bytes | Exception]:
        """What is in some files, all asked for at once; what went wrong with one is in its place."""
        texts: list[bytes | Exception] = self._ask(
            lambda: self._system.cat_ranges(paths, 0, MOST_RECORD_BYTES, on_error="return")
        )
        return texts

    def _read(self, night_id: str, text: bytes | Exception) -> PublishedNight:
        try:
            with raised_as_store_errors(f"{self.shown}/nights/{night_id}/{NIGHT_RECORD}"):
                if isinstance(text, Exception):
                    raise text
            return PublishedNight(night_id, "sealed", record=checked_result(parsed_json(NIGHT_RECORD, text)))
        except StoreNotFound:
            return PublishedNight(night_id, "not whole", note=NOT_WHOLE)
        except StoreCorrupt as error:
            return PublishedNight(night_id, "damaged", note=str(error))
        except StoreError as error:
            return PublishedNight(night_id, "not read", note=str(error))
