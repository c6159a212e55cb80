"""What the rows of each class have in common: mean image, mean attribution, mean map; in one pass over the store."""

from dataclasses import dataclass
from functools import partial
from math import prod

import numpy as np
from numpy.typing import NDArray

from storage import AttributionStore
from storage.read.row_means import means_by_group

__all__ = ["ClassMean", "class_means"]

MOST_CLASSES = 40
MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class ClassMean:
    """A class that some rows have, and the means of their raw values.

    image: (y, x, channel), rounded. attribution: (y, x, channel), in units of the score. grad_cam: (cam_y, cam_x), None where
    the store has no Grad-CAM.
    """

    label: int
    n_rows: int
    image: NDArray[np.uint8]
    attribution: NDArray[np.float64]
    grad_cam: NDArray[np.float64] | None


def class_means(store: AttributionStore, most_classes: int = MOST_CLASSES) -> list[ClassMean]:
    """The means of each class that has rows; if there are many or their pictures are large, of the first ones."""
    fitting = max(1, MOST_BYTES // (2 * 8 * prod(store.shape_of("image")[1:])))
    labels, counts = np.unique(store.labels, return_counts=True)
    labels, counts = labels[: min(most_classes, fitting)], counts[: min(most_classes, fitting)]
    own = np.isin(store.labels, labels)
    rows, groups = store.row_numbers[own], store.labels[own]
    paths = ("image", "integrated_gradients/attribution", *(("grad_cam/map",) if store.has_grad_cam else ()))
    images, attributions, *maps = (
        means_by_group(partial(store.values, path), rows, groups, store.shape_of(path)[1:]) for path in paths
    )
    return [
        ClassMean(
            label, n, np.rint(images[label]).astype(np.uint8), attributions[label], maps[0][label] if maps else None
        )
        for label, n in zip(labels.tolist(), counts.tolist(), strict=True)
    ]
