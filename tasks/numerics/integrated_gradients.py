"""Integrated Gradients with a certificate for every row.

    IG_i(x) = (x_i - x'_i) * integral_0^1 dF_t/dx_i(x' + a (x - x')) da

for image x, baseline x' and the score F_t of target t (Sundararajan, Taly, Yan 2017, equation 1). The integral is a
quadrature rule's; what the rule left over is recorded with each row:

    gap              = sum IG - (F_t(x) - F_t(x')), signed, in units of the score (completeness, proposition 1)
    quadrature_error = ||IG - IG_coarse|| / ||IG||, where IG_coarse is the same rule with half the nodes
    converged        = |gap| <= gap_tolerance * max(1, |F_t(x) - F_t(x')|)  and  quadrature_error <= error_tolerance

Many rows at once are the engine's work (numerics/engine).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import keras
import numpy as np
import tensorflow as tf

from tasks.numerics.quadrature import TINY, Tolerances

__all__ = [
    "Attributions",
    "certify",
    "completeness_gap",
    "relative_error",
    "target_gradients",
    "within",
]

HUGE = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Attributions:
    """Attributions and their certificate, a row an image.

    attribution: (row, y, x, channel) float32, in units of the score. gap, quadrature_error, score, score_baseline: (row,)
    float32. n_gradients: (row,) int32. converged: (row,) uint8.
    """

    attribution: np.ndarray
    gap: np.ndarray
    quadrature_error: np.ndarray
    score: np.ndarray
    score_baseline: np.ndarray
    n_gradients: np.ndarray
    converged: np.ndarray

    @classmethod
    def empty(cls, n: int, shape: tuple[int, ...], score: np.ndarray, score_baseline: np.ndarray) -> Self:
        """Of n rows that nothing is known of but their scores, (row,). shape: of the images."""
        return cls(
            attribution=np.zeros((n, *shape), np.float32),
            gap=np.zeros(n, np.float32),
            quadrature_error=np.zeros(n, np.float32),
            score=score.astype(np.float32),
            score_baseline=score_baseline.astype(np.float32),
            n_gradients=np.zeros(n, np.int32),
            converged=np.zeros(n, np.uint8),
        )


def target_gradients(model: keras.Model) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
    """From points (row, y, x, channel) and targets (row,), as tensors, to dF_t/dx and F_t of a score model.

    With a third tensor, weights (row,), to weight * dF_t/dx.
    """

    def gradients(
        points: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(points)
            scores = tf.gather(model(points, training=False), targets, batch_dims=1)
        return tape.gradient(scores, points, output_gradients=weights), scores

    return gradients


def certify(
    attribution: np.ndarray, coarse: np.ndarray, difference: np.ndarray, tolerances: Tolerances
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The gap, the quadrature error and whether both are within their tolerances, each (row,).

    attribution, coarse: (row, ...), the rule's result and that of half the nodes. difference: (row,), F_t(x) - F_t(x').
    """
    axes = tuple(range(1, attribution.ndim))
    gap = completeness_gap(attribution, difference)
    change = np.sqrt(np.square(attribution - coarse, dtype=np.float64).sum(axes))
    norm = np.sqrt(np.square(attribution, dtype=np.float64).sum(axes))
    error = relative_error(change, norm)
    return gap, error, within(tolerances, gap, error, difference)


def completeness_gap(attribution: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """sum IG - (F_t(x) - F_t(x')) of each row, (row,) float64. Shapes as in `certify`."""
    return attribution.sum(tuple(range(1, attribution.ndim)), dtype=np.float64) - difference


def relative_error(change: np.ndarray, norm: np.ndarray) -> np.ndarray:
    """The quadrature error of each row, (row,): ||IG - IG_coarse|| over ||IG||, at most what float32 holds."""
    return np.minimum(change / np.maximum(norm, TINY), HUGE)


def within(tolerances: Tolerances, gap: np.ndarray, error: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """Whether gap and quadrature error of each row are within their tolerances: the definition of `converged`, (row,)."""
    return (np.abs(gap) <= tolerances.gap * np.maximum(1, np.abs(difference))) & (error <= tolerances.error)
