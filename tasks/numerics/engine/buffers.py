"""What lies on the device while rows are integrated, and the compiled functions over it.

A row in flight has a lane: its baseline, its difference from it, its target, the attribution so far (`fine`) and how far half
the nodes are from that (`change`). A node of the adaptive rule has a slot, which holds f there. Lane 0 and slot 1 are for what
pads a batch; slot 0 is the baseline, where f has no weight. Only numbers come back to the host, and an attribution once.
"""

import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

__all__ = ["BASELINE", "PADDING", "Buffers", "TargetGradients", "lane_bytes"]

BASELINE, PADDING = 0, 1  # slots
LANE_VECTORS = 4

TargetGradients = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
Array = NDArray[np.generic]

_NUMBERS, _INDICES = tf.TensorSpec((None,), tf.float32), tf.TensorSpec((None,), tf.int32)


def lane_bytes(shape: tuple[int, ...]) -> int:
    """Of one lane. shape: of the images."""
    return LANE_VECTORS * math.prod(shape) * tf.float32.size


class Buffers:
    """Lanes and slots for images of one shape, (y, x, channel).

    gradients: from points (n, y, x, channel), targets (n,) and weights (n,) to each point's weight times dF_t/dx, and to F_t.
    """

    def __init__(self, gradients: TargetGradients, shape: tuple[int, ...], n_lanes: int, n_slots: int):
        n = math.prod(shape)
        self._gradients, self._shape = gradients, tuple(shape)
        self._baseline, self._delta, self._fine, self._change = (_zeros(n_lanes, n) for _ in range(LANE_VECTORS))
        self._target = tf.Variable(tf.zeros(n_lanes, tf.int32), trainable=False)
        self._f = _zeros(n_slots, n)
        images = tf.TensorSpec((None, *shape), tf.float32)
        self.admit = _compiled(self._admit, _INDICES, images, images, _INDICES)
        self.hold = _compiled(self._hold, _INDICES, _INDICES, images, tf.TensorSpec((), tf.float32))
        self.nodes = _compiled(self._nodes, _INDICES, _NUMBERS, _NUMBERS, _INDICES)
        self.weigh = _compiled(self._weigh, _INDICES, _NUMBERS, _NUMBERS, _NUMBERS, _INDICES, _INDICES)
        panels = (_INDICES, _INDICES, _INDICES, _NUMBERS, _INDICES)
        self.count = _compiled(self._count, *panels, _NUMBERS, _INDICES)
        self.discount = _compiled(self._discount, *panels, _INDICES)
        self.certificate = _compiled(self._certificate, _INDICES)
        self.fetch = _compiled(lambda lanes: (tf.gather(self._fine, lanes),), _INDICES)

    def _admit(self, lanes: tf.Tensor, images: tf.Tensor, baselines: tf.Tensor, targets: tf.Tensor) -> tuple:
        """Rows begin in these lanes."""
        flat = self._flat(baselines)
        nothing = tf.zeros_like(flat)
        for buffer, values in (
            (self._baseline, flat),
            (self._delta, self._flat(images) - flat),
            (self._target, targets),
            (self._fine, nothing),
            (self._change, nothing),
        ):
            buffer.scatter_update(tf.IndexedSlices(values, lanes))
        return ()

    def _hold(self, lanes: tf.Tensor, slots: tf.Tensor, gradients: tf.Tensor, weight: tf.Tensor) -> tuple:
        """f at a node of each lane whose dF/dx is known, and its sum over the features, (lane,)."""
        f = self._flat(gradients) * weight * tf.gather(self._delta, lanes)
        self._f.scatter_update(tf.IndexedSlices(f, slots))
        return (tf.reduce_sum(f, 1),)

    def _nodes(self, lanes: tf.Tensor, alphas: tf.Tensor, weights: tf.Tensor, slots: tf.Tensor) -> tuple:
        """Puts weight * f of each node into its slot. Returns F and the sum of that over the features, both (node,)."""
        f, scores = self._integrand(lanes, alphas, weights)
        self._f.scatter_update(tf.IndexedSlices(f, slots))
        return scores, tf.reduce_sum(f, 1)

    def _weigh(
        self,
        lanes: tf.Tensor,
        alphas: tf.Tensor,
        fine: tf.Tensor,
        change: tf.Tensor,
        positions: tf.Tensor,
        unique: tf.Tensor,
    ) -> tuple:
        """Adds f of each node to its lane, by two weights. unique: the lanes, each once; positions: of each node's among them."""
        f, scores = self._integrand(lanes, alphas, tf.ones_like(alphas))
        sums = [tf.math.unsorted_segment_sum(f * each[:, None], positions, tf.size(unique)) for each in (fine, change)]
        with tf.control_dependencies(sums):  # from here nothing needs memory, so that what failed can be tried again
            self._fine.scatter_add(tf.IndexedSlices(sums[0], unique))
            self._change.scatter_add(tf.IndexedSlices(sums[1], unique))
        return (scores,)

    def _integrand(self, lanes: tf.Tensor, alphas: tf.Tensor, weights: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        delta = tf.gather(self._delta, lanes)
        points = tf.gather(self._baseline, lanes) + alphas[:, None] * delta
        gradients, scores = self._gradients(
            tf.reshape(points, (-1, *self._shape)), tf.gather(self._target, lanes), weights
        )
        return self._flat(gradients) * delta, scores

    def _count(
        self,
        left: tf.Tensor,
        middle: tf.Tensor,
        right: tf.Tensor,
        half: tf.Tensor,
        position: tf.Tensor,
        ends: tf.Tensor,
        lanes: tf.Tensor,
    ) -> tuple:
        """New panels count. Returns the norm of the change that each panel's middle makes, (panel,).

        left, middle, right: slots. half: half the width. position: of the panel's lane in `lanes`. ends: 1 for panels of a row
        that begins; -1 for halves of a panel, for the attribution has their ends already.
        """
        at_ends, at_middle = self._trapezoids(left, middle, right, half)
        change = at_middle - at_ends
        sums = [
            tf.math.unsorted_segment_sum(values, position, tf.size(lanes))
            for values in (at_middle + ends[:, None] * at_ends, change)
        ]
        norms = tf.norm(change, axis=1)
        with tf.control_dependencies(
            [*sums, norms]
        ):  # from here nothing needs memory, so that what failed can be tried again
            self._fine.scatter_add(tf.IndexedSlices(sums[0], lanes))
            self._change.scatter_add(tf.IndexedSlices(sums[1], lanes))
        return (norms,)

    def _discount(
        self,
        left: tf.Tensor,
        middle: tf.Tensor,
        right: tf.Tensor,
        half: tf.Tensor,
        position: tf.Tensor,
        lanes: tf.Tensor,
    ) -> tuple:
        """What halved panels changed counts no more. Arguments as of `_count`."""
        at_ends, at_middle = self._trapezoids(left, middle, right, half)
        self._change.scatter_sub(
            tf.IndexedSlices(tf.math.unsorted_segment_sum(at_middle - at_ends, position, tf.size(lanes)), lanes)
        )
        return ()

    def _trapezoids(self, left: tf.Tensor, middle: tf.Tensor, right: tf.Tensor, half: tf.Tensor) -> tuple:
        """half * (left + right) / 2 and half * middle: their sum is the fine result of a panel, their difference its change."""
        ends = tf.gather(self._f, left) + tf.gather(self._f, right)
        return ends * (half[:, None] / 2), tf.gather(self._f, middle) * half[:, None]

    def _certificate(self, lanes: tf.Tensor) -> tuple:
        """The sum and the norm of each lane's attribution, and the norm of its change, (lane,)."""
        fine = tf.gather(self._fine, lanes)
        return tf.reduce_sum(fine, 1), tf.norm(fine, axis=1), tf.norm(tf.gather(self._change, lanes), axis=1)

    def _flat(self, images: tf.Tensor) -> tf.Tensor:
        return tf.reshape(images, (-1, math.prod(self._shape)))


def _zeros(n_rows: int, n_features: int) -> tf.Variable:
    return tf.Variable(tf.zeros((n_rows, n_features)), trainable=False)


def _compiled(function: Callable, *signature: tf.TensorSpec) -> Callable[..., tuple[Array, ...]]:
    """Takes and gives arrays; one trace, whatever their lengths."""
    compiled = tf.function(function, input_signature=signature, autograph=False)

    def call(*arrays: Array) -> tuple[Array, ...]:
        given = (tf.constant(array, spec.dtype) for array, spec in zip(arrays, signature, strict=True))
        return tuple(result.numpy() for result in compiled(*given))

    return call
