"""A canary pair: two small networks on the same marked images, one that knows the mark and one that knows the object.

After BAM (Yang & Kim 2019). Where an explanation looks is known of both: on the mark, which is there independently of the object,
and not on it. A method that cannot tell the two apart is none. There is no batch normalisation in them, whose moving moments
would not be ready after so few steps.
"""

from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from tasks.numerics.worth.strategies import pooled

__all__ = ["LAYER", "SIDE", "Marked", "canary_network", "cells_near", "mark_images", "share_in_mark", "shrunk"]

SIDE, MARK_SHARE = 32, 8  # the mark's side is an eighth of the image's
LAYER = "cam"


@dataclass(frozen=True)
class Marked:
    """images: (row, y, x, channel) in 0..1. places: of each mark, (row,). masks: where each is, (row, y, x)."""

    images: NDArray[np.float32]
    places: NDArray[np.int64]
    masks: NDArray[np.bool_]


def shrunk(images: NDArray[np.float32], side: int = SIDE) -> NDArray[np.float32]:
    """Images of at most that side, means over cells: what a small network can be trained on."""
    if max(images.shape[1:3]) <= side:
        return images
    cells = pooled(np.ones((1, *images.shape[1:3])), side)[0]
    channels = [pooled(images[..., k], side) / cells for k in range(images.shape[-1])]
    return np.stack(channels, axis=-1).astype(np.float32)


def mark_images(images: NDArray[np.float32], rng: np.random.Generator) -> Marked:
    """Each image with a white square in one of ten places, which do not depend on it."""
    n, y, x = images.shape[:3]
    size = max(1, y // MARK_SHARE), max(1, x // MARK_SHARE)
    corners = _corners(y - size[0], x - size[1])
    places = rng.integers(0, len(corners), n)
    masks = np.zeros((n, y, x), bool)
    for k, (top, left) in enumerate(corners):
        masks[places == k, top : top + size[0], left : left + size[1]] = True
    return Marked(np.where(masks[..., None], 1, images).astype(np.float32), places, masks)


def _corners(y: int, x: int) -> list[tuple[int, int]]:
    """Ten places along the edges, the last pixel that a mark may begin at being (y, x)."""
    down, across = ([round(side * (0.06 + 0.88 * k / 3)) for k in range(4)] for side in (y, x))
    sides = [(top, left) for left in (across[0], across[-1]) for top in down]
    return [*sides, (down[0], across[1]), (down[-1], across[2])]


def canary_network(shape: tuple[int, ...], n_classes: int) -> keras.Model:
    """Three convolutions and two dense layers, compiled for training; its maps are of the layer LAYER."""
    layers = keras.layers
    network = keras.Sequential(
        [
            keras.Input(shape),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, padding="same", activation="relu", name=LAYER),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(n_classes, activation="softmax"),
        ]
    )
    network.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return network


def cells_near(masks: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The cells of a map that a mark touches, and their neighbours: its layer's convolution sees one cell around each.

    masks: (row, y, x). shape: of the maps, (cam_y, cam_x). Returns (row, cam_y, cam_x).
    """
    y, x = (np.arange(n) * side // n for n, side in zip(shape, masks.shape[1:], strict=True))
    touched = np.logical_or.reduceat(np.logical_or.reduceat(masks, y, axis=1), x, axis=2)
    return binary_dilation(touched, np.ones((1, 3, 3)))


def share_in_mark(relevance: NDArray, masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """How much of each row's positive relevance is in its mark, (row,); NaN where there is none. Both: (row, y, x)."""
    positive = np.maximum(relevance.astype(np.float64), 0)
    total = positive.sum(axis=(1, 2))
    inside = (positive * masks).sum(axis=(1, 2))
    return np.divide(inside, total, out=np.full(len(total), np.nan), where=total > 0)
