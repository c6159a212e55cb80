"""The artifact `explanations`: a bar of the rows that are explained, and beside it how fast and how much longer.

A row counts as soon as it is explained, also in a part that is not written yet; such rows are told apart, because a crash
would lose them. Made in the flow's run, moved every few seconds. Where the server will not take it, the night goes on.
"""

import threading
import time
from functools import partial
from typing import cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from tasks.night.outage import upload

__all__ = ["Explanations"]

KEY = "explanations"
UPDATE_S = 2.0
LOOK_FOR = "Look for a bar that moves and no failed parts."


class Explanations:
    """The artifact while parts run. `hear` may be called from any thread, the rest by the flow."""

    def __init__(self, n_rows: int, n_parts: int):
        self.n_rows, self.n_parts = n_rows, n_parts
        self._n_written = self._n_reused = self._parts_done = self._parts_failed = 0
        self._inside: dict[int, int] = {}
        self._ended: set[int] = set()
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._next_update = self._began + UPDATE_S
        self._id: UUID | None = None
        self._upload()

    def hear(self, start: int, done: int) -> None:
        """Of the part in work from row `start`, `done` rows are explained."""
        with self._lock:
            if start not in self._ended:
                self._inside[start] = done

    def finish(self, start: int, stop: int, *, failed: bool, reused: bool) -> None:
        """The part of rows start to stop is written, was there already, or failed."""
        with self._lock:
            self._ended.add(start)
            self._inside.pop(start, None)
            self._parts_failed += failed
            self._parts_done += not failed
            self._n_written += 0 if failed else stop - start
            self._n_reused += stop - start if reused else 0

    @property
    def percent(self) -> float:
        return 100 * (self._n_written + sum(self._inside.values())) / self.n_rows

    def describe(self) -> str:
        """What the bar shows, in words."""
        in_work = sum(self._inside.values())
        seconds, computed = time.monotonic() - self._began, self._n_written - self._n_reused + in_work
        found = [f"{self._n_written:,} of {self.n_rows:,} rows written in {self._parts_done} of {self.n_parts} parts"]
        if self._inside:
            found.append(f"{in_work:,} more explained in {len(self._inside)} parts that are in work")
        if self._parts_failed:
            found.append(f"**{self._parts_failed} parts failed**")
        if computed and seconds > 1:
            rate = computed / seconds
            left_s = (self.n_rows - self._n_written - in_work) / rate
            found.append(f"{rate:,.1f} images/s")
            found.append(f"about {left_s / 60:,.0f} min left" if left_s > 90 else f"about {left_s:,.0f} s left")
        return f"{'; '.join(found)}. {LOOK_FOR}"

    def update(self, *, last: bool = False) -> None:
        """Moves the bar, if it is time to."""
        if time.monotonic() >= self._next_update or last:
            self._upload()
            self._next_update = time.monotonic() + UPDATE_S

    def _upload(self) -> None:
        with self._lock:
            send = partial(self._send, self.percent, self.describe())
        upload(f"artifact {KEY}", send)

    def _send(self, percent: float, description: str) -> None:
        if self._id is None:
            self._id = cast(UUID, create_progress_artifact(percent, key=KEY, description=description))
        else:
            update_progress_artifact(self._id, progress=percent, description=description)
