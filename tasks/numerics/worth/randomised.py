"""Networks that know nothing: the weights of a network in random places, and how alike explanations by both are.

After Adebayo et al. 2018. Weights are permuted within each tensor, not drawn anew: it works for every architecture, keeps their
scale, and leaves no layer dead. What is compared are signed attributions where the image differs from the baseline: over all
pixels |IG| stays at .94 whatever the weights are, which is the background alone.
"""

import keras
import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

__all__ = ["permute_weights", "rank_correlation"]

LEAST_PIXELS = 8


def permute_weights(network: keras.Model, original: list[NDArray], rng: np.random.Generator) -> int:
    """Gives the network its original weights in random places; returns how many tensors that changed.

    original: of `network.get_weights()`. A tensor of one value or of equal values stays as it is.
    """
    shuffled = [rng.permutation(weight.ravel()).reshape(weight.shape) for weight in original]
    network.set_weights(shuffled)
    return sum(bool((new != old).any()) for new, old in zip(shuffled, original, strict=True))


def rank_correlation(one: NDArray, other: NDArray, where: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Spearman's correlation of each row over some of its pixels, (row,); NaN where either does not vary, or they are few.

    All: (row, y, x).
    """
    found = np.full(len(one), np.nan)
    for row, chosen in enumerate(where):
        pair = np.stack([one[row][chosen], other[row][chosen]]).astype(np.float64)
        if pair.shape[1] >= LEAST_PIXELS and (pair.min(axis=1) < pair.max(axis=1)).all():
            found[row] = np.corrcoef(rankdata(pair, axis=1))[0, 1]
    return found
