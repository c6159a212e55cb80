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
        self._opening: dict[str, threading.Lock] = {}
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
            opening = self._opening.setdefault(night_id, threading.Lock())
        # A night that is slow to open holds up who asks for it, and nobody else.
        with opening:
            stamp = self._place.stamp(night_id)  # before it is read: what is written meanwhile has another
            with self._lock:
                known = self._open.get(night_id)
            if known is None or known[0] != stamp:
                known = stamp, LiveNight(self._place.open(night_id), night_id, self.root)
        with self._lock:
            self._open[night_id] = known
            self._open.move_to_end(night_id)
            # Who still reads a store that goes keeps it open: it is closed with its last reader.
            while len(self._open) > MOST_OPEN:
                self._open.popitem(last=False)
        self._let_go()
        return known[1]

    def _let_go(self) -> None:
        """What was pruned or written anew is let go, whichever it is: its file would keep its room on the disk."""
        with self._lock:
            stamps = {night_id: stamp for night_id, (stamp, _) in self._open.items()}
        gone = [night_id for night_id, stamp in stamps.items() if self._place.stamp(night_id) != stamp]
        with self._lock:
            for night_id in gone:
                if self._open.get(night_id, (None,))[0] == stamps[night_id]:
                    del self._open[night_id]

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
