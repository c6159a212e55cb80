"""What the rows of each class have in common: mean image, mean attribution, mean map; in one pass over the store."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from storage import AttributionStore
from storage.means import block_rows
from tasks.report.pictures import Explanation, draw_explanation, draw_image

__all__ = ["ClassMean", "class_means"]

MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class ClassMean:
    """A class that some rows have, and its means as pictures."""

    name: str
    n_rows: int
    image: str
    explanation: Explanation


def class_means(store: AttributionStore, most_classes: int) -> list[ClassMean]:
    """The means of each class that has rows, of the first ones if there are many."""
    shape, cam_shape = store.shape_of("image")[1:], store.shape_of("grad_cam/map")[1:]
    least = np.unique(store.labels)[:most_classes]
    if len(least) * 2 * 8 * np.prod(shape) > MOST_BYTES:
        least = least[: max(1, int(MOST_BYTES // (2 * 8 * np.prod(shape))))]
    images, attributions = np.zeros((len(least), *shape)), np.zeros((len(least), *shape))
    maps, n_rows = np.zeros((len(least), *cam_shape)), np.zeros(len(least), dtype=int)
    numbers, block = store.row_numbers, block_rows(shape, 8)
    for start in range(0, len(numbers), block):
        rows, labels = numbers[start : start + block], store.labels[start : start + block]
        read = (store.image[rows], store.attributions(rows), store.maps(rows))
        for position, label in enumerate(least):
            own = labels == label
            for total, values in zip((images, attributions, maps), read, strict=True):
                total[position] += values[own].sum(axis=0, dtype=np.float64)
            n_rows[position] += own.sum()
    return [
        _draw(store.class_names[label], int(n), *sums)
        for label, n, *sums in zip(least, n_rows, images, attributions, maps, strict=True)
    ]


def _draw(name: str, n: int, image: NDArray, attribution: NDArray, grad_cam: NDArray) -> ClassMean:
    pixels = np.rint(image / n).astype(np.uint8)
    return ClassMean(name, n, draw_image(pixels), draw_explanation(attribution / n, grad_cam / n))
