"""What looks like an attribution and explains nothing: an explanation is worth what it is better than these."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["another_images", "brightness", "permuted"]


def permuted(relevance: NDArray, changed: NDArray[np.bool_], rng: np.random.Generator) -> NDArray:
    """The same values in random places of the object. Both: (row, y, x); changed: where the image is not the baseline."""
    result = relevance.copy()
    for row, on in zip(result, changed, strict=True):
        row[on] = rng.permutation(row[on])
    return result


def another_images(targets: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """For each row another one that is explained for the same class, (row,); -1 where there is none."""
    found = np.full(len(targets), -1)
    for target in np.unique(targets):
        rows = np.flatnonzero(targets == target)
        if len(rows) > 1:
            # One cycle through all of them, so that none is its own.
            cycle = rng.permutation(rows)
            found[cycle] = np.roll(cycle, 1)
    return found


def brightness(images: NDArray[np.float32], baselines: NDArray[np.float32]) -> NDArray[np.float64]:
    """How far each pixel is from the baseline, summed over channels, (row, y, x)."""
    return np.abs(images.astype(np.float64) - baselines).sum(axis=-1)
