"""Datasets that arrive as an .npz file: Keras's layout, and what other tools call the same arrays.

Convention: images x_train and x_test are (row, y, x), (row, y, x, channel) or (row, channel, y, x) with 1, 3 or 4
channels, the fourth transparency that is laid over black; `pixels` says which numbers, `labels` which y_train and y_test.
Row i of the prepared split is row i of the array. Nothing is unpickled.
"""

import hashlib
import re
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
from tasks.datasets.counting import Count, Report
from tasks.datasets.dataset import DatasetError
from tasks.datasets.formats.image_file import encode_png
from tasks.datasets.formats.labels import read_classes
from tasks.datasets.formats.pixels import to_uint8

__all__ = ["ArraySplit", "prepare_npz"]

ROLES = ("train", "test")
KEYS = "x_train y_train x_test y_test"
IMAGES = "x|images?|imgs?|data"
LABELS = "y|labels?|targets?"
OTHER_SPLITS = "val|valid|validation|dev"
# x_train, X_train, train_x, trainX, train_images, images_train, ...
SPELLING = re.compile(
    rf"(?P<kind>{IMAGES}|{LABELS})_?(?P<split>train|test|{OTHER_SPLITS})"
    rf"|(?P<split2>train|test|{OTHER_SPLITS})_?(?P<kind2>{IMAGES}|{LABELS})",
    re.IGNORECASE,
)

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ArraySplit:
    """images: (row, y, x, channel). labels: (row,). count: of the rows that were encoded, if somebody counts."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    count: Count | None = None

    def __call__(self) -> Iterator[tuple[bytes, int]]:
        for image, label in zip(self.images, self.labels.tolist(), strict=True):
            yield encode_png(image), label
            if self.count:
                self.count.add(1)


def prepare_npz(path: Path, root: Path, report: Report | None = None) -> Path:
    """Converts an .npz and returns the prepared directory; the same content is converted once.

    Raises DatasetError for a file that is damaged, in another layout, or whose numbers could mean several things.
    """
    with path.open("rb") as file:
        directory = place(root, path.stem, hashlib.file_digest(file, "sha256").hexdigest())
    if is_prepared(directory):
        return directory
    arrays, left_out = _load(path)
    remarks = [f"{', '.join(left_out)} left out"] if left_out else []
    images = {}
    for role in ROLES:
        key, array = arrays["x", role]
        images[key], remark = _channels_last(path, key, array)
        remarks += [f"{key} {remark}"] if remark else []
        _check_rows(path, key, images[key], *arrays["y", role])
    x_train, x_test = (arrays["x", role][0] for role in ROLES)
    shape, test_shape = images[x_train].shape[1:], images[x_test].shape[1:]
    if shape != test_shape:
        raise DatasetError(f"{path}: {x_train} and {x_test} must have one image shape, got {shape} and {test_shape}")
    classes = read_classes(
        str(path), {role: arrays["y", role] for role in ROLES}, arrays.get(("names", ""), ("", None))[1]
    )
    pixels, how = to_uint8(str(path), images)
    remarks += [*([how] if how else []), *classes.remarks]
    if shape[-1] == 4:
        pixels = {key: np.stack(list(map(_over_black, array))) for key, array in pixels.items()}
        remarks.append("transparency laid over black")
    count = Count("converting", sum(map(len, pixels.values())), report)
    splits = {role: ArraySplit(pixels[arrays["x", role][0]], classes.labels[role], count) for role in ROLES}
    lines = [
        f"Converted from {path.name}.",
        f"classes: {classes.order}",
        *(f"prepared: {remark}" for remark in remarks),
    ]
    y, x, n_channels = shape
    return convert(directory, splits, classes.names, (y, x, 1 if n_channels == 1 else 3), "\n".join(lines))


def _load(path: Path) -> tuple[dict[tuple[str, str], tuple[str, Array]], list[str]]:
    """The key and array of each of ("x", "train") ... ("y", "test") and ("names", ""), and the keys left out."""
    if not zipfile.is_zipfile(path):
        raise DatasetError(
            f"{path}: expected an .npz file (a zip of arrays), got {path.stat().st_size} bytes that are not a whole "
            "zip; copy it again, or write it with numpy.savez_compressed"
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            keys, left_out = _find_keys(path, file.files)
            return {meaning: (key, _load_array(path, key, file)) for meaning, key in keys.items()}, left_out
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
        raise DatasetError(
            f"{path}: damaged, an array cannot be read ({error}); copy or write the file again"
        ) from error


def _find_keys(path: Path, files: list[str]) -> tuple[dict[tuple[str, str], str], list[str]]:
    keys: dict[tuple[str, str], str] = {}
    left_out = []
    for key in files:
        if key == "class_names":
            keys["names", ""] = key
            continue
        found = SPELLING.fullmatch(key)
        split = (found["split"] or found["split2"]).lower() if found else ""
        if not found or split not in ROLES:
            left_out.append(key)
            continue
        kind = "x" if re.fullmatch(IMAGES, found["kind"] or found["kind2"], re.IGNORECASE) else "y"
        if (kind, split) in keys:
            raise DatasetError(
                f"{path}: {keys[kind, split]} and {key} could both be {kind}_{split}; save the file with one of them"
            )
        keys[kind, split] = key
    missing = [f"{kind}_{role}" for role in ROLES for kind in "xy" if (kind, role) not in keys]
    if missing:
        whole = [key for key in files if re.fullmatch(f"{IMAGES}|{LABELS}", key, re.IGNORECASE)]
        advice = (
            f"; divide {' and '.join(whole)} into images to train on and to test, such as with scikit-learn's "
            "train_test_split(x, y, stratify=y)"
            if whole
            else ""
        )
        raise DatasetError(
            f"{path}: expected the arrays {KEYS} (or train_images train_labels test_images test_labels), missing "
            f"{' '.join(missing)}; it has: {' '.join(files) or 'none'}{advice}"
        )
    return keys, left_out


def _load_array(path: Path, key: str, file: Mapping[str, Array]) -> Array:
    try:
        return file[key]
    except ValueError as error:
        raise DatasetError(
            f"{path}: {key} cannot be read without unpickling ({error}); save it as a plain array of numbers or text"
        ) from error


def _channels_last(path: Path, key: str, images: Array) -> tuple[Array, str | None]:
    """The images (row, y, x, channel), and what was done to get there."""
    shape = images.shape
    if images.ndim == 3:
        images = images[..., None]
    channels_first = images.ndim == 4 and images.shape[-1] not in (1, 3, 4) and images.shape[1] in (1, 3, 4)
    if channels_first:
        images = images.transpose(0, 2, 3, 1)
    if images.ndim != 4 or images.shape[-1] not in (1, 3, 4) or 0 in images.shape[1:]:
        raise DatasetError(
            f"{path}: {key} must be (row, y, x) or (row, y, x, channel) with 1, 3 or 4 channels, got shape {shape}; "
            "reshape it, channels last"
        )
    return images, f"from (row, channel, y, x) {shape} to channels last" if channels_first else None


def _check_rows(path: Path, key: str, images: Array, labels_key: str, labels: Array) -> None:
    if labels.ndim == 0 or len(images) != len(labels):
        n_labels = "one value" if labels.ndim == 0 else f"{len(labels)}"
        raise DatasetError(f"{path}: {key} has {len(images)} rows and {labels_key} has {n_labels}; they must agree")
    if not len(images):
        raise DatasetError(f"{path}: {key} is empty; it needs one image at least")


def _over_black(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """An RGBA image as RGB, by Pillow as for image files."""
    picture = Image.fromarray(image, "RGBA")
    return np.asarray(Image.alpha_composite(Image.new("RGBA", picture.size, "black"), picture).convert("RGB"))
