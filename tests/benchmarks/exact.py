"""Integrated Gradients by a rule with given nodes, written plainly and apart from the product: the benchmarks' yardstick.

IG = (x - x') * sum_k w_k dF_t/dx(x' + a_k (x - x')),    summed in float64
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

__all__ = ["REFERENCE_NODES", "Integrals", "Ladder", "NodesNeeded", "gaps", "relative_errors"]

REFERENCE_NODES = 1500
HARDEST, AT_ONCE = 64, 8


def relative_errors(ours: NDArray, reference: NDArray) -> NDArray[np.float64]:
    """||ours - reference|| / ||reference|| of each row, (row,); infinite where only the reference is zero."""
    axes = tuple(range(1, ours.ndim))
    change = np.sqrt(np.square(ours - reference, dtype=np.float64).sum(axes))
    norm = np.sqrt(np.square(reference, dtype=np.float64).sum(axes))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(change == 0, 0.0, change / norm)


def gaps(attributions: NDArray, differences: NDArray) -> NDArray[np.float64]:
    """|sum IG - (F(x) - F(x'))| of each row, (row,)."""
    return np.abs(attributions.sum(axis=(1, 2, 3), dtype=np.float64) - differences)


class Integrals:
    """Attributions of images (row, y, x, channel) against black for their targets (row,).

    differences: (row,), F_t(x) - F_t(0) in float64.
    """

    def __init__(self, model: keras.Model, images: NDArray[np.float32], targets: NDArray, batch_size: int = 256):
        self.images, self.targets, self.batch_size = images, targets.astype(np.int32), batch_size

        def gradients(points: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            with tf.GradientTape() as tape:
                tape.watch(points)
                scores = tf.gather(model(points, training=False), targets, batch_dims=1)
            return tape.gradient(scores, points), scores

        shape = (batch_size, *images.shape[1:])
        self._gradients = tf.function(
            gradients, input_signature=[tf.TensorSpec(shape, tf.float32), tf.TensorSpec((batch_size,), tf.int32)]
        )
        here, black = (self._run(points, self.targets)[1] for points in (images, np.zeros_like(images)))
        self.differences = here.astype(np.float64) - black

    def _run(self, points: NDArray, targets: NDArray) -> tuple[NDArray, NDArray]:
        results = []
        for start in range(0, len(points), self.batch_size):
            here = np.minimum(np.arange(start, start + self.batch_size), len(points) - 1)
            slopes, scores = self._gradients(points[here], targets[here])
            n = min(self.batch_size, len(points) - start)
            results.append((slopes.numpy()[:n], scores.numpy()[:n]))
        return np.concatenate([slopes for slopes, _ in results]), np.concatenate([scores for _, scores in results])

    def legendre(self, rows: NDArray[np.integer], n_nodes: int) -> NDArray[np.float64]:
        """By n nodes of Gauss-Legendre: (row, y, x, channel) of the rows that are asked for."""
        x, weights = np.polynomial.legendre.leggauss(n_nodes)
        return self.integrate(rows, (x + 1) / 2, weights / 2)

    def trapezoid(self, rows: NDArray[np.integer], n_nodes: int) -> NDArray[np.float64]:
        """By the trapezoid of n nodes, of which the first is black and the last the image."""
        weights = np.full(n_nodes, 1 / (n_nodes - 1))
        weights[[0, -1]] /= 2
        return self.integrate(rows, np.linspace(0, 1, n_nodes), weights)

    def midpoint(self, rows: NDArray[np.integer], n_nodes: int = REFERENCE_NODES) -> NDArray[np.float64]:
        """By the midpoint rule."""
        return self.integrate(rows, (np.arange(n_nodes) + 0.5) / n_nodes, np.full(n_nodes, 1 / n_nodes))

    def integrate(self, rows: NDArray[np.integer], alphas: NDArray, weights: NDArray) -> NDArray[np.float64]:
        """By the nodes alphas (node,) with weights (node,); a batch takes nodes of as many rows as it has room for."""
        total = np.zeros((len(rows), *self.images.shape[1:]))
        n = len(alphas)
        for start in range(0, n * len(rows), self.batch_size):
            row, node = np.divmod(np.arange(start, min(start + self.batch_size, n * len(rows))), n)
            points = self.images[rows[row]] * alphas[node].astype(np.float32)[:, None, None, None]
            slopes, _ = self._run(points, self.targets[rows[row]])
            for here in np.unique(row):
                total[here] += np.tensordot(weights[node[row == here]], slopes[row == here], 1)
        return total * self.images[rows]


@dataclass(frozen=True)
class NodesNeeded:
    """What a fixed rule needs for a bound. n_nodes: the least found that reaches it, the last one tried if none does."""

    criterion: str
    bound: float
    n_nodes: int
    reached: bool


@dataclass
class Ladder:
    """How many nodes of a rule keep a figure of the rows within a bound.

    Rungs are climbed, then the last interval is bisected. A rung is refused as soon as more rows than `allowed` exceed the
    bound; it is passed if the HARDEST rows do not. So a rung may pass that other rows would have refused: the nodes found
    are at least needed, maybe not enough.

    figure: from attributions of rows, and those rows, to the figure (row,) that is bounded.
    rule: a method of Integrals.
    """

    integrals: Integrals
    rungs: tuple[int, ...]
    rule: Literal["legendre", "trapezoid"] = "legendre"
    _known: dict[int, dict[int, NDArray[np.float64]]] = field(default_factory=dict)

    def needed(
        self,
        criterion: str,
        bound: float,
        figure: Callable[[NDArray, NDArray], NDArray],
        rows: NDArray[np.integer],
        hardness: NDArray,
        allowed: int = 0,
    ) -> NodesNeeded:
        """rows: (row,), whose figure at few nodes is `hardness`. allowed: how many rows may exceed the bound."""
        hardest = rows[np.argsort(-hardness, kind="stable")][: max(HARDEST, 2 * allowed)]

        def reaches(n_nodes: int) -> bool:
            exceeding = 0
            for start in range(0, len(hardest), AT_ONCE):
                few = hardest[start : start + AT_ONCE]
                exceeding += int((figure(self._attributions(few, n_nodes), few) > bound).sum())
                if exceeding > allowed:
                    return False
            return True

        passed = next((k for k, rung in enumerate(self.rungs) if reaches(rung)), None)
        if passed is None:
            return NodesNeeded(criterion, bound, self.rungs[-1], reached=False)
        high = self.rungs[passed]
        low = self.rungs[passed - 1] if passed else high
        while high - low > max(2, low // 16):
            middle = (low + high) // 2
            low, high = (low, middle) if reaches(middle) else (middle, high)
        return NodesNeeded(criterion, bound, high, reached=True)

    def _attributions(self, rows: NDArray[np.integer], n_nodes: int) -> NDArray[np.float64]:
        known = self._known.setdefault(n_nodes, {})
        missing = np.array([row for row in rows.tolist() if row not in known], dtype=int)
        if len(missing):
            found = getattr(self.integrals, self.rule)(missing, n_nodes)
            known |= dict(zip(missing.tolist(), found, strict=True))
        return np.stack([known[row] for row in rows.tolist()])
