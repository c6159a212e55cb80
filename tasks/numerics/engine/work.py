"""What callers hand over to the engine, and what of it is still to be computed."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.numerics.engine.adaptive import Lanes
from tasks.numerics.integrated_gradients import Attributions

__all__ = ["Pending", "RowTooLarge", "Work"]


class RowTooLarge(MemoryError):
    """A single row does not fit, however often it is tried."""


@dataclass(eq=False)
class Work:
    """The rows of one call. waiting: those that have not begun, the next one last."""

    images: NDArray[np.float32]
    baselines: NDArray[np.float32]
    targets: NDArray[np.int32]
    end_gradients: NDArray[np.float32]
    result: Attributions
    on_progress: Callable[[int], object] | None
    waiting: list[int]
    n_done: int = 0
    n_reported: int = 0
    failure: RowTooLarge | None = None

    @property
    def is_done(self) -> bool:
        return self.failure is not None or self.n_done == len(self.images)

    def report(self) -> None:
        """Tells the caller, in its own thread, how many rows are done, where that is more than before."""
        n_before, self.n_reported = self.n_reported, self.n_done
        if self.on_progress and self.n_reported > n_before:
            self.on_progress(self.n_reported)


class Pending:
    """(lane, node) pairs that are still to be computed: refinements before rows that have just begun."""

    def __init__(self) -> None:
        self._asked: deque[tuple[Lanes, NDArray[np.int32]]] = deque()
        self.n = 0

    def last(self, lanes: Lanes, nodes: NDArray[np.int32]) -> None:
        self._asked.append((lanes, nodes))
        self.n += len(lanes)

    def first(self, lanes: Lanes, nodes: NDArray[np.int32]) -> None:
        self._asked.appendleft((lanes, nodes))
        self.n += len(lanes)

    def take(self, n: int) -> tuple[Lanes, NDArray[np.int32]]:
        """At most n pairs."""
        taken, left = [], min(n, self.n)
        self.n -= left
        while left:
            lanes, nodes = self._asked.popleft()
            if len(lanes) > left:
                self._asked.appendleft((lanes[left:], nodes[left:]))
            taken.append((lanes[:left], nodes[:left]))
            left -= len(taken[-1][0])
        lanes, nodes = (np.concatenate(parts) for parts in zip(*taken, strict=True))
        return lanes, nodes
