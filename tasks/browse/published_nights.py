"""The nights at an address, ADDRESS/nights/<id>/..., as `run.publish_to` and `nightlens publish` leave them.

A night without night.json is not whole there. The record of a whole one is read once: a published night does not change.
Needs the extra `remote`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from storage.errors import StoreError, StoreNotFound
from storage.file.catalog import LATEST, SAFE_NAME, STORE_NAME, night_in_text
from storage.nights.night_entries import night_began
from storage.nights.night_records import NIGHT_RECORD, checked_result, parsed_json
from storage.read.remote.address import no_collection
from storage.read.remote.refusals import raised_as_store_errors, without_secrets

__all__ = ["PublishedNight", "PublishedNights", "split_night"]

_NIGHT = re.compile(rf"(?P<root>.+)/nights/(?P<night>{SAFE_NAME.pattern})(?:/{re.escape(STORE_NAME)})?")


def split_night(address: str) -> tuple[str, str]:
    """The address of a root and the id of a night, where an address names a night below a root; else itself and ""."""
    found = _NIGHT.fullmatch(address.rstrip("/"))
    return (found["root"], found["night"]) if found else (address.rstrip("/"), "")


@dataclass(frozen=True)
class PublishedNight:
    """One night at an address. record: what its night.json says, empty where note says why there is nothing.

    is_whole: whether there is a night.json, which is copied last.
    """

    id: str
    is_whole: bool = True
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
        self._records: dict[str, PublishedNight] = {}
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
            with raised_as_store_errors(self.shown), no_collection():
                self._system.invalidate_cache()
                found = self._system.ls(f"{self._path}/nights", detail=False)
        except StoreNotFound:
            return []
        names = {str(path).rstrip("/").rpartition("/")[2] for path in found}
        return sorted((name for name in names if SAFE_NAME.fullmatch(name)), reverse=True)

    def read(self) -> list[PublishedNight]:
        """All of them, newest first. A record that cannot be read is that night's note. Raises StoreUnreachable as ids does."""
        ids = self.ids()
        places = {night_id: f"{self._path}/nights/{night_id}/{NIGHT_RECORD}" for night_id in ids}
        pointer = f"{self._path}/{LATEST}"
        missing = [place for night_id, place in places.items() if night_id not in self._records]
        with raised_as_store_errors(self.shown), no_collection():
            # All at once; what goes wrong with one is returned in its place.
            texts = self._system.cat([pointer, *missing], on_error="return") if ids else {}
        text = texts.get(pointer)
        named = night_in_text(text) if isinstance(text, bytes) else None
        nights = []
        for night_id in ids:
            night = self._records.get(night_id) or self._read(night_id, texts[places[night_id]])
            nights.append(replace(night, is_latest=night_id == named))
        return nights

    def _read(self, night_id: str, text: bytes | Exception) -> PublishedNight:
        if isinstance(text, FileNotFoundError):
            return PublishedNight(
                night_id, is_whole=False, note="its copy was cut: `nightlens publish` goes on with it"
            )
        try:
            with raised_as_store_errors(f"{self.shown}/nights/{night_id}"):
                if not isinstance(text, bytes):
                    raise text
            record = checked_result(parsed_json(NIGHT_RECORD, text))
        except StoreError as error:
            return PublishedNight(night_id, note=str(error))
        self._records[night_id] = PublishedNight(night_id, record=record)
        return self._records[night_id]
