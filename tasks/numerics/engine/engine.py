"""The engine of a device: rows of any number of callers, in batches that stay full until the last row is done.

Whoever calls `integrate` hands over rows and waits. One of those who wait drives: it takes step after step for all of them until
its own rows are done, and another one goes on. Rows begin as others finish, and nodes of rows that have begun come first, so
that few rows are in flight. Each row's nodes are the same whatever its company, its attribution to rounding. Where callers do
not share batches, one call after another is computed, and its numbers depend on its own rows alone, to the bit.

A batch that does not fit into the device's memory is halved for good. Where rows in flight have all slots and all of them wait
for more, the row that began last gives way and begins again later; a row that all slots are too few for is an error.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tasks.numerics.engine.adaptive import Lanes, Panels, Sums
from tasks.numerics.engine.buffers import PADDING, Buffers, TargetGradients
from tasks.numerics.engine.fixed import Weighted
from tasks.numerics.engine.slots import Slots
from tasks.numerics.engine.work import Pending, RowTooLarge, Work
from tasks.numerics.integrated_gradients import Attributions, completeness_gap, relative_error, within
from tasks.numerics.network.compiled import LARGEST_TENSOR, SMALL_BATCHES, Report
from tasks.numerics.quadrature import Adaptive, Rule, Tolerances

__all__ = ["Engine"]

BATCHES_OF_SLOTS = 16  # slots for so many batches, and for one row that needs all its nodes
TOO_LARGE = (tf.errors.ResourceExhaustedError, MemoryError)

logger = logging.getLogger(__name__)


class Engine:
    """Integrated Gradients of a score by one rule, on one device.

    gradients: as of `Buffers`. shape: of the images, (y, x, channel). batch_size: points in a call of `gradients`.
    memory_bytes: for the vectors of nodes. shared: whether rows of several calls are in one batch. on_halving: called
    with a line when a batch was halved; to Python's log by default.
    """

    def __init__(
        self,
        gradients: TargetGradients,
        shape: tuple[int, ...],
        *,
        rule: Rule,
        tolerances: Tolerances,
        batch_size: int,
        memory_bytes: float,
        shared: bool = True,
        on_halving: Report | None = None,
    ):
        self._gradients, self._shape, self._rule, self._tolerances = gradients, shape, rule, tolerances
        self.batch_size, self._memory_bytes, self._shared = batch_size, memory_bytes, shared
        self._report = on_halving or logger.warning
        self._works: list[Work] = []
        self._changed, self._is_driven = threading.Condition(), False
        self._buffers: Buffers | None = None
        self._is_full = False  # whether the device had no room for the nodes that memory_bytes allows

    def integrate(
        self,
        images: NDArray,
        baselines: NDArray,
        targets: NDArray,
        score: NDArray,
        score_baseline: NDArray,
        end_gradients: NDArray,
        on_progress: Callable[[int], object] | None = None,
    ) -> Attributions:
        """Attributions of every row, with certificates; called from any thread.

        images, baselines: (row, y, x, channel). targets: (row,). score, score_baseline: (row,), F_t(x) and F_t(x').
        end_gradients: dF_t/dx at the images, (row, y, x, channel). on_progress: called with how many rows are done, whenever
        it is more, in the caller's thread.
        Raises ValueError if the row counts differ, MemoryError if a row does not fit.
        """
        counts = {len(array) for array in (images, baselines, targets, score, score_baseline, end_gradients)}
        if len(counts) > 1:
            raise ValueError(f"images, baselines, targets and scores must have one row each, got {sorted(counts)} rows")
        n = len(images)
        result = Attributions.empty(n, images.shape[1:], score, score_baseline)
        images, baselines, ends = (a.astype(np.float32, copy=False) for a in (images, baselines, end_gradients))
        waiting = list(range(n - 1, -1, -1))
        work = Work(images, baselines, targets.astype(np.int32), ends, result, on_progress, waiting)
        with self._changed:
            self._works.append(work)
        try:
            while not work.is_done:
                with self._driving(work) as drives:
                    while drives and not work.is_done:
                        self._step()
                        work.report()
                work.report()
        finally:
            with self._changed:
                self._works.remove(work)
        if work.failure:
            raise work.failure
        return result

    @contextmanager
    def _driving(self, work: Work) -> Iterator[bool]:
        """Waits until rows are done, or nobody drives: then this caller does. If it fails, all rows in flight begin again."""
        with self._changed:
            self._changed.wait_for(lambda: work.is_done or work.n_done > work.n_reported or not self._is_driven)
            drives = not self._is_driven and not work.is_done
            self._is_driven |= drives
        if not drives:
            yield False
            return
        try:
            yield True
        except BaseException:
            self._forget()
            raise
        finally:
            with self._changed:
                self._is_driven = False
                self._changed.notify_all()

    def _forget(self) -> None:
        """Every row in flight waits again, and the state is made anew when somebody drives on."""
        if self._buffers is not None:
            for lane in np.flatnonzero(self._order >= 0):
                self._work[lane].waiting.append(int(self._row[lane]))
            self._buffers.close()
            self._buffers = None
            del self._rows

    def _begin(self) -> None:
        """Makes the state: as many slots as are useful, or fit."""
        rule, image_bytes = self._rule, 4 * int(np.prod(self._shape))
        n_lanes, adaptive = self.batch_size + 1, isinstance(rule, Adaptive)
        needed = BATCHES_OF_SLOTS * self.batch_size + rule.n_max if isinstance(rule, Adaptive) else 0
        least = 2 * rule.n_start + 1 if isinstance(rule, Adaptive) else 0
        addressed = LARGEST_TENSOR // int(np.prod(self._shape)) - PADDING - 1
        n_slots = PADDING + 1 + max(least, min(needed, addressed, int(self._memory_bytes // image_bytes)))
        while True:
            try:
                buffers = Buffers(self._gradients, self._shape, n_lanes, n_slots)
                break
            except TOO_LARGE:
                if not adaptive or n_slots // 2 < least:
                    raise
                n_slots //= 2
                self._is_full = True
            self._report(f"vectors of {2 * n_slots} nodes do not fit into the device's memory; going on with {n_slots}")
        self._rows: Panels | Weighted = (
            Panels(rule, self._tolerances, buffers, n_lanes, n_slots)
            if isinstance(rule, Adaptive)
            else Weighted(rule, buffers, n_lanes)
        )
        self._buffers = buffers
        self._lanes, self._pending = Slots(n_lanes, 1), Pending()
        self._work = np.empty(n_lanes, object)
        self._row, self._missing = np.zeros((2, n_lanes), np.int64)
        self._order, self._n_begun = np.full(n_lanes, -1), 0
        self._stalled = np.zeros(0, np.int32)

    def _step(self) -> None:
        """One batch. What does not fit beside its gradients has all rows in flight begin again, in batches of half the size."""
        try:
            self._advance()
            return
        except TOO_LARGE as error:
            cause = MemoryError(str(error))
        # Not within the `except`: what is raised has the state in its frames, and with it the memory that is needed.
        self._forget()
        self._halve(cause)

    def _advance(self) -> None:
        """Nodes are computed, rows that have theirs are judged, and finish or ask for more."""
        if self._buffers is None:
            self._begin()
        if not len(self._stalled):
            self._admit()
        if not self._pending.n:
            self._make_room()
            return
        lanes, nodes = self._pending.take(self.batch_size)
        self._compute(lanes, nodes)
        np.subtract.at(self._missing, lanes, 1)
        lanes = np.unique(lanes)
        self._judge(lanes[self._missing[lanes] == 0])

    def _admit(self) -> None:
        """Rows begin, of who came first, as far as a batch has room for their nodes."""
        rows = self._rows
        wanted = -(-(self.batch_size - self._pending.n) // rows.n_waiting)
        n = min(wanted, self._lanes.n_free, max(rows.room, not len(self._in_flight())))
        with self._changed:
            works = [work for work in self._works if not work.is_done]
        for work in works if self._shared else works[:1]:
            if n <= 0 or not work.waiting:
                continue
            chosen = [work.waiting.pop() for _ in range(min(n, len(work.waiting)))]
            n -= len(chosen)
            self._admit_rows(work, np.array(chosen))

    def _admit_rows(self, work: Work, chosen: NDArray[np.int64]) -> None:
        lanes, result = self._lanes.take(len(chosen)), work.result
        self._work[lanes] = work
        self._row[lanes] = chosen
        self._order[lanes] = self._n_begun + np.arange(len(lanes))
        self._n_begun += len(lanes)
        rows = np.stack([lanes, work.targets[chosen]])
        self._device.admit(rows, work.images[chosen], work.baselines[chosen])
        nodes = self._rows.begin(lanes, result.score[chosen], result.score_baseline[chosen], work.end_gradients[chosen])
        self._missing[lanes] = nodes.shape[1]
        self._pending.last(np.repeat(lanes, nodes.shape[1]), nodes.ravel())

    @property
    def _device(self) -> Buffers:
        assert self._buffers is not None
        return self._buffers

    def _in_flight(self) -> Lanes:
        return np.flatnonzero(self._order >= 0).astype(np.int32)

    def _compute(self, lanes: Lanes, nodes: NDArray[np.int32]) -> None:
        def compute(piece: slice) -> None:
            self._rows.compute(lanes[piece], nodes[piece], self._shape_for(piece.stop - piece.start))

        self._in_pieces(compute, len(lanes), fixed=True)

    def _shape_for(self, n: int) -> int:
        """A batch, or an eighth of one: no other shape is computed."""
        small = max(1, self.batch_size // SMALL_BATCHES)
        return small if n <= small else self.batch_size

    def _in_pieces(self, call: Callable[[slice], None], n: int, *, fixed: bool = False) -> None:
        """Calls with slices of 0 to n, in batches. fixed: those that would not fill one in eighths."""
        start = 0
        while start < n:
            small = max(1, self.batch_size // SMALL_BATCHES) if fixed else self.batch_size
            size = self.batch_size if n - start > self.batch_size - small else small
            try:
                call(slice(start, min(start + size, n)))
            except TOO_LARGE as error:
                self._halve(error)
                continue
            start += size

    def _halve(self, error: Exception) -> None:
        if self.batch_size == 1:
            raise RowTooLarge(
                "the gradients of a single image do not fit into memory; run on a larger device, or with smaller images "
                "(dataset.size)"
            ) from error
        self.batch_size //= 2
        self._report(
            f"a batch of {2 * self.batch_size} images does not fit into memory for gradients; going on with {self.batch_size}"
        )

    def _judge(self, lanes: Lanes) -> None:
        """Rows that have all nodes they asked for: done, or in need of more. Those that waited for slots ask again."""
        lanes = np.concatenate([self._stalled, lanes])
        if not len(lanes):
            return
        lanes = lanes[np.argsort(self._order[lanes])]
        sums = self._rows.settle(lanes, self._in_pieces)
        done = self._are_good(lanes, sums) | ~self._rows.can_refine(lanes)
        more = np.ones(len(lanes), bool)
        if done.any():
            more[done] = self._finish(lanes[done], sums.of(done))
        self._stalled = lanes[:0]
        if not more.any():
            return
        asking, nodes, without = self._rows.refine(lanes[more], sums.of(more))
        self._stalled = lanes[more][without]
        np.add.at(self._missing, asking, 1)
        if len(asking):
            self._pending.first(asking, nodes)

    def _are_good(self, lanes: Lanes, sums: Sums) -> NDArray[np.bool_]:
        difference = self._rows.difference[lanes]
        return within(self._tolerances, sums.total - difference, relative_error(sums.change, sums.norm), difference)

    def _finish(self, lanes: Lanes, sums: Sums) -> NDArray[np.bool_]:
        """Brings attributions to the host. Returns which rows are not done after all, for their float64 sum says so."""
        (fine,) = self._device.fetch(lanes)
        difference = self._rows.difference[lanes]
        gap, error = completeness_gap(fine, difference), relative_error(sums.change, sums.norm)
        converged = within(self._tolerances, gap, error, difference)
        more = ~converged & self._rows.can_refine(lanes)
        finished = list[tuple[Work, int]]()
        for work in set(self._work[lanes[~more]]):
            mine = ~more & (self._work[lanes] == work)
            rows, result = self._row[lanes[mine]], work.result
            result.attribution[rows] = fine[mine].reshape(-1, *self._shape)
            result.gap[rows], result.quadrature_error[rows] = gap[mine], error[mine]
            result.n_gradients[rows], result.converged[rows] = self._rows.n_nodes[lanes[mine]], converged[mine]
            finished.append((work, len(rows)))
        self._release(lanes[~more])
        # Last of all: rows that are counted must not begin again, whatever fails.
        for work, n_rows in finished:
            work.n_done += n_rows
        with self._changed:
            self._changed.notify_all()
        return more

    def _release(self, lanes: Lanes) -> None:
        self._rows.release(lanes)
        self._order[lanes], self._work[lanes] = -1, None
        self._lanes.give_back(lanes)

    def _make_room(self) -> None:
        """All rows in flight wait for slots: the one that began last gives way, unless it is the only one."""
        lanes = self._in_flight()
        last = lanes[[np.argmax(self._order[lanes])]]
        work = self._work[last[0]]
        if len(lanes) > 1:
            work.waiting.append(int(self._row[last[0]]))
        else:
            room = "run on a device with more free memory" if self._is_full else "raise explanation.memory_gb"
            work.failure = RowTooLarge(
                f"a row has {self._rows.n_nodes[last[0]]} nodes, more do not fit into memory, and its tolerances ask for more; "
                f"{room}, or set integrated_gradients.n_max to that"
            )
            work.waiting.clear()
        self._stalled = self._stalled[self._stalled != last[0]]
        self._release(last)
        self._judge(last[:0])
