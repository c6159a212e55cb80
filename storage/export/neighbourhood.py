"""Which rows are explained alike: a place for each on a plane, and the rows most like it.

Both are of the heat of storage/export/embedding.py, which says where an attribution lies. Alike is by the cosine. The plane is
t-SNE's (van der Maaten & Hinton 2008; Barnes-Hut, 2014), begun at the first two principal components: near on it are rows
that are near in the heat, while distances between groups mean little. scikit-learn computes both.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.export.embedding import HeatFile, principal_components

__all__ = ["N_NEIGHBORS", "nearest", "plane"]

N_NEIGHBORS = 15
PERPLEXITY = 30
# The plane hardly changes after half of scikit-learn's default.
ITERATIONS = 500
# t-SNE wants a few rows more than its smallest perplexity.
FEW_ROWS = 8
# Of distances at a time; scikit-learn's own gigabyte is no quicker.
WORKING_MB = 64


def plane(heat: HeatFile, n_rows: int) -> NDArray[np.float32]:
    """The place of each row, (row, 2); the same for the same heat. A handful of rows lie by their principal components."""
    components, _ = principal_components(heat, np.arange(n_rows))
    begin = components[:, :2]
    if n_rows < FEW_ROWS or not begin.any():
        return begin
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    # As small as scikit-learn makes its own beginnings.
    begin = begin / begin.std(axis=0).max() * 1e-4
    perplexity = min(PERPLEXITY, (n_rows - 1) / 3)
    sne: Any = TSNE(init=begin, perplexity=perplexity, max_iter=ITERATIONS, random_state=0)
    # Several threads wait for each other a thousand times, which takes 20 times as long where other processes run, too.
    with threadpool_limits(1):
        return sne.fit_transform(heat.all_rows()).astype(np.float32)


def nearest(heat: HeatFile, n_rows: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Of each row the positions of those most like it, itself left out, the nearest first, and their cosine distances.

    Both (row, neighbour), with N_NEIGHBORS of them, or all others where there are fewer. Exact; a row without heat is at
    distance 1 of every other.
    """
    count = min(N_NEIGHBORS, n_rows - 1)
    if count < 1:
        return np.zeros((n_rows, 0), np.int64), np.zeros((n_rows, 0), np.float32)
    import sklearn
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=count, metric="cosine", algorithm="brute").fit(heat.all_rows())
    # Asked without rows it leaves each row out of its own neighbours.
    with sklearn.config_context(working_memory=WORKING_MB):
        distances, positions = index.kneighbors()
    return positions, np.maximum(distances, 0).astype(np.float32)
