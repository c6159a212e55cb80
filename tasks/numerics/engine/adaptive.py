"""The adaptive trapezoid of all rows in flight: whose panels are halved, decided on the host from numbers alone.

A row's panels are a line of arrays: three slots each, the norm of the change that its middle makes, and how far its part of the
integral misses the score's difference. A halved panel makes way for its two halves at once; they count when their middles are
computed, in `settle`. What decides is quadrature.py's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from tasks.numerics.engine.buffers import BASELINE, PADDING, Buffers
from tasks.numerics.engine.slots import Slots
from tasks.numerics.quadrature import TINY, Adaptive, Tolerances, order_to_halve

__all__ = ["InPieces", "Lanes", "Panels", "Sums", "ragged"]

Lanes = NDArray[np.int32]
# Calls a function with slices of 0 to n, each as long as fits into memory.
InPieces = Callable[[Callable[[slice], None], int], None]
FIRST_WIDTH = 16  # panels a row that there is room for in the beginning


@dataclass(frozen=True)
class Sums:
    """Of some lanes: the sum of the attribution, its norm, and that of its change at half the nodes, (lane,)."""

    total: NDArray[np.float64]
    norm: NDArray[np.float64]
    change: NDArray[np.float64]

    def of(self, chosen: NDArray) -> Self:
        """Of some of the lanes. chosen: positions, or a mask."""
        return type(self)(self.total[chosen], self.norm[chosen], self.change[chosen])


class Panels:
    """The adaptive rule over `n_lanes` rows whose nodes have `n_slots` slots."""

    def __init__(self, rule: Adaptive, tolerances: Tolerances, buffers: Buffers, n_lanes: int, n_slots: int):
        self._rule, self._tolerances, self._buffers = rule, tolerances, buffers
        self._slots = Slots(n_slots, PADDING + 1)
        self._u, self._score, self._total = np.zeros((3, n_slots))  # by slot
        self.difference, self._score_baseline = np.zeros((2, n_lanes))  # by lane, as all that follows
        self.n_nodes, self._n_panels, self._n_settled, self._n_old = np.zeros((4, n_lanes), np.int64)
        self._left, self._middle, self._right = np.zeros((3, n_lanes, FIRST_WIDTH), np.int32)
        self._change, self._miss = np.zeros((2, n_lanes, FIRST_WIDTH))
        self._old = np.zeros((3, n_lanes, FIRST_WIDTH), np.int32)  # the panels that were halved last
        u = np.arange(2 * rule.n_start + 1) / (2 * rule.n_start)
        self._first_u = u if rule.exponent == 1 else u[1:]  # f has no weight at u = 0 otherwise
        self.n_waiting = len(self._first_u) - 1

    @property
    def room(self) -> int:
        """How many rows can begin: a quarter of the slots is left for those that have begun."""
        return max(0, self._slots.n_free - self._slots.n // 4) // len(self._first_u)

    def begin(
        self, lanes: Lanes, scores: NDArray, baseline_scores: NDArray, end_gradients: NDArray
    ) -> NDArray[np.int32]:
        """Rows begin. Returns the slots of the nodes that each waits for, (lane, node); that at the image is known."""
        rule, n_panels = self._rule, self._rule.n_start
        slots = self._slots.take(len(lanes) * len(self._first_u)).reshape(len(lanes), -1)
        ends = slots[:, -1]
        (self._total[ends],) = self._buffers.hold(np.stack([lanes, ends]), end_gradients, float(rule.exponent))
        self._u[slots], self._score[ends] = self._first_u, scores
        self.difference[lanes] = scores.astype(np.float64) - baseline_scores
        self._score_baseline[lanes] = baseline_scores
        path = slots if rule.exponent == 1 else np.pad(slots, ((0, 0), (1, 0)), constant_values=BASELINE)
        self._widen(n_panels)
        self._left[lanes, :n_panels], self._right[lanes, :n_panels] = path[:, :-2:2], path[:, 2::2]
        self._middle[lanes, :n_panels] = path[:, 1:-1:2]
        self.n_nodes[lanes], self._n_panels[lanes] = len(self._first_u), n_panels
        self._n_settled[lanes] = self._n_old[lanes] = 0
        return slots[:, :-1]

    def compute(self, lanes: Lanes, slots: NDArray[np.int32], size: int) -> None:
        """F and f at nodes, in one call of `size`, at most which they are."""
        u, p, n = self._u[slots], self._rule.exponent, len(lanes)
        nodes, numbers = np.zeros((2, size), np.int32), np.zeros((2, size), np.float32)
        nodes[1] = PADDING
        nodes[:, :n] = lanes, slots
        numbers[:, :n] = u**p, p * u ** (p - 1)
        scores, totals = self._buffers.nodes(nodes, numbers)
        self._score[slots], self._total[slots] = scores[:n], totals[:n]

    def settle(self, lanes: Lanes, in_pieces: InPieces) -> Sums:
        """Counts the panels whose nodes have come, and what was halved for them no more. lanes: that wait for no node."""
        starting = self._n_old[lanes] == 0
        old_position, column = ragged(self._n_old[lanes])
        old = np.vstack([self._old[:, lanes[old_position], column], old_position])
        position, column = ragged(self._n_panels[lanes] - self._n_settled[lanes])
        at = lanes[position], self._n_settled[lanes][position] + column
        new = np.stack([self._left[at], self._middle[at], self._right[at], position])
        numbers = np.stack([self._half(*new[:3:2]), np.where(starting, 1.0, -1.0)[position]])
        self._miss[at] = self._misses(at[0], *new[:3])
        old_half = self._half(*old[:3:2])[None]

        def count(piece: slice) -> None:
            # Of old panels there are at most half as many as of new ones.
            olds = slice(piece.start // 2, piece.stop // 2 if piece.stop < len(position) else len(old_position))
            present, positions = np.unique(np.concatenate([position[piece], old_position[olds]]), return_inverse=True)
            n = len(position[piece])
            here, old_here = new[:, piece].copy(), old[:, olds].copy()
            here[3], old_here[3] = positions[:n], positions[n:]
            (self._change[at[0][piece], at[1][piece]],) = self._buffers.settle(
                here, numbers[:, piece], old_here, old_half[:, olds], lanes[present]
            )

        in_pieces(count, len(position))
        self._n_settled[lanes], self._n_old[lanes] = self._n_panels[lanes], 0
        return Sums(*(values.astype(np.float64) for values in self._buffers.certificate(lanes)))

    def refine(self, lanes: Lanes, sums: Sums) -> tuple[Lanes, NDArray[np.int32], NDArray[np.bool_]]:
        """Halves panels of rows, as far as there are slots for the new nodes: of the first of `lanes` first.

        Returns the lane and the slot of each new node, and which of `lanes` had to go without.
        """
        n_panels = self._n_panels[lanes]
        width = n_panels.max()
        claims = self._claims(lanes, sums, width)
        order, n = order_to_halve(claims, n_panels, self._affordable(lanes), self._rule.refine_fraction)
        granted = 2 * np.cumsum(n) <= self._slots.n_free
        lanes, order, n, n_panels = lanes[granted], order[granted], n[granted], n_panels[granted]
        slots = self._slots.take(2 * int(n.sum()))
        if len(lanes):
            self._halve(lanes, order, n, n_panels, slots)
        return np.repeat(lanes, 2 * n), slots, ~granted

    def can_refine(self, lanes: Lanes) -> NDArray[np.bool_]:
        """Whether n_max leaves a row another node on both sides of a middle."""
        return self._affordable(lanes) > 0

    def release(self, lanes: Lanes) -> None:
        """The rows are done with, or begin again."""
        position, column = ragged(self._n_panels[lanes])
        at = lanes[position], column
        held = np.unique(np.concatenate([side[at] for side in (self._left, self._middle, self._right)]))
        self._slots.give_back(held[held != BASELINE])

    def _claims(self, lanes: Lanes, sums: Sums, width: int) -> NDArray[np.float64]:
        """How much each panel asks to be halved, (lane, panel); 0 beyond a row's panels, and where that is not a number."""
        allowed_miss = self._tolerances.gap * np.maximum(1.0, np.abs(self.difference[lanes]))
        norm = np.maximum(sums.norm, TINY)
        claims = self._change[lanes, :width] / norm[:, None] / self._tolerances.error
        claims += self._miss[lanes, :width] / allowed_miss[:, None]
        there = np.arange(width) < self._n_panels[lanes][:, None]
        return np.where(there & ~np.isnan(claims), claims, 0.0)

    def _halve(self, lanes: Lanes, order: NDArray, n: NDArray, n_panels: NDArray, slots: NDArray[np.int32]) -> None:
        """order: the panels of each lane, those to be halved first, (lane, panel). n: how many are. slots: for the new nodes."""
        position, column = ragged(n)
        halved = lanes[position], order[position, column]
        left, middle, right = (side[halved] for side in (self._left, self._middle, self._right))
        self._widen(int((n_panels + n).max()))
        self._old[:, lanes[position], column] = left, middle, right
        self._n_old[lanes] = n
        self._keep_the_others(lanes, order, n, n_panels)
        one, other = slots[::2], slots[1::2]
        self._u[one] = (self._u[left] + self._u[middle]) / 2
        self._u[other] = (self._u[middle] + self._u[right]) / 2
        first = (n_panels - n)[position] + 2 * column
        for at, sides in ((first, (left, one, middle)), (first + 1, (middle, other, right))):
            self._left[lanes[position], at], self._middle[lanes[position], at], self._right[lanes[position], at] = sides
        self._n_settled[lanes], self._n_panels[lanes] = n_panels - n, n_panels + n
        self.n_nodes[lanes] += 2 * n

    def _keep_the_others(self, lanes: Lanes, order: NDArray, n: NDArray, n_panels: NDArray) -> None:
        """Moves the panels that stay to the front, in the order they had."""
        width = order.shape[1]
        rank = np.empty_like(order)
        np.put_along_axis(rank, order, np.arange(width)[None], axis=1)
        gone = (rank < n[:, None]) | (np.arange(width) >= n_panels[:, None])
        kept = np.argsort(gone, axis=1, kind="stable")
        for values in (self._left, self._middle, self._right, self._change, self._miss):
            values[lanes, :width] = np.take_along_axis(values[lanes, :width], kept, axis=1)

    def _misses(self, lanes: Lanes, left: NDArray, middle: NDArray, right: NDArray) -> NDArray[np.float64]:
        """|the panel's sum over the features - the score's difference over it|, (panel,)."""
        total = (self._total[middle] + (self._total[left] + self._total[right]) / 2) * self._half(left, right)
        start = np.where(left == BASELINE, self._score_baseline[lanes], self._score[left])
        return np.abs(total - (self._score[right] - start))

    def _half(self, left: NDArray, right: NDArray) -> NDArray[np.float64]:
        return (self._u[right] - self._u[left]) / 2

    def _affordable(self, lanes: Lanes) -> NDArray[np.int64]:
        return (self._rule.n_max - self.n_nodes[lanes]) // 2

    def _widen(self, width: int) -> None:
        missing = width - self._left.shape[1]
        if missing <= 0:
            return
        missing = max(missing, self._left.shape[1])
        for name in ("_left", "_middle", "_right", "_change", "_miss"):
            setattr(self, name, np.pad(getattr(self, name), ((0, 0), (0, missing))))
        self._old = np.pad(self._old, ((0, 0), (0, 0), (0, missing)))


def ragged(counts: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For counts (n,): 0 repeated counts[0] times, 1 counts[1] times, ..., and beside each 0, 1, ... within its group."""
    position = np.repeat(np.arange(len(counts)), counts)
    return position, np.arange(len(position)) - np.repeat(np.cumsum(counts) - counts, counts)
