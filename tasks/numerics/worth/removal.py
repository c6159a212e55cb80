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
    def relevance_gain(self) -> NDArray[np.float32]:
        """Half the difference: the area between insertion and deletion of two intervals, -0.5 to 0.5 for a probability."""
        return (self.keep - self.drop) / 2


def pixel_order(relevance: NDArray) -> NDArray[np.int64]:
    """The rank of each pixel, 0 for the most relevant. relevance: (row, y, x), signed.

    Ties, of which a background is full, go by an order of the pixels that was drawn once: it prefers no place, and a row's
    ranks follow from the row alone.
    """
    n = math.prod(relevance.shape[1:])
    scattered = np.random.default_rng(0).permutation(n)
    order = scattered[np.argsort(-relevance.reshape(len(relevance), n)[:, scattered], axis=1, kind="stable")]
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(n)[None], axis=1)
    return ranks.reshape(relevance.shape)


def halves(
    scores: Scores,
    images: NDArray[np.float32],
    baselines: NDArray[np.float32],
    targets: NDArray[np.int64],
    relevance: NDArray,
) -> Halves:
    """Scores with the more relevant half of the pixels alone, and without it. relevance: (row, y, x), signed."""
    better = (pixel_order(relevance) < math.prod(relevance.shape[1:]) // 2)[..., None]
    keep = scores(np.where(better, images, baselines), targets)
    drop = scores(np.where(better, baselines, images), targets)
    return Halves(keep.astype(np.float32), drop.astype(np.float32))


def curves(
    scores: Scores,
    images: NDArray[np.float32],
    baselines: NDArray[np.float32],
    targets: NDArray[np.int64],
    relevance: NDArray,
    fractions: Sequence[float],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Deletion and insertion, (row, fraction): scores with that share of the most relevant pixels removed, and alone kept."""
    order = pixel_order(relevance) / math.prod(relevance.shape[1:])
    deletion, insertion = np.empty((2, len(images), len(fractions)), np.float32)
    for k, fraction in enumerate(fractions):
        first = (order < fraction)[..., None]
        deletion[:, k] = scores(np.where(first, baselines, images), targets)
        insertion[:, k] = scores(np.where(first, images, baselines), targets)
    return deletion, insertion


def area(curve: NDArray, fractions: Sequence[float]) -> NDArray[np.float64]:
    """The area under each row's curve by the trapezoid rule, (row,). curve: (row, fraction)."""
    widths = np.diff(np.asarray(fractions, np.float64))
    return ((curve[:, 1:].astype(np.float64) + curve[:, :-1]) / 2 * widths).sum(axis=1)


def relevance_gain(deletion: NDArray, insertion: NDArray, fractions: Sequence[float]) -> NDArray[np.float64]:
    """The area between insertion and deletion, (row,). Both: (row, fraction), from 0 to 1."""
    return area(insertion.astype(np.float64) - deletion, fractions)
