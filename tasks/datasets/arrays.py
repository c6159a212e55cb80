"""Datasets that arrive as arrays: scikit-learn's digits, and .npz files in the Keras layout.

Convention: x_train and x_test are uint8 (row, y, x), (row, y, x, 1) or (row, y, x, 3); y_train and y_test are whole
numbers (row,) or (row, 1) from 0; class_names, which Keras does not have, is optional text (class,). Row i of the
prepared split is row i of the array. Nothing is unpickled.
"""

import hashlib
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tasks.datasets.conversion import convert, is_prepared, place
from tasks.datasets.dataset import DatasetError

__all__ = ["prepare_digits", "prepare_npz"]

KEYS = ("x_train", "y_train", "x_test", "y_test")
N_TEST_DIGITS = 360
DIGITS_REMARK = (
    "prepared: 8x8x1 values 0..16 to 32x32x3: times 255/16, bilinear upscaling, rounded to uint8, grey to RGB; "
    "stratified split, random state 0"
)


@dataclass(frozen=True)
class _Split:
    images: npt.NDArray[np.uint8]
    """(row, y, x, channel)"""
    labels: npt.NDArray[np.int64]
    """(row,)"""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(y, x, channel)"""
        _, y, x, n_channels = self.images.shape
        return y, x, n_channels

    def __call__(self) -> Iterator[tuple[npt.NDArray[np.uint8], int]]:
        return zip(self.images, self.labels.tolist(), strict=True)


def prepare_digits(root: Path) -> Path:
    """Converts scikit-learn's bundled digits, 1,437 to train on and 360 to test, and returns the prepared directory."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    labels = digits.target.astype(np.int64)
    images = np.stack([_upscale(image) for image in digits.images])
    train, test = train_test_split(np.arange(len(labels)), test_size=N_TEST_DIGITS, random_state=0, stratify=labels)
    splits = {
        role: _Split(images[rows], labels[rows]) for role, rows in (("train", np.sort(train)), ("test", np.sort(test)))
    }
    digest = hashlib.sha256()
    for split in splits.values():
        digest.update(split.images.tobytes() + split.labels.tobytes())
    return convert(place(root, "digits", digest.hexdigest()), splits, tuple("0123456789"), (32, 32, 3), DIGITS_REMARK)


