"""How far a long pass over a dataset is, reported to whoever asked for it.

Convention: a pass that takes less than a second reports nothing, a longer one about four times a second and at its end.
"""

import time
from collections.abc import Callable

__all__ = ["Count", "Report"]

QUIET_S = 1.0
EVERY_S = 0.25

Report = Callable[[str, int, int, float], None]
"""What is being done, images done, images in all, seconds since it began."""


class Count:
    """Counts the images of one pass. what: a word for people, such as "converting". report: None for nobody."""

    def __init__(self, what: str, total: int, report: Report | None) -> None:
        self._what, self._total, self._report = what, total, report
        self._done = 0
        self._began = time.monotonic()
        self._next = self._began + QUIET_S

    def add(self, n_images: int) -> None:
        self._done += n_images
        now = time.monotonic()
        if self._report and (now >= self._next or (self._done == self._total and now - self._began >= QUIET_S)):
            self._next = now + EVERY_S
            self._report(self._what, self._done, self._total, now - self._began)
