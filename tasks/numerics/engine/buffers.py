"""What lies on the device while rows are integrated, and the compiled functions over it.

A row in flight has a lane: its baseline, its difference from it, its target, the attribution so far (`fine`) and how far half
the nodes are from that (`change`). A node of the adaptive rule has a slot, which holds f there. Lane 0 and slot 1 are for what
pads a batch; slot 0 is the baseline, where f has no weight. Only numbers come back to the host, and an attribution once.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

__all__ = ["BASELINE", "PADDING", "Buffers", "TargetGradients", "lane_bytes"]

BASELINE, PADDING = 0, 1  # slots
LANE_VECTORS = 4

TargetGradients = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
Array = NDArray[np.generic]

_INDICES = tf.TensorSpec((None,), tf.int32)


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
        self.admit = _compiled(self._admit, _indices(2), images, images)
        self.hold = _compiled(self._hold, _indices(2), images, tf.TensorSpec((), tf.float32))
        self.nodes = _compiled(self._nodes, _indices(2), _numbers(2))
        self.weigh = _compiled(self._weigh, _indices(2), _numbers(3), _INDICES)
        self.settle = _compiled(self._settle, _indices(4), _numbers(2), _indices(4), _numbers(1), _INDICES)
        self.certificate = _compiled(self._certificate, _INDICES)
        self.fetch = _compiled(lambda lanes: (tf.gather(self._fine, lanes),), _INDICES)

    def close(self) -> None:
        """Gives the device's memory back at once, whoever still refers to this or to its functions. It is of no use after."""
        vars(self).clear()

    def _admit(self, rows: tf.Tensor, images: tf.Tensor, baselines: tf.Tensor) -> tuple:
        """Rows begin. rows: their lanes and targets, (2, row)."""
        lanes, targets = tf.unstack(rows)
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

    def _hold(self, rows: tf.Tensor, gradients: tf.Tensor, weight: tf.Tensor) -> tuple:
        """Puts weight * f at a node whose dF/dx is known into a slot; returns its sum. rows: lanes and slots, (2, row)."""
        lanes, slots = tf.unstack(rows)
        f = self._flat(gradients) * weight * tf.gather(self._delta, lanes)
        self._f.scatter_update(tf.IndexedSlices(f, slots))
        return (tf.reduce_sum(f, 1),)

    def _nodes(self, nodes: tf.Tensor, numbers: tf.Tensor) -> tuple:
        """Puts weight * f at each node into its slot. nodes: lanes and slots, (2, node). numbers: alphas and weights, (2, node).

        Returns F and the sum of weight * f over the features, both (node,).
        """
        (lanes, slots), (alphas, weights) = tf.unstack(nodes), tf.unstack(numbers)
        f, scores = self._integrand(lanes, alphas, weights)
        self._f.scatter_update(tf.IndexedSlices(f, slots))
        return scores, tf.reduce_sum(f, 1)

    def _weigh(self, nodes: tf.Tensor, numbers: tf.Tensor, unique: tf.Tensor) -> tuple:
        """Adds f at each node to its lane, by two weights. unique: the lanes, each once.

        nodes: lanes, and their positions in `unique`, (2, node). numbers: alphas, weights for `fine` and for `change`, (3, node).
        """
        (lanes, positions), (alphas, fine, change) = tf.unstack(nodes), tf.unstack(numbers)
        f, scores = self._integrand(lanes, alphas, tf.ones_like(alphas))
        self._add(unique, *(_sums(f * each[:, None], positions, unique) for each in (fine, change)))
        return (scores,)

    def _integrand(self, lanes: tf.Tensor, alphas: tf.Tensor, weights: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        delta = tf.gather(self._delta, lanes)
        points = tf.gather(self._baseline, lanes) + alphas[:, None] * delta
        gradients, scores = self._gradients(
            tf.reshape(points, (-1, *self._shape)), tf.gather(self._target, lanes), weights
        )
        return self._flat(gradients) * delta, scores

    def _settle(
        self, new: tf.Tensor, numbers: tf.Tensor, old: tf.Tensor, old_half: tf.Tensor, lanes: tf.Tensor
    ) -> tuple:
        """New panels count, and those that they are halves of no more. Returns the norm of each new panel's change, (panel,).

        new, old: slots at the left, in the middle and at the right, and the position of the panel's lane in `lanes`, (4, panel).
        numbers: half the width; and 1 for panels of a row that begins, -1 for halves, whose ends `fine` has already: (2, panel).
        old_half: (1, panel).
        """
        left, middle, right, position = tf.unstack(new)
        half, ends = tf.unstack(numbers)
        at_ends, at_middle = self._trapezoids(left, middle, right, half)
        old_ends, old_middle = self._trapezoids(old[0], old[1], old[2], old_half[0])
        change = at_middle - at_ends
        norms = tf.norm(change, axis=1)
        fine = _sums(at_middle + ends[:, None] * at_ends, position, lanes)
        changed = _sums(change, position, lanes) - _sums(old_middle - old_ends, old[3], lanes)
        self._add(lanes, fine, changed, norms)
        return (norms,)

    def _add(self, lanes: tf.Tensor, fine: tf.Tensor, change: tf.Tensor, *others: tf.Tensor) -> None:
        """Last of all: from here nothing needs memory, so that what failed can be tried again."""
        with tf.control_dependencies([fine, change, *others]):
            self._fine.scatter_add(tf.IndexedSlices(fine, lanes))
            self._change.scatter_add(tf.IndexedSlices(change, lanes))

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


def _indices(n: int) -> tf.TensorSpec:
    return tf.TensorSpec((n, None), tf.int32)


def _numbers(n: int) -> tf.TensorSpec:
    return tf.TensorSpec((n, None), tf.float32)


def _sums(vectors: tf.Tensor, position: tf.Tensor, lanes: tf.Tensor) -> tf.Tensor:
    return tf.math.unsorted_segment_sum(vectors, position, tf.size(lanes))


def _zeros(n_rows: int, n_features: int) -> tf.Variable:
    return tf.Variable(tf.zeros((n_rows, n_features)), trainable=False)


def _compiled(function: Callable, *signature: tf.TensorSpec) -> Callable[..., tuple[Array, ...]]:
    """Takes and gives arrays; one trace, at the first call, whatever their lengths.

    Few arguments, for each costs as much as a small operation. What `tf.function` checks at each call costs four times the call
    itself: here types are right by construction, and the traced function is called past those checks.
    """
    compiled = tf.function(function, input_signature=signature, autograph=False)
    traced: list[tuple[Callable, Sequence[tf.Tensor]]] = []

    def call(*arrays: Array) -> tuple[Array, ...]:
        if not traced:
            concrete = compiled.get_concrete_function()
            traced.append((concrete.inference_fn.call_flat, concrete.captured_inputs))
        ((call_flat, captured),) = traced
        given = (tf.constant(array, spec.dtype) for array, spec in zip(arrays, signature, strict=True))
        return tuple(result.numpy() for result in call_flat(*given, *captured) or ())

    return call
