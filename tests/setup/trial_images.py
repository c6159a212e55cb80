"""Small coloured images that a network learns in seconds, and the ways in which people feed them to it.

scikit-learn's digits, each in colours of its own. The ink of even digits is warm and that of odd ones cold, and the digits
0, 3, 6 and 9 are bright, whatever their shape, so that accuracy tells when red and blue are exchanged and when values are
scaled or moved. The background's colour says nothing.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

N_TRAIN, N_TEST = 1000, 128
SIDE = 16
FAINT = 0.3  # of the ink's red in cold digits, of its blue in warm ones
BRIGHT, DARK = (0.8, 1.0), (0.35, 0.5)


@dataclass(frozen=True)
class Images:
    """x: (row, y, x, channel) or, grey, (row, y, x), uint8. y: (row,), class numbers."""

    x_train: NDArray[np.uint8]
    y_train: NDArray[np.int64]
    x_test: NDArray[np.uint8]
    y_test: NDArray[np.int64]

    @property
    def n_classes(self) -> int:
        return int(self.y_train.max()) + 1


@cache
def images(name: str) -> Images:
    """coloured: 16x16x3, ten classes; two_classes: the digits 0 and 1 of these; grey28: 28x28 without colour."""
    found = load_digits()
    n_classes, side = (2 if name == "two_classes" else 10), (28 if name == "grey28" else SIDE)
    rng = np.random.default_rng(0)
    chosen = rng.permutation(np.flatnonzero(found.target < n_classes))[: N_TRAIN + N_TEST]
    y = found.target[chosen].astype(np.int64)
    ink = np.stack([_enlarged(found.images[number], side) for number in chosen])
    ink *= np.where(y % 3 == 0, rng.uniform(*BRIGHT, len(y)), rng.uniform(*DARK, len(y)))[:, None, None]
    x = np.rint(255 * (ink if name == "grey28" else _coloured(ink, y, rng))).astype(np.uint8)
    n_train = len(y) - N_TEST
    return Images(x[:n_train], y[:n_train], x[n_train:], y[n_train:])


def _enlarged(digit: NDArray[np.float64], side: int) -> NDArray[np.float32]:
    """The share of ink in each pixel, 0..1."""
    grey = Image.fromarray((digit / 16).astype(np.float32))
    return np.asarray(grey.resize((side, side), Image.Resampling.BILINEAR))


def _coloured(ink: NDArray[np.float32], y: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.float64]:
    background = rng.uniform(0.0, 0.15, (len(ink), 1, 1, 3))
    foreground = rng.uniform(0.75, 1.0, (len(ink), 1, 1, 3))
    is_warm = y % 2 == 0
    foreground[~is_warm, ..., 0] *= FAINT
    foreground[is_warm, ..., 2] *= FAINT
    return background + ink[..., None] * (foreground - background)


@dataclass(frozen=True)
class Feed:
    """fed = (image / 255 - mean) / scale, channels then reversed if bgr. mean, scale: one number, or one a channel, red first."""

    mean: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    bgr: bool = False

    def __call__(self, x: NDArray[np.uint8]) -> NDArray[np.float32]:
        fed = (x / 255.0 - np.array(self.mean)) / np.array(self.scale)
        return (fed[..., ::-1] if self.bgr else fed).astype(np.float32)

    @property
    def setting(self) -> dict[str, Any]:
        """As a person would set it."""
        return {"mean": list(self.mean), "scale": list(self.scale), "bgr": self.bgr}


@cache
def feeds() -> dict[str, Feed]:
    """By name. standardised: by the mean and deviation of each channel of the coloured training images."""
    pixels = images("coloured").x_train.reshape(-1, 3) / 255.0
    mean, deviation = pixels.mean(0), pixels.std(0)
    caffe = tuple(value / 255 for value in (123.68, 116.779, 103.939))
    return {
        "unit": Feed(),
        "raw": Feed(scale=(1 / 255,)),
        "signed": Feed(mean=(0.5,), scale=(0.5,)),
        "torch": Feed(mean=(0.485, 0.456, 0.406), scale=(0.229, 0.224, 0.225)),
        "caffe": Feed(mean=caffe, scale=(1 / 255,), bgr=True),
        "unit-bgr": Feed(bgr=True),
        "standardised": Feed(mean=tuple(mean.tolist()), scale=tuple(deviation.tolist())),
    }