def _upscale(image: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """8x8 values 0..16 to 32x32x3 uint8. Bilinear, because bicubic overshoots 0..255 and would need clipping."""
    grey = Image.fromarray((image * 255 / 16).astype(np.float32))
    large = np.rint(np.asarray(grey.resize((32, 32), Image.Resampling.BILINEAR))).astype(np.uint8)
    return np.repeat(large[..., None], 3, axis=-1)


def prepare_npz(path: Path, root: Path) -> Path:
    """Converts a Keras-layout .npz and returns the prepared directory; the same content is converted once.

    Raises DatasetError for a file that is damaged or in another layout.
    """
    with path.open("rb") as file:
        directory = place(root, path.stem, hashlib.file_digest(file, "sha256").hexdigest())
    if is_prepared(directory):
        return directory
    arrays = _load(path)
    splits = {role: _check_split(path, role, arrays[f"x_{role}"], arrays[f"y_{role}"]) for role in ("train", "test")}
    shape, test_shape = splits["train"].shape, splits["test"].shape
    if shape != test_shape:
        raise DatasetError(f"{path}: x_train and x_test must have one image shape, got {shape} and {test_shape}")
    class_names = _class_names(path, splits, arrays.get("class_names"))
    return convert(directory, splits, class_names, shape, f"Converted from {path.name}.")


def _load(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays of the layout, by key."""
    if not zipfile.is_zipfile(path):
        raise DatasetError(
            f"{path}: expected an .npz file (a zip of arrays), got {path.stat().st_size} bytes that are not a whole "
            "zip; copy it again, or write it with numpy.savez_compressed"
        )
    arrays: dict[str, npt.NDArray[Any]] = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in KEYS if key not in file.files]
            if missing:
                raise DatasetError(
                    f"{path}: expected the arrays {' '.join(KEYS)}, missing {' '.join(missing)}; "
                    f"it has: {' '.join(file.files) or 'none'}"
                )
            for key in file.files:
                if key in (*KEYS, "class_names"):
                    arrays[key] = _load_array(path, key, file)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise DatasetError(
            f"{path}: damaged, an array cannot be read ({error}); copy or write the file again"
        ) from error
    return arrays


def _load_array(path: Path, key: str, file: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    try:
        return file[key]
    except ValueError as error:
        raise DatasetError(
            f"{path}: {key} cannot be read without unpickling ({error}); save it as a plain array of numbers or text"
        ) from error


def _check_split(path: Path, role: str, images: npt.NDArray[Any], labels: npt.NDArray[Any]) -> _Split:
    """The split in one layout: images (row, y, x, channel), labels (row,)."""
    if images.dtype != np.uint8:
        remedy = (
            "multiply by 255, round and cast to uint8" if images.dtype.kind == "f" else "cast them to uint8 (0..255)"
        )
        raise DatasetError(f"{path}: x_{role} must be uint8, got {images.dtype}; {remedy}")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or 0 in images.shape[1:]:
        raise DatasetError(
            f"{path}: x_{role} must be (row, y, x), (row, y, x, 1) or (row, y, x, 3), got shape {images.shape}; "
            "reshape it, channels last"
        )
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise DatasetError(f"{path}: y_{role} must be (row,) or (row, 1), got shape {labels.shape}; save class numbers")
    if len(images) != len(labels):
        raise DatasetError(f"{path}: x_{role} has {len(images)} rows and y_{role} has {len(labels)}; they must agree")
    if not len(images):
        raise DatasetError(f"{path}: x_{role} is empty; it needs one image at least")
    return _Split(images, _check_labels(path, role, labels))


def _check_labels(path: Path, role: str, labels: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    whole = labels.dtype.kind in "iu" or (labels.dtype.kind == "f" and bool(np.all(np.mod(labels, 1) == 0)))
    if not whole:
        wrong = labels[np.mod(labels, 1) != 0][0] if labels.dtype.kind == "f" else labels.dtype
        raise DatasetError(f"{path}: y_{role} must hold whole class numbers from 0, got {wrong}; number the classes")
    if labels.min() < 0:
        row = int(np.argmin(labels))
        raise DatasetError(f"{path}: y_{role} must hold class numbers from 0, got {labels[row]} in row {row}")
    return labels.astype(np.int64)


def _class_names(path: Path, splits: Mapping[str, _Split], given: npt.NDArray[Any] | None) -> tuple[str, ...]:
    """The names given, or "0", "1", ... up to the largest label."""
    labels = np.unique(np.concatenate([split.labels for split in splits.values()]))
    largest = int(labels[-1])
    if given is None:
        known = int(splits["train"].labels.max())
        if largest > known:
            row = int(np.argmax(splits["test"].labels > known))
            raise DatasetError(
                f"{path}: y_test has label {splits['test'].labels[row]} in row {row}, y_train only goes to {known}; "
                "correct the labels, or add class_names with every class"
            )
        # Names invented for classes that mostly do not occur would make a model of mostly dead outputs.
        if largest + 1 > 2 * len(labels) + 8:
            raise DatasetError(
                f"{path}: labels run to {largest} but only {len(labels)} values occur; number the classes from 0, or "
                "add class_names"
            )
        return tuple(str(label) for label in range(largest + 1))
    if given.ndim != 1 or given.dtype.kind not in "US":
        raise DatasetError(
            f"{path}: class_names must be text (class,), got {given.dtype} of shape {given.shape}; save a list of names"
        )
    names = tuple(name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in given)
    if largest >= len(names):
        raise DatasetError(f"{path}: labels must be below {len(names)}, the number of class_names, got {largest}")
    if len(set(names)) < len(names):
        raise DatasetError(f"{path}: class_names must differ, got {', '.join(names)}")
    return names
