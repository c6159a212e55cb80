"""The nights of a place that are looked at: of few at a time the stores are open."""

import threading
from collections import OrderedDict
from pathlib import Path

from storage import StoreError
from tasks.browse.live_night import LiveNight
from tasks.browse.places import NightLine, find_place

__all__ = ["ShownNights"]

MOST_OPEN = 4


class ShownNights:
    """start: the night that was asked for, "" for all of the place. shown, root, has_list, note: of the place."""

    def __init__(self, place: str) -> None:
        """place: a root, a night's folder, a store, or an address. Raises StoreError as open_store does."""
        self._lock = threading.Lock()
        self._open: OrderedDict[str, tuple[object, LiveNight]] = OrderedDict()
        self._images: dict[str, str] = {}
        self._place, self.start = find_place(place)

    @property
    def shown(self) -> str:
        return self._place.shown

    @property
    def root(self) -> Path | None:
        return self._place.root

    @property
    def has_list(self) -> bool:
        return self._place.has_list

    @property
    def note(self) -> str:
        return self._place.note

    def lines(self) -> list[NightLine]:
        """The nights, newest first. Raises StoreUnreachable for an address that does not answer."""
        return self._place.lines()

    def open(self, night_id: str) -> LiveNight:
        """The night of that id. It stays open while it is one of the last that were asked for.

        Raises StoreNotFound for a night that is not there, and StoreError for one whose store cannot be opened.
        """
        with self._lock:
            # What was pruned or written anew is let go, whichever it is: its file would keep its room on the disk.
            for known_id in [each for each, (stamp, _) in self._open.items() if stamp != self._place.stamp(each)]:
                del self._open[known_id]
            known = self._open.get(night_id)
            if known is None:
                stamp = self._place.stamp(night_id)  # before it is read: what is written meanwhile has another
                known = self._open[night_id] = stamp, LiveNight(self._place.open(night_id), night_id, self.root)
            self._open.move_to_end(night_id)
            # Who still reads a store that goes keeps it open: it is closed with its last reader.
            while len(self._open) > MOST_OPEN:
                self._open.popitem(last=False)
            return known[1]

    def others(self, night_id: str) -> list[NightLine]:
        """The nights that explain the same images and can be looked at, without this one."""
        if not self.has_list:
            return []
        mine = self.open(night_id).store.attributes["dataset_sha256"]
        return [
            line
            for line in self.lines()
            if line.can_open and line.id != night_id and (line.images or self._images_of(line.id)) == mine
        ]

    def _images_of(self, night_id: str) -> str | None:
        """The fingerprint of a night's images; None where its store cannot be opened, of which its own page says why."""
        if night_id not in self._images:
            try:
                with self._place.open(night_id) as store:
                    self._images[night_id] = str(store.attributes["dataset_sha256"])
            except StoreError:
                return None
        return self._images[night_id]
