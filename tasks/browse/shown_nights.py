"""The nights that can be looked at: all of a root, or one store by its path or address. The stores of few are open at a time."""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage import Catalog, StoreError, StoreNotFound, open_store, resolve_store
from storage.file.catalog import SAFE_NAME, STORE_NAME
from storage.nights.night_entries import NightEntry, read_nights
from storage.nights.night_records import NIGHT_RECORD
from storage.read.remote.address import is_address
from tasks.browse.live_night import LiveNight

__all__ = ["NightLine", "ShownNights"]

MOST_OPEN = 4


@dataclass(frozen=True)
class NightLine:
    """A night in the list. title: for people. can_open: whether there is a sealed store to look at."""

    id: str
    title: str
    state: str
    can_open: bool
    entry: NightEntry | None = None


class ShownNights:
    """start: the night that was asked for, "" for all of the root."""

    def __init__(self, place: str) -> None:
        """place: a root, a night's folder, a store, or an address. Raises StoreError as open_store does."""
        self._lock = threading.Lock()
        self._open: OrderedDict[str, tuple[object, LiveNight]] = OrderedDict()
        self._images: dict[str, str] = {}
        self.root: Path | None = None
        self._place = place
        self.start = ""
        if is_address(place):
            store = open_store(place)
            self.start = _plain(store.attributes["run_id"])
            self._open[self.start] = (self._stamp(self.start), LiveNight(store, self.start, None))
            return
        path = Path(place).expanduser()
        if Catalog(path).nights.is_dir():
            self.root = path.resolve()
            return
        file = resolve_store(path).resolve()
        if file.parent.parent.name == Catalog(path).nights.name and SAFE_NAME.fullmatch(file.parent.name):
            self.root, self.start = file.parents[2], file.parent.name
            return
        with open_store(file) as store:
            self._place, self.start = str(file), _plain(store.attributes["run_id"])

    def lines(self) -> list[NightLine]:
        """The nights, newest first."""
        if self.root is None:
            return [NightLine(self.start, self.start, "sealed", True)]
        return [
            NightLine(night.id, _title(night), _state(night), night.has_store and _is_plain(night.id), night)
            for night in read_nights(Catalog(self.root))
        ]

    def open(self, night_id: str) -> LiveNight:
        """The night of that id. It stays open while it is one of the last that were asked for.

        Raises StoreNotFound for a night that is not there, and StoreError for one whose store cannot be opened.
        """
        with self._lock:
            # What was pruned or written anew is let go, whichever it is: its file would keep its room on the disk.
            for known_id in [each for each, (stamp, _) in self._open.items() if stamp != self._stamp(each)]:
                del self._open[known_id]
            known = self._open.get(night_id)
            if known is None:
                known = self._stamp(night_id), self._opened(night_id)
                self._open[night_id] = known
            self._open.move_to_end(night_id)
            # Who still reads a store that goes keeps it open: it is closed with its last reader.
            while len(self._open) > MOST_OPEN:
                self._open.popitem(last=False)
            return known[1]

    def others(self, night_id: str) -> list[NightLine]:
        """The nights that explain the same images and can be looked at, without this one."""
        if self.root is None:
            return []
        mine = self.open(night_id).store.attributes["dataset_sha256"]
        return [
            line
            for line in self.lines()
            if line.can_open and line.id != night_id and line.entry and self._images_of(line.entry) == mine
        ]

    def _images_of(self, night: NightEntry) -> str | None:
        """The fingerprint of a night's images; None where its store cannot be opened, of which its own page says why."""
        if night.id not in self._images:
            try:
                with open_store(night.folder) as store:
                    self._images[night.id] = str(store.attributes["dataset_sha256"])
            except StoreError:
                return None
        return self._images[night.id]

    def _opened(self, night_id: str) -> LiveNight:
        if self.root is None:
            if night_id != self.start:
                raise StoreNotFound(f"there is no night {night_id!r} here; there is {self.start!r}")
            return LiveNight(open_store(self._place), night_id, None)
        if night_id not in {night.id for night in read_nights(Catalog(self.root))}:
            raise StoreNotFound(
                f"there is no night {night_id!r} in {self.root}; the list of nights says which there are"
            )
        return LiveNight(open_store(Catalog(self.root).night_dir(night_id)), night_id, self.root)

    def _stamp(self, night_id: str) -> object:
        """What differs once a night's store or record was written anew."""
        if self.root is not None:
            folder = Catalog(self.root).night_dir(night_id)
            files = [folder / STORE_NAME, folder / NIGHT_RECORD]
        else:
            files = [] if is_address(self._place) else [Path(self._place)]
        return tuple((stat.st_mtime_ns, stat.st_size) if (stat := _stat(file)) else None for file in files)


def _stat(path: Path) -> Any:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _is_plain(night_id: str) -> bool:
    return bool(SAFE_NAME.fullmatch(night_id))


def _plain(run_id: object) -> str:
    """What a store by itself is asked for by: its night's id, if that can be a part of an address."""
    return str(run_id) if _is_plain(str(run_id)) else "store"


def _title(night: NightEntry) -> str:
    began = f"{night.began:%d %b %Y, %H:%M} UTC" if night.began else night.id
    right = f", accuracy {night.accuracy:.1%}" if night.accuracy is not None else ""
    return f"{began}{right}"


def _state(night: NightEntry) -> str:
    return "sealed, not audited" if night.has_store and night.state != "sealed" else night.state
