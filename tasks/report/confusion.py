"""Which classes are taken for which, as the page's table: shades, counts and the sentences that readers hear."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Cell", "Confusion", "Mistake", "confusion_of"]

MOST_CLASSES = 20  # of which all pairs are shown
MOST_MISTAKES = 12
SHADES = 10


@dataclass(frozen=True)
class Cell:
    """shade: the share of the true class in steps of 1/SHADES, at least 1 where there is a row."""

    prediction: int
    count: int
    shade: int


@dataclass(frozen=True)
class Mistake:
    label: int
    prediction: int
    count: int
    share: float


@dataclass(frozen=True)
class Confusion:
    """lines: a cell for each predicted class, by true class; empty if there are too many classes to show.

    mistakes: the most frequent ones.
    """

    lines: tuple[tuple[Cell, ...], ...]
    mistakes: tuple[Mistake, ...]


def confusion_of(labels: NDArray[np.int64], predictions: NDArray[np.int64], class_names: Sequence[str]) -> Confusion:
    """The rows of the store by true and predicted class."""
    n = len(class_names)
    counts = np.bincount(labels * n + predictions, minlength=n * n).reshape(n, n)
    totals = counts.sum(axis=1)
    shares = counts / np.maximum(totals, 1)[:, None]
    shades = np.where(counts > 0, np.maximum(1, np.rint(shares * SHADES)), 0).astype(int)
    lines = (
        tuple(Cell(k, int(counts[label, k]), int(shades[label, k])) for k in range(n))
        for label in range(n if n <= MOST_CLASSES else 0)
    )
    off = counts.copy()
    np.fill_diagonal(off, 0)
    order = np.argsort(-off, axis=None, kind="stable")[:MOST_MISTAKES]
    pairs = [tuple(map(int, np.unravel_index(k, off.shape))) for k in order if off.flat[k]]
    mistakes = (Mistake(a, b, int(off[a, b]), float(shares[a, b])) for a, b in pairs)
    return Confusion(tuple(lines), tuple(mistakes))
