"""What each row's explanation is worth: the score of its predicted class by the halves of the image that it makes."""

import numpy as np
from numpy.typing import NDArray

from storage.file.schema import QUALITY
from tasks.numerics.explainer import Explainer
from tasks.numerics.worth.removal import halves

__all__ = ["judge_rows"]


def judge_rows(
    explainer: Explainer,
    images: NDArray[np.float32],
    baselines: NDArray[np.float32],
    predictions: NDArray[np.int64],
    attributions: NDArray[np.float32],
) -> dict[str, NDArray]:
    """The arrays of the group `quality`, by path, of images (row, y, x, channel).

    attributions: of the predicted class, as they are stored, shaped as the images.
    """
    found = halves(explainer.scores, images, baselines, predictions, attributions.sum(axis=-1))
    return {
        f"{QUALITY}/keep_half": found.keep,
        f"{QUALITY}/drop_half": found.drop,
        f"{QUALITY}/relevance_gain": found.relevance_gain,
    }
