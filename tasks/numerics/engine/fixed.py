"""A fixed rule over all rows in flight: every node of it, and of its half, is added to the row's lane as it is computed."""

import numpy as np
from numpy.typing import NDArray

from tasks.numerics.engine.adaptive import InPieces, Lanes, Sums
from tasks.numerics.engine.buffers import Buffers
from tasks.numerics.quadrature import Fixed, fine_and_coarse

__all__ = ["Weighted"]


class Weighted:
    """The fixed rule over `n_lanes` rows. A node is known by its number in the rule."""

    def __init__(self, rule: Fixed, buffers: Buffers, n_lanes: int):
        self._buffers = buffers
        self._alphas, (self._fine, coarse) = fine_and_coarse(rule)
        self._change = self._fine - coarse
        self.n_waiting = len(self._alphas)
        self.difference = np.zeros(n_lanes)
        self.n_nodes = np.full(n_lanes, self.n_waiting)
        self.room = n_lanes

    def begin(
        self, lanes: Lanes, scores: NDArray, baseline_scores: NDArray, end_gradients: NDArray
    ) -> NDArray[np.int32]:
        """Rows begin. Returns the nodes that each waits for, (lane, node): all, for the rule may have none at the image."""
        self.difference[lanes] = scores.astype(np.float64) - baseline_scores
        return np.tile(np.arange(self.n_waiting, dtype=np.int32), (len(lanes), 1))

    def compute(self, lanes: Lanes, nodes: NDArray[np.int32], size: int) -> None:
        """Adds f at nodes, in one call of `size`, at most which they are."""
        n = len(lanes)
        padded, numbers = np.zeros(size, np.int32), np.zeros((3, size), np.float32)
        padded[:n] = lanes
        numbers[:, :n] = self._alphas[nodes], self._fine[nodes], self._change[nodes]
        unique, positions = np.unique(padded, return_inverse=True)
        self._buffers.weigh(np.stack([padded, positions]), numbers, unique)

    def settle(self, lanes: Lanes, in_pieces: InPieces) -> Sums:
        return Sums(*(values.astype(np.float64) for values in self._buffers.certificate(lanes)))

    def refine(self, lanes: Lanes, sums: Sums) -> tuple[Lanes, NDArray[np.int32], NDArray[np.bool_]]:
        """Nothing: the rule has no more to give."""
        return lanes[:0], lanes[:0], np.zeros(len(lanes), bool)

    def can_refine(self, lanes: Lanes) -> NDArray[np.bool_]:
        return np.zeros(len(lanes), bool)

    def release(self, lanes: Lanes) -> None:
        """Lanes hold nothing else."""
