"""How the reasons for a class changed between two models, over the same images.

Two trainings that differ in nothing but their seed share .45 of their reasons (cosine over 8x8 cells, Fashion-MNIST), so what a
single row's explanation did says nothing. Of a class, two numbers do, each beside what seeds alone do: the largest change of a
cell's mean share of |attribution|, and the energy distance (Szekely & Rizzo 2013) between the heats of the two models.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from tasks.numerics.worth.strategies import pooled, unit

__all__ = ["CELLS", "LEAST_ROWS", "Heat", "Change", "change_of", "heat_of", "likeness"]

CELLS = 8
LEAST_ROWS = 30  # of a class
MOST_PAIRED = 300  # rows between which distances are taken


@dataclass(frozen=True)
class Heat:
    """signed: of unit norm. share: of |attribution|, summing to 1; zeros for a row of zeros. Both: (row, cell_y, cell_x)."""

    signed: NDArray[np.float64]
    share: NDArray[np.float64]

    def of(self, chosen: NDArray) -> "Heat":
        """Of some rows. chosen: positions, or a mask."""
        return Heat(self.signed[chosen], self.share[chosen])


@dataclass(frozen=True)
class Change:
    """share: the largest change of a cell's mean share, at `cell` (y, x). energy: distance. before, after: mean shares."""

    n_rows: int
    share: float
    cell: tuple[int, int]
    energy: float
    before: NDArray[np.float64]
    after: NDArray[np.float64]


def heat_of(relevance: NDArray) -> Heat:
    """relevance: (row, y, x), signed."""
    magnitude = pooled(np.abs(relevance), CELLS)
    total = magnitude.sum(axis=(1, 2), keepdims=True)
    return Heat(unit(pooled(relevance, CELLS)), magnitude / np.where(total > 0, total, 1))


def likeness(before: Heat, after: Heat) -> NDArray[np.float64]:
    """Cosine of the heats of each row, (row,)."""
    return (before.signed * after.signed).sum(axis=(1, 2))


def change_of(before: Heat, after: Heat) -> Change | None:
    """Between the heats of the same rows by two models; None for fewer rows than LEAST_ROWS."""
    n = len(before.signed)
    if n < LEAST_ROWS:
        return None
    means = before.share.mean(axis=0), after.share.mean(axis=0)
    moved = np.abs(means[1] - means[0])
    y, x = np.unravel_index(moved.argmax(), moved.shape)
    some = np.random.default_rng(0).permutation(n)[:MOST_PAIRED]
    energy = _energy_distance(*(heat.signed[some].reshape(len(some), -1) for heat in (before, after)))
    return Change(n, float(moved.max()), (int(y), int(x)), energy, *means)


def _energy_distance(one: NDArray, other: NDArray) -> float:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'|, of points (point, feature): 0 where both are distributed alike."""
    return max(0.0, float(2 * cdist(one, other).mean() - cdist(one, one).mean() - cdist(other, other).mean()))
