"""Pages of two nights: each is computed in the background, one at a time, for both nights are read whole."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from tasks.browse.live_night import LiveNight
from tasks.browse.shown_nights import ShownNights
from tasks.report.sections.recorded_worth import read_worth
from tasks.report.two_stores import comparison_page
from tasks.worth.drift.night_drift import DriftFloor
from tasks.worth.drift.store_drift import compare_stores, same_settings

__all__ = ["Comparison", "Comparisons"]

MOST_KEPT = 4
MOVED_ROWS = 12


@dataclass
class Comparison:
    """share: of the reading that is done, 0 to 1. page: HTML, to be had where `done`; raises what was wrong.

    nights: as they were open when it began.
    """

    nights: tuple[LiveNight, LiveNight]
    share: float = 0.0
    page: Future[str] = field(default_factory=Future)


class Comparisons:
    """The comparisons that were asked for, the last few of them kept."""

    def __init__(self, nights: ShownNights) -> None:
        self._nights = nights
        self._lock, self._closing = threading.Lock(), threading.Event()
        self._worker = ThreadPoolExecutor(1, "comparison")
        self._kept: OrderedDict[tuple[str, str], Comparison] = OrderedDict()

    def of(self, before: str, after: str) -> Comparison:
        """The comparison of two nights by their ids. It begins when first asked for, and anew once a night was written anew.

        Raises StoreError for a night that cannot be opened, ValueError where too many comparisons wait already.
        """
        nights = self._nights.open(before), self._nights.open(after)
        with self._lock:
            known = self._kept.get((before, after))
            if known is None or known.nights != nights:
                self._make_room()
                known = self._kept[before, after] = Comparison(nights)
                known.page = self._worker.submit(self._compare, known)
            elif known.page.done() and known.page.exception():
                del self._kept[before, after]  # it is said once, and the next request tries again
            else:
                self._kept.move_to_end((before, after))
            return known

    def _make_room(self) -> None:
        """Lets the comparison go that was asked for longest ago, of those that are done."""
        if len(self._kept) < MOST_KEPT:
            return
        done = next((pair for pair, comparison in self._kept.items() if comparison.page.done()), None)
        if done is None:
            raise ValueError(f"{MOST_KEPT} comparisons are being made; come back when one of them is done")
        del self._kept[done]

    def close(self) -> None:
        """What runs ends soon, and nothing begins any more."""
        self._closing.set()
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _compare(self, comparison: Comparison) -> str:
        def advance(share: float) -> None:
            if self._closing.is_set():
                raise InterruptedError("browse was stopped")
            comparison.share = share

        return _page_of(*comparison.nights, advance)


def _page_of(one: LiveNight, other: LiveNight, advance: Callable[[float], None]) -> str:
    before, after = one.store, other.store
    found = compare_stores(before, after, advance)
    drift = read_worth(after)[0].drift
    floor = drift.floor if drift and same_settings(before, after) else DriftFloor()
    return comparison_page(before, after, found, floor, MOVED_ROWS, links=(one.id, other.id))
