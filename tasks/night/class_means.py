"""What the rows of each class have in common: the mean image and the mean picture of each method; in one pass over the store."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import prod

import numpy as np
from numpy.typing import NDArray

from storage import AttributionStore, StoredMethod
from storage.read.row_means import means_by_group

__all__ = ["ClassMean", "class_means"]

MOST_CLASSES = 40
MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class ClassMean:
    """A class that some rows have, and the means of their raw values.

    image: (y, x, channel), rounded; without channels where the store has no images. pictures: by method, attributions
    (y, x, channel) and maps (cam_y, cam_x).
    """

    label: int
    n_rows: int
    image: NDArray[np.uint8]
    pictures: Mapping[StoredMethod, NDArray[np.float64]]


def class_means(store: AttributionStore, most_classes: int = MOST_CLASSES) -> list[ClassMean]:
    """The means of each class that has rows; if there are many or their pictures are large, of the first ones."""
    fitting = max(1, MOST_BYTES // (2 * 8 * prod(store.image_shape)))
    labels, counts = np.unique(store.labels, return_counts=True)
    labels, counts = labels[: min(most_classes, fitting)], counts[: min(most_classes, fitting)]
    own = np.isin(store.labels, labels)
    rows, groups = store.row_numbers[own], store.labels[own]

    def means_of(path: str) -> dict[int, NDArray[np.float64]]:
        return means_by_group(partial(store.values, path), rows, groups, store.shape_of(path)[1:])

    nothing = np.empty((*store.image_shape[:2], 0))
    images = means_of("image") if store.has_images else dict.fromkeys(labels.tolist(), nothing)
    explained = {method: means_of(method.picture) for method in store.methods}
    return [
        ClassMean(
            label,
            n,
            np.rint(images[label]).astype(np.uint8),
            {method: means[label] for method, means in explained.items()},
        )
        for label, n in zip(labels.tolist(), counts.tolist(), strict=True)
    ]
