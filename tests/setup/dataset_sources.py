"""Small sources of datasets, every image different, and what tests of datasets do with them."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from tasks.config import DatasetConfig
from tasks.datasets import DatasetError, prepare, read_rows


def keras_arrays(n_train=12, n_test=7, shape=(9, 10), n_classes=3, seed=0):
    """A small dataset in the Keras layout, every image different."""
    rng = np.random.default_rng(seed)
    return {
        "x_train": rng.integers(0, 256, (n_train, *shape), np.uint8),
        "y_train": np.arange(n_train) % n_classes,
        "x_test": rng.integers(0, 256, (n_test, *shape), np.uint8),
        "y_test": np.arange(n_test) % n_classes,
    }


def write_npz(path, **arrays):
    np.savez(path, **arrays)
    return path


def prepare_source(source, root, **options):
    return prepare(DatasetConfig(source=str(source), **options), root)


def everything(dataset, split):
    return read_rows(dataset, split, 0, dataset.n_rows(split))


def fingerprint(dataset):
    """The sha256 of the record, from its definition."""
    digest = hashlib.sha256()
    for role in ("train", "test"):
        images, labels = everything(dataset, role)
        digest.update(f"{role} {' '.join(map(str, images.shape))}\n".encode() + images.tobytes() + labels.tobytes())
    return digest.hexdigest()


def assert_refused(source, root, message, **options):
    with pytest.raises(DatasetError, match=message) as caught:
        prepare_source(source, root, **options)
    assert "\n" not in str(caught.value)


def write_images(folder, splits=("train", "test"), classes=("cat", "dog"), n_images=3, mode="RGB", suffix="png"):
    """ROOT/SPLIT/CLASS/*.png, 12x10; returns the arrays by (split, class)."""
    rng = np.random.default_rng(1)
    written = {}
    for split in splits:
        for name in classes:
            (folder / split / name).mkdir(parents=True)
            images = rng.integers(0, 256, (n_images, 12, 10, len(mode)), np.uint8)
            for index, image in enumerate(images):
                Image.fromarray(image.squeeze(), mode).save(folder / split / name / f"{index}.{suffix}")
            written[split, name] = images
    return written
