"""The score while pixels give way to the baseline in the order of an attribution, all channels of a pixel at once.

Deletion and insertion are those of Petsiuk et al. 2018 (RISE) with the baseline as what replaces pixels. Their difference is the
symmetric relevance gain of Bluecher et al. 2024: with one fill the insertion curve is the deletion curve of the reversed order,
and so it needs no call of its own. Two intervals rank rows as 32 do (Spearman .98 on Fashion-MNIST) for two passes a row.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Halves", "Scores", "area", "curves", "halves", "pixel_order", "relevance_gain"]

# From images, float32 (row, y, x, channel), to each one's score of its own target, (row,).
Scores = Callable[[NDArray[np.float32], NDArray[np.int64]], NDArray[np.floating]]


@dataclass(frozen=True)
class Halves:
    """Scores of the explained class, (row,): keep has the better half of the pixels, drop the other, each beside the baseline."""

    keep: NDArray[np.float32]
    drop: NDArray[np.float32]

    @property
    def area(curve: NDArray, fractions: Sequence[float]) -> NDArray[np.float64]:
    """The area under each row's curve by the trapezoid rule, (row,). curve: (row, fraction)."""
    widths = np.diff(np.asarray(fractions, np.float64))
    return ((curve[:, 1:].astype(np.float64) + curve[:, :-1]) / 2 * widths).sum(axis=1)


def relevance_gain(deletion: NDArray, insertion: NDArray, fractions: Sequence[float]) -> NDArray[np.float64]:
    """The area between insertion and deletion, (row,). Both: (row, fraction), from 0 to 1."""
    return area(insertion.astype(np.float64) - deletion, fractions)
