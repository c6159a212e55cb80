"""Where nights are looked at: a root on this machine, the nights at an address, or one store by itself."""

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from storage import AttributionStore, Catalog, StoreNotFound, StoreUnreachable, open_store, resolve_store
from storage.file.catalog import SAFE_NAME, STORE_NAME
from storage.nights.night_entries import NightEntry, read_nights
from storage.nights.night_records import NIGHT_RECORD
from storage.read.remote.address import is_address, local_path
from storage.read.remote.refusals import without_secrets
from tasks.browse.published_nights import PublishedNight, PublishedNights, split_night

__all__ = ["NightLine", "Place", "find_place"]


@dataclass(frozen=True)
class NightLine:
    """A night in the list. can_open: whether there is a sealed store to look at.

    n_rows, accuracy, relevance_gain, began, and images, their fingerprint: None where nothing is known of them.
    """

    id: str
    state: str
    can_open: bool
    began: datetime | None = None
    n_rows: int | None = None
    accuracy: float | None = None
    relevance_gain: float | None = None
    warnings: tuple[str, ...] = ()
    is_latest: bool = False
    is_pinned: bool = False
    note: str = ""
    images: str | None = None

    @property
    def title(self) -> str:
        """For people."""
        began = f"{self.began:%d %b %Y, %H:%M} UTC" if self.began else self.id
        right = f", accuracy {self.accuracy:.1%}" if self.accuracy is not None else ""
        return f"{began}{right}"


class Place(Protocol):
    """shown: for people. root: on this machine, where it is one. has_list: whether there are other nights, or may be.

    note: what a person is to know who asked for it.
    """

    shown: str
    root: Path | None
    has_list: bool
    note: str

    def lines(self) -> list[NightLine]:
        """The nights, newest first."""

    def open(self, night_id: str) -> AttributionStore:
        """The store of the night of that id. Raises StoreNotFound for one that is not there, StoreError as open_store does."""

    def stamp(self, night_id: str) -> object:
        """What differs once a night's store or record was written anew."""


def find_place(place: str) -> tuple[Place, str]:
    """The place, and the id of the night that was asked for, "" for all.

    place: a root, a night's folder, a store, or an address of one of these. Raises StoreError as open_store does.
    """
    if not is_address(place):
        return _on_this_machine(Path(place).expanduser())
    local = local_path(place)
    return _at_address(place) if local is None else _on_this_machine(Path(local))


def _on_this_machine(path: Path) -> "tuple[Place, str]":
    if Catalog(path).nights.is_dir():
        return LocalRoot(path.resolve()), ""
    file = resolve_store(path).resolve()
    if file.parent.parent.name == Catalog(path).nights.name and SAFE_NAME.fullmatch(file.parent.name):
        return LocalRoot(file.parents[2]), file.parent.name
    alone = OneStore(str(file))
    return alone, alone.night_id


def _at_address(address: str) -> "tuple[Place, str]":
    root, night_id = split_night(address)
    note = ""
    # An address with a query is signed, for one object.
    if "?" not in address and (night_id or not address.endswith(".h5")):
        nights = PublishedNights(root)
        try:
            known = nights.ids()
        except StoreUnreachable as error:
            # Who may read a store may not always list others; if nobody answers, opening it will say so.
            known, note = [], f"other nights cannot be listed: {str(error).partition('; ')[0]}"
        if night_id in known or (known and not night_id):
            return PublishedRoot(nights), night_id
    alone = OneStore(address, note)
    return alone, alone.night_id


class LocalRoot:
    """A root on this machine."""

    has_list, note = True, ""

    def __init__(self, root: Path) -> None:
        self.root: Path | None = root
        self.shown = str(root)
        self._catalog = Catalog(root)

    def lines(self) -> list[NightLine]:
        return [_local_line(night) for night in read_nights(self._catalog)]

    def open(self, night_id: str) -> AttributionStore:
        if night_id not in {night.id for night in read_nights(self._catalog)}:
            raise _no_night(night_id, self.shown)
        return open_store(self._catalog.night_dir(night_id))

    def stamp(self, night_id: str) -> object:
        folder = self._catalog.night_dir(night_id)
        return _stamp(folder / STORE_NAME, folder / NIGHT_RECORD)


class PublishedRoot:
    """The nights at an address."""

    root: Path | None = None
    has_list, note = True, ""

    def __init__(self, nights: PublishedNights) -> None:
        self.shown = nights.shown
        self._nights = nights

    def lines(self) -> list[NightLine]:
        return [_published_line(night) for night in self._nights.read()]

    def open(self, night_id: str) -> AttributionStore:
        try:
            return open_store(self._nights.store_address(night_id))
        except StoreNotFound:
            raise _no_night(night_id, self.shown) from None

    def stamp(self, night_id: str) -> object:
        return self._nights.stamp(night_id)


class OneStore:
    """A store by itself, by its path or address."""

    root: Path | None = None
    has_list = False

    def __init__(self, path: str, note: str = "") -> None:
        self.shown, self.note = without_secrets(path), note
        self._path = path
        store = open_store(path)
        self.night_id = _plain(store.attributes["run_id"])
        # The first to ask gets this one: what an address such as a root's names may be another night by then.
        self._opened = store if is_address(path) else None
        if self._opened is None:
            store.close()

    def lines(self) -> list[NightLine]:
        return [NightLine(self.night_id, "sealed", can_open=True)]

    def open(self, night_id: str) -> AttributionStore:
        if night_id != self.night_id:
            raise StoreNotFound(f"there is no night {night_id!r} here; there is {self.night_id!r}")
        opened, self._opened = self._opened, None
        return open_store(self._path) if opened is None else opened

    def stamp(self, night_id: str) -> object:
        return () if is_address(self._path) else _stamp(Path(self._path))


def _local_line(night: NightEntry) -> NightLine:
    return NightLine(
        id=night.id,
        state="sealed, not audited" if night.has_store and night.state != "sealed" else night.state,
        can_open=night.has_store and _is_plain(night.id),
        began=night.began,
        n_rows=night.n_rows,
        accuracy=night.accuracy,
        relevance_gain=night.relevance_gain,
        warnings=night.warnings,
        is_latest=night.is_latest,
        is_pinned=night.is_pinned,
        note=night.note,
    )


def _published_line(night: PublishedNight) -> NightLine:
    record = night.record
    return NightLine(
        id=night.id,
        state=night.state,
        can_open=night.state != "not whole",
        began=night.began,
        n_rows=record.get("n_rows"),
        accuracy=record.get("accuracy"),
        relevance_gain=record.get("relevance_gain"),
        warnings=tuple(str(warning["kind"]) for warning in record.get("warnings", ())),
        is_latest=night.is_latest,
        note=night.note,
        images=record.get("dataset_sha256") or None,
    )


def _no_night(night_id: str, shown: str) -> StoreNotFound:
    return StoreNotFound(f"there is no night {night_id!r} in {shown}; the list of nights says which there are")


def _stamp(*files: Path) -> object:
    return tuple((stat.st_mtime_ns, stat.st_size) if (stat := _stat(file)) else None for file in files)


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _is_plain(night_id: str) -> bool:
    return bool(SAFE_NAME.fullmatch(night_id))


def _plain(run_id: object) -> str:
    """What a store by itself is asked for by: its night's id, if that can be a part of an address."""
    return str(run_id) if _is_plain(str(run_id)) else "store"
