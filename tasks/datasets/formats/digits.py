"""scikit-learn's digits, the dataset that comes embedded: 1,437 images to train on and 360 to test."""

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from tasks.datasets.conversion import convert, place
from tasks.datasets.formats.npz import ArraySplit

__all__ = ["prepare_digits"]

N_TEST_DIGITS = 360
REMARKS = (
    "prepared: 8x8x1 values 0..16 to 32x32x3: times 255/16, bilinear upscaling, rounded to uint8, grey to RGB; "
    "stratified split, random state 0\nclasses: by digit"
)


def prepare_digits(root: Path) -> Path:
    """Converts them, once, and returns the prepared directory."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    labels = digits.target.astype(np.int64)
    images = np.stack([_upscale(image) for image in digits.images])
    train, test = train_test_split(np.arange(len(labels)), test_size=N_TEST_DIGITS, random_state=0, stratify=labels)
    splits = {
        role: ArraySplit(images[rows], labels[rows])
        for role, rows in (("train", np.sort(train)), ("test", np.sort(test)))
    }
    digest = hashlib.sha256()
    for split in splits.values():
        digest.update(split.images.tobytes() + split.labels.tobytes())
    return convert(place(root, "digits", digest.hexdigest()), splits, tuple("0123456789"), (32, 32, 3), REMARKS)


def _upscale(image: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """8x8 values 0..16 to 32x32x3 uint8. Bilinear, because bicubic overshoots 0..255 and would need clipping."""
    grey = Image.fromarray((image * 255 / 16).astype(np.float32))
    large = np.rint(np.asarray(grey.resize((32, 32), Image.Resampling.BILINEAR))).astype(np.uint8)
    return np.repeat(large[..., None], 3, axis=-1)
