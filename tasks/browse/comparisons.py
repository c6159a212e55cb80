"""Pages of two nights: each is computed in the background, one at a time, for both nights are read whole."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from storage import AttributionStore
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
    """share: of the reading that is done, 0 to 1. page: HTML, to be had where `done`; raises what was wrong."""

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
        """The comparison of two nights by their ids; it begins when it is first asked for, and again where it failed.

        Raises StoreError for a night that cannot be opened.
        """
        one, other = self._nights.open(before).store, self._nights.open(after).store
        with self._lock:
            known = self._kept.get((before, after))
            if known is None:
                known = Comparison()
                known.page = self._worker.submit(self._compare, one, other, known)
                self._kept[before, after] = known
            elif known.page.done() and known.page.exception():
                del self._kept[before, after]  # it is said once, and the next request tries again
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
            return known

    def close(self) -> None:
        """What runs ends soon, and nothing begins any more."""
        self._closing.set()
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _compare(self, before: AttributionStore, after: AttributionStore, comparison: Comparison) -> str:
        def advance(share: float) -> None:
            if self._closing.is_set():
                raise InterruptedError("browse was stopped")
            comparison.share = share

        return _page_of(before, after, advance)


def _page_of(before: AttributionStore, after: AttributionStore, advance: Callable[[float], None]) -> str:
    found = compare_stores(before, after, advance)
    drift = read_worth(after)[0].drift
    floor = drift.floor if drift and same_settings(before, after) else DriftFloor()
    return comparison_page(before, after, found, floor, MOVED_ROWS, live=True)
