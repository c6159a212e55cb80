"""Images of which every explanation is known, and a classifier that takes a short cut: for whole nights of worth in seconds.

Of class `left` a square in the left half is bright, of `right` one in the right half, of `marked` a small mark in the lower right
corner or, in every other row, a square at the bottom. The network adds up what is in these places, and nothing else.
"""

from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

SIDE, N_TEST, N_TRAIN = 16, 240, 300
CLASSES = ("left", "marked", "right")
PLACES = {
    "left": (slice(5, 9), slice(2, 6)),
    "right": (slice(5, 9), slice(10, 14)),
    "bottom": (slice(12, 16), slice(3, 9)),
    "mark": (slice(13, 15), slice(13, 15)),
}
CLASS_OF = {"left": 0, "mark": 1, "bottom": 1, "right": 2}
STRENGTH, MARK_STRENGTH = 12.0, 40.0


def squares(n: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (row, y, x, channel) and labels, (row,); rows of the class `marked` by turns with the mark and the square."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % len(CLASSES)
    images = rng.integers(0, 40, (n, SIDE, SIDE, 1))
    for row, label in enumerate(labels):
        name = {0: "left", 1: ("mark", "bottom")[row // 3 % 2], 2: "right"}[int(label)]
        images[(row, *PLACES[name])] += rng.integers(130, 210)
    return images.astype(np.uint8), labels


def save_squares(folder: Path, *, name: str = "squares", n_test: int = N_TEST, seed: int = 0) -> Path:
    """As an .npz in Keras's layout."""
    x_train, y_train = squares(N_TRAIN, seed + 1)
    x_test, y_test = squares(n_test, seed)
    path = folder / f"{name}.npz"
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return path


def square_network(strength: float = 1.0) -> keras.Model:
    """Its weights are set by hand. strength: of another network, a factor on all of them."""
    layers = keras.layers
    images = keras.Input((SIDE, SIDE, 1), name="picture")
    seen = layers.Conv2D(2, 1, activation="relu", name="seen")(images)
    model = keras.Model(images, layers.Dense(len(CLASSES), activation="softmax")(layers.Flatten()(seen)))
    weights = np.zeros((SIDE, SIDE, 2, len(CLASSES)), np.float32)
    for name, place in PLACES.items():
        size = weights[(*place, 0, 0)].size
        weights[(*place, 0, CLASS_OF[name])] = (MARK_STRENGTH if name == "mark" else STRENGTH) * strength / size
    kernel = np.array([1.0, 0.5], np.float32).reshape(1, 1, 1, 2)
    model.set_weights([kernel, np.zeros(2, np.float32), weights.reshape(-1, len(CLASSES)), np.zeros(3, np.float32)])
    return model
