"""Integrated Gradients with a certificate for every row.

    IG_i(x) = (x_i - x'_i) * integral_0^1 dF_t/dx_i(x' + a (x - x')) da

for image x, baseline x' and the score F_t of target t (Sundararajan, Taly, Yan 2017, equation 1). The integral is a
quadrature rule's; what the rule left over is recorded with each row:

    gap              = sum IG - (F_t(x) - F_t(x')), signed, in units of the score (completeness, proposition 1)
    quadrature_error = ||IG - IG_coarse|| / ||IG||, where IG_coarse is the same rule with half the nodes
    converged        = |gap| <= gap_tolerance * max(1, |F_t(x) - F_t(x')|)  and  quadrature_error <= error_tolerance

The rows of a call share one queue of (row, node) pairs that is cut into batches for compiled functions of fixed shape. A row
that is not good enough yet asks for its next nodes before new rows start, so only few rows are in flight at a time.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tasks.numerics.network.compiled import SMALL_BATCHES, Compiled, Report
from tasks.numerics.quadrature import TINY, Integral, Rule, Tolerances

__all__ = [
    "Attributions",
    "CompiledGradients",
    "certify",
    "completeness_gap",
    "integrate",
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


class CompiledGradients:
    """dF_t/dx and F_t of a score model for a batch of points, compiled for two fixed shapes: a batch and an eighth of one.

    Calling with points, float32 (row, y, x, channel), and targets, (row,) integers, of one row or more, returns the
    gradients, float32 (row, y, x, channel), and the scores, float32 (row,). batch_size, on_halving: as of `Compiled`.
    """

    def __init__(self, model: keras.Model, batch_size: int, on_halving: Report | None = None):
        small = max(1, batch_size // SMALL_BATCHES)
        self._compiled = Compiled("gradients", target_gradients(model), batch_size, small=small, on_halving=on_halving)

    @property
    def batch_size(self) -> int:
        """Rows of a batch; less than in the beginning if a batch did not fit."""
        return self._compiled.batch_size

    @property
    def n_traces(self) -> int:
        """How often the function was traced; at most once for each of the two shapes, and of those that halving makes."""
        return self._compiled.n_traces

    def __call__(self, points: NDArray, targets: NDArray) -> tuple[NDArray, NDArray]:
        gradients, scores = self._compiled(points.astype(np.float32, copy=False), targets.astype(np.int32))
        return gradients, scores


def target_gradients(model: keras.Model) -> Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """From points (row, y, x, channel) and targets (row,), as tensors, to dF_t/dx and F_t of a score model."""

    def gradients(points: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(points)
            scores = tf.gather(model(points, training=False), targets, batch_dims=1)
        return tape.gradient(scores, points), scores

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
    error = np.minimum(change / np.maximum(norm, TINY), HUGE)
    return gap, error, within(tolerances, gap, error, difference)


def completeness_gap(attribution: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """sum IG - (F_t(x) - F_t(x')) of each row, (row,) float64. Shapes as in `certify`."""
    return attribution.sum(tuple(range(1, attribution.ndim)), dtype=np.float64) - difference


def within(tolerances: Tolerances, gap: np.ndarray, error: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """Whether gap and quadrature error of each row are within their tolerances: the definition of `converged`, (row,)."""
    return (np.abs(gap) <= tolerances.gap * np.maximum(1, np.abs(difference))) & (error <= tolerances.error)


class _Queue:
    """The (row, alpha) pairs that are still to be computed: refinements before rows that have not started."""

    def __init__(self) -> None:
        self._asked: deque[tuple[int, NDArray[np.float64]]] = deque()

    def __bool__(self) -> bool:
        return bool(self._asked)

    def start(self, row: int, alphas: NDArray[np.float64]) -> None:
        self._asked.append((row, alphas))

    def refine(self, row: int, alphas: NDArray[np.float64]) -> None:
        self._asked.appendleft((row, alphas))

    def take(self, n: int) -> list[tuple[int, NDArray[np.float64]]]:
        """At most n pairs, grouped by row."""
        taken = []
        while n and self._asked:
            row, alphas = self._asked.popleft()
            if len(alphas) > n:
                self._asked.appendleft((row, alphas[n:]))
            taken.append((row, alphas[:n]))
            n -= len(taken[-1][1])
        return taken


def integrate(
    gradients: Callable[[NDArray, NDArray], tuple[NDArray, NDArray]],
    images: NDArray,
    baselines: NDArray,
    targets: NDArray,
    score: NDArray,
    score_baseline: NDArray,
    *,
    rule: Rule,
    tolerances: Tolerances,
    batch_size: int,
    end_gradients: NDArray | None = None,
    on_progress: Callable[[int], object] | None = None,
) -> Attributions:
    """Integrated Gradients of every row, by the rule, with certificates.

    gradients: from points (n, y, x, channel) and targets (n,) to dF_t/dx and F_t, n at most batch_size.
    images, baselines: float32 (row, y, x, channel). targets: (row,). score, score_baseline: (row,), F_t(x) and F_t(x').
    end_gradients: dF_t/dx at the images, (row, y, x, channel), where they are known: a rule that has that node is spared it.
    on_progress: called after every batch with how many rows are done.
    Raises ValueError if the row counts differ.
    """
    counts = {len(array) for array in (images, baselines, targets, score, score_baseline)}
    if len(counts) > 1:
        raise ValueError(f"images, baselines, targets and scores must have one row each, got {sorted(counts)} rows")
    n_rows, n_features = len(images), int(np.prod(images.shape[1:]))
    deltas = images - baselines
    result = Attributions(
        attribution=np.zeros_like(deltas),
        gap=np.zeros(n_rows, np.float32),
        quadrature_error=np.zeros(n_rows, np.float32),
        score=score.astype(np.float32),
        score_baseline=score_baseline.astype(np.float32),
        n_gradients=np.zeros(n_rows, np.int32),
        converged=np.zeros(n_rows, np.uint8),
    )
    queue = _Queue()
    integrals: dict[int, Integral] = {}
    n_done = 0
    ends = [None] * n_rows if end_gradients is None else (end_gradients * deltas).reshape(n_rows, n_features)
    first_alphas = rule.integral(1, 0.0, 0.0, None if end_gradients is None else np.zeros(1, np.float32)).alphas
    for row in range(n_rows):
        queue.start(row, first_alphas)
    while queue:
        asked = queue.take(batch_size)
        rows = np.repeat([row for row, _ in asked], [len(alphas) for _, alphas in asked])
        alphas = np.concatenate([alphas for _, alphas in asked]).astype(np.float32)[:, None, None, None]
        slopes, scores = gradients(baselines[rows] + alphas * deltas[rows], targets[rows])
        vectors = (slopes * deltas[rows]).reshape(len(rows), -1)
        stops = np.cumsum([len(alphas) for _, alphas in asked])
        for (row, nodes), stop in zip(asked, stops, strict=True):
            if row not in integrals:
                integrals[row] = rule.integral(n_features, float(score[row]), float(score_baseline[row]), ends[row])
            integral, here = integrals[row], slice(stop - len(nodes), stop)
            if not integral.add(vectors[here], scores[here]):
                continue
            if _record(result, row, integral, deltas.shape[1:], tolerances) or not integral.refine(tolerances):
                del integrals[row]
                n_done += 1
            else:
                queue.refine(row, integral.alphas)
        if on_progress:
            on_progress(n_done)
    return result


def _record(result: Attributions, row: int, integral: Integral, shape: tuple[int, ...], tolerances: Tolerances) -> bool:
    attribution = integral.fine.astype(np.float32)
    difference = result.score[row : row + 1].astype(np.float64) - result.score_baseline[row]
    gap, error, converged = certify(attribution[None], integral.coarse[None], difference, tolerances)
    result.attribution[row] = attribution.reshape(shape)
    result.gap[row], result.quadrature_error[row] = gap[0], error[0]
    result.n_gradients[row], result.converged[row] = integral.n_nodes, converged[0]
    return bool(converged[0])
