"""Partial mu-fidelity: does removed attribution tell more of the fall of the score than removed brightness does?

Bhatt et al. 2020 correlate, over random masks, the attribution that a mask removes with the fall of the score. On dark images the
image itself wins. So both are first regressed, row by row, on how much of the image a mask removes, the sum of |x - x'|, and the
residuals are correlated: a partial correlation, of our own making. Every uninformed control lay within .02 of 0 in the mean.
It is noisy a row (Spearman .81 between 64 and 128 masks), and so a number for a sample of rows.
"""

import numpy as np
from numpy.typing import NDArray

from tasks.numerics.worth.removal import Scores

__all__ = ["falls", "partial_correlation", "random_masks", "removed"]

CELL = 4  # pixels a side
REMOVED = 0.2  # of the cells


def random_masks(n: int, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Masks (mask, y, x), true where pixels are removed: cells of CELL pixels, each with a chance of REMOVED. shape: (y, x)."""
    cells = [-(-side // CELL) for side in shape]
    chosen = rng.random((n, *cells)) < REMOVED
    return chosen.repeat(CELL, axis=1).repeat(CELL, axis=2)[:, : shape[0], : shape[1]]


def falls(
    scores: Scores,
    images: NDArray[np.float32],
    baselines: NDArray[np.float32],
    targets: NDArray[np.int64],
    masks: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """How far the score falls where each mask puts the baseline, (row, mask); the same for every explanation."""
    whole = scores(images, targets).astype(np.float64)
    masked = [scores(np.where(mask[None, ..., None], baselines, images), targets) for mask in masks]
    return whole[:, None] - np.stack(masked, axis=1)


def removed(amounts: NDArray, masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """How much of each amount the masks remove, (row, mask). amounts: (row, y, x), of an attribution or of the image."""
    return np.einsum("ryx,myx->rm", amounts.astype(np.float64), masks.astype(np.float64))


def partial_correlation(one: NDArray, other: NDArray, given: NDArray) -> NDArray[np.float64]:
    """Pearson correlation by row, (row,), once `given` is regressed out of both; NaN where either does not vary beside it.

    All: (row, mask).
    """
    one, other = _residuals(one, given), _residuals(other, given)
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(norms > 0, (one * other).sum(axis=1) / norms, np.nan)


def _residuals(values: NDArray, given: NDArray) -> NDArray[np.float64]:
    """What a straight line in `given` leaves of the values; exactly 0 where that is rounding."""
    centred, given = (a - a.mean(axis=1, keepdims=True) for a in (values.astype(np.float64), given.astype(np.float64)))
    squares = (given * given).sum(axis=1, keepdims=True)
    slope = np.divide(
        (centred * given).sum(axis=1, keepdims=True), squares, out=np.zeros_like(squares), where=squares > 0
    )
    left = centred - slope * given
    scale = np.linalg.norm(values.astype(np.float64), axis=1, keepdims=True)
    noise = np.linalg.norm(left, axis=1, keepdims=True) <= 1e-9 * scale
    return np.where(noise, 0.0, left)
