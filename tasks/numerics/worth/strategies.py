"""By which strategies a model recognises a class: clusters of its explanations, and the region that sets each one apart.

Heat is the attribution pooled to cells, signed, of unit norm. HDBSCAN on its principal components finds the clusters; of
marked images it found all, and on networks that did not use the mark none (Fashion-MNIST). After SpRAy (Lapuschkin et al. 2019).
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from scipy.ndimage import label as connected
from sklearn.cluster import HDBSCAN
from sklearn.decomposition import PCA

__all__ = [
    "CELLS",
    "LEAST_ROWS",
    "candidate_regions",
    "cells_of",
    "cluster",
    "grown",
    "medoids",
    "pooled",
    "region_of",
    "unit",
]

CELLS = 16  # a side, of images that are at least so large
COMPONENTS = 20
LEAST_ROWS = 50  # of a class
LEAST_MEMBERS, LEAST_SHARE, MIN_SAMPLES = 15, 0.02, 5
EXTENT, WIDE = 0.25, 0.1  # of the largest excess: what belongs to the region
BESIDE = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)


def cells_of(side: int, most: int = CELLS) -> NDArray[np.int64]:
    """The first pixel of each cell along a side, and the side itself: at most so many cells, as equal as they can be."""
    n = min(side, most)
    return np.arange(n + 1) * side // n


def pooled(relevance: NDArray, most: int = CELLS) -> NDArray[np.float64]:
    """Sums over cells, (row, cell_y, cell_x). relevance: (row, y, x), signed."""
    y, x = (cells_of(side, most)[:-1] for side in relevance.shape[1:])
    return np.add.reduceat(np.add.reduceat(relevance.astype(np.float64), y, axis=1), x, axis=2)


def unit(heat: NDArray) -> NDArray[np.float64]:
    """Each row with L2 norm 1; a row of zeros stays one. heat: (row, cell_y, cell_x)."""
    norms = np.sqrt(np.square(heat).sum(axis=(1, 2), keepdims=True))
    return heat / np.where(norms > 0, norms, 1)


def cluster(heat: NDArray[np.float64]) -> NDArray[np.int64]:
    """The cluster of each row, counted from 0, the largest first; -1 for rows that are in none. heat: of `unit`, of one class.

    Rows of zeros are in none. Of fewer rows than LEAST_ROWS nothing is found.
    """
    found = np.full(len(heat), -1)
    there = np.flatnonzero(heat.any(axis=(1, 2)))
    if len(there) < LEAST_ROWS:
        return found
    flat = heat[there].reshape(len(there), -1)
    if (flat == flat[0]).all():
        return found
    embedded = PCA(min(COMPONENTS, len(flat) - 1, flat.shape[1]), random_state=0).fit_transform(flat)
    least = max(LEAST_MEMBERS, math.ceil(LEAST_SHARE * len(flat)))
    labels = HDBSCAN(min_cluster_size=least, min_samples=MIN_SAMPLES, copy=True).fit_predict(embedded)
    names, counts = np.unique(labels[labels >= 0], return_counts=True)
    for number, name in enumerate(names[np.argsort(-counts, kind="stable")]):
        found[there[labels == name]] = number
    return found


def region_of(heat: NDArray[np.float64], inside: NDArray[np.bool_], extent: float = EXTENT) -> NDArray[np.bool_]:
    """The cells that set a cluster apart, (cell_y, cell_x): connected, around the largest excess of its mean over the rest's.

    heat: of `unit`, of one class. inside: which rows are the cluster's. extent: of the largest excess, what belongs to it. They
    are cells where the cluster's mean speaks for the class; none if there is no such cell, or no row beside the cluster.
    """
    if inside.all() or not inside.any():
        return np.zeros(heat.shape[1:], bool)
    mean = heat[inside].mean(axis=0)
    return _around_the_peak(np.where(mean > 0, mean - heat[~inside].mean(axis=0), 0), extent)


def candidate_regions(heat: NDArray[np.float64], inside: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """What may be the region of a cluster: by its excess over the class's other rows, and by its mean alone, for others may use
    the same shortcut; narrow, wide, and with the cells beside. Integrated Gradients lie on parts of a mark, and it takes more of
    it to make the class. heat, inside: as of `region_of`. Empty ones are left out.
    """
    if not inside.any():
        return []
    mean, extents = heat[inside].mean(axis=0), (EXTENT, WIDE)
    found = [region_of(heat, inside, extent) for extent in extents]
    found += [_around_the_peak(mean, extent) for extent in extents]
    found += [binary_dilation(region, BESIDE) for region in found[::2]]
    return [region for region in found if region.any()]


def _around_the_peak(field: NDArray[np.float64], extent: float) -> NDArray[np.bool_]:
    """The connected cells around the largest with at least that share of it; none where nothing is above 0."""
    if field.max() <= 0:
        return np.zeros(field.shape, bool)
    labels, _ = connected(field >= extent * field.max(), np.ones((3, 3)))
    return labels == labels.flat[field.argmax()]


def grown(cells: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Cells as pixels, (y, x). cells: (cell_y, cell_x) of images of that shape, (y, x)."""
    for axis, side in enumerate(shape):
        cells = cells.repeat(np.diff(cells_of(side, cells.shape[axis])), axis=axis)
    return cells


def medoids(heat: NDArray[np.float64], inside: NDArray[np.bool_], n: int) -> NDArray[np.int64]:
    """The rows of a cluster that are most like its mean, the first most. heat: of `unit`."""
    members = np.flatnonzero(inside)
    mean = heat[members].mean(axis=0)
    likeness = (heat[members] * mean).sum(axis=(1, 2))
    return members[np.argsort(-likeness, kind="stable")[:n]]
