"""Rows in closed form whose every point says which row it belongs to: for tests of who is computed when, with whom, how often.

Row r is one pixel of two channels, (1, 1 + r), before a black baseline: a point on its path is (a, a (1 + r)). The score is a
sigmoid of a, the steeper the larger r modulo 5 is, so that rows differ in the nodes they need.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from slow_integrals import integrate
from tasks.numerics.integrated_gradients import Attributions
from tasks.numerics.quadrature import Rule, Tolerances

__all__ = ["MARKED_SHAPE", "Arguments", "MarkedRows", "memory_of"]

MARKED_SHAPE = (1, 1, 2)
CENTRE, WIDTHS = 0.05, (0.02, 0.01, 0.005, 0.002, 0.001)

Arguments = tuple[NDArray, NDArray, NDArray, NDArray, NDArray, NDArray]


class MarkedRows:
    """Gradients of such rows, as `ArrayGradients`, that log their calls.

    bears: points in a call, more of which do not fit into memory. sick: rows whose gradients are not numbers.
    before_call: called before each. calls: of each call, the rows of its points, without those that pad it. sizes: with those.
    """

    def __init__(self, *, bears: int | None = None, sick: tuple[int, ...] = ()):
        self.bears, self.sick = bears, sick
        self.before_call: Callable[[], object] = lambda: None
        self.calls: list[NDArray[np.int64]] = []
        self.sizes: list[int] = []

    def __call__(self, points: NDArray, targets: NDArray) -> tuple[NDArray, NDArray]:
        self.before_call()
        if self.bears is not None and len(points) > self.bears:
            raise MemoryError(f"{len(points)} points are too many")
        alphas, others = points[:, 0, 0].astype(np.float64).T
        asked = alphas > 0
        rows = np.zeros(len(points), np.int64)
        rows[asked] = np.rint(others[asked] / alphas[asked]) - 1
        self.calls.append(rows[asked])
        self.sizes.append(len(points))
        scores = _scores(alphas, rows)
        slopes = np.zeros(points.shape, np.float32)
        slopes[:, 0, 0, 0] = scores * (1 - scores) / _widths(rows)
        slopes[np.isin(rows, self.sick) & asked] = np.nan
        return slopes, scores.astype(np.float32)

    def arguments(self, rows: NDArray[np.int64]) -> Arguments:
        """Images, baselines, targets, score, score_baseline and end_gradients of rows, as `Engine.integrate` takes them."""
        images = np.stack([np.ones(len(rows)), 1 + rows], axis=1).reshape(-1, *MARKED_SHAPE).astype(np.float32)
        ends = np.zeros_like(images)
        score, score_baseline = _scores(np.ones(len(rows)), rows), _scores(np.zeros(len(rows)), rows)
        ends[:, 0, 0, 0] = score * (1 - score) / _widths(rows)
        targets = np.zeros(len(rows), np.int64)
        return images, np.zeros_like(images), targets, score.astype(np.float32), score_baseline.astype(np.float32), ends

    @staticmethod
    def expected(rows: NDArray[np.int64], rule: Rule, tolerances: Tolerances) -> Attributions:
        """What the slow twin makes of rows, one at a time."""
        healthy = MarkedRows()
        *arguments, ends = healthy.arguments(rows)
        return integrate(healthy, *arguments, end_gradients=ends, rule=rule, tolerances=tolerances, batch_size=1)


def memory_of(n_slots: int) -> float:
    """Bytes of so many slots for marked rows."""
    return 4.0 * n_slots * np.prod(MARKED_SHAPE)


def _widths(rows: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.array(WIDTHS)[rows % len(WIDTHS)]


def _scores(alphas: NDArray[np.float64], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    return (1 + np.tanh((alphas - CENTRE) / (2 * _widths(rows)))) / 2
