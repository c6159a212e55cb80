"""Reading a prepared dataset: by range of rows, as a stream, or as its mean, always in the dataset's own order.

Convention: images are uint8 (row, y, x, channel) and labels int64 (row,). TFDS would interleave 16 files at once; here
one file is read after the other, so row i is the i-th record. Memory does not grow with the dataset.
"""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import tensorflow_datasets as tfds

from tasks.datasets.conversion import quiet
from tasks.datasets.dataset import Dataset, DatasetError
from tasks.datasets.transform import apply

# TensorFlow takes seconds to import, and those who only want the record or an error do not need it.
if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["batches", "classification_keys", "load_builder", "mean_image", "open_split", "read_rows", "stream"]

BATCH_BYTES = 2**24


def load_builder(directory: Path) -> Any:
    """The TFDS builder of a prepared directory, kept for the next call as long as the directory is the same one.

    Raises DatasetError if TFDS cannot load it.
    """
    info = directory / "dataset_info.json"
    try:
        return _load_builder(str(directory), info.stat().st_mtime_ns)
    except Exception as error:
        raise DatasetError(
            f"{directory}: TFDS cannot load this prepared directory ({one_line(error)}); remove it and prepare it again"
        ) from error


@functools.lru_cache(maxsize=32)
def _load_builder(directory: str, _mtime_ns: int) -> Any:
    with quiet():
        builder = tfds.builder_from_directory(directory)
        # TFDS warns of its own property when `open_split` decodes in part; it is cached, so ask for it here, unheard.
        if isinstance(builder.info.features, tfds.features.FeaturesDict):
            for feature in builder.info.features.values():
                _ = feature.dtype
        return builder


def one_line(error: BaseException) -> str:
    """An error's message for a line of ours: one line, without TFDS's preamble, at most 300 characters."""
    message = re.sub(r'^Failed to construct dataset .*?\}": ', "", " ".join(str(error).split()))
    return message[:300] or type(error).__name__


def classification_keys(info: Any) -> tuple[str, str]:
    """The names of the image and the label feature of a TFDS dataset.

    Its supervised keys if they are an image and a class label, else the only image and the only class label.
    Raises DatasetError, naming the features, if there are none or the images are not uint8 grey or RGB.
    """
    features = info.features if isinstance(info.features, tfds.features.FeaturesDict) else {}
    images = [key for key, feature in features.items() if type(feature) is tfds.features.Image]
    labels = [key for key, feature in features.items() if type(feature) is tfds.features.ClassLabel]
    keys = tuple(info.supervised_keys or ())[:2]
    if not (len(keys) == 2 and keys[0] in images and keys[1] in labels):
        keys = (images[0], labels[0]) if len(images) == len(labels) == 1 else ()
    if not keys:
        found = ", ".join(f"{key} {type(feature).__name__}" for key, feature in features.items()) or str(info.features)
        raise DatasetError(
            f"{info.name}: expected one image and one class label to each example, it has: {found}; choose a dataset "
            "for image classification"
        )
    image = features[keys[0]]
    if image.np_dtype != np.uint8 or len(image.shape) != 3 or image.shape[-1] not in (1, 3):
        raise DatasetError(
            f"{info.name}: expected uint8 images (y, x, 1) or (y, x, 3), got {np.dtype(image.np_dtype).name} "
            f"{image.shape}; convert them to an .npz or a folder of images"
        )
    return keys[0], keys[1]


def locate(info: Any, split: str) -> list[tuple[str, int, int]]:
    """A split as TFDS writes it, resolved to stored rows: [(stored split, start, stop), ...] in reading order.

    Raises DatasetError for a split that does not exist or is empty, listing the ones there.
    """
    there = ", ".join(f"{name} ({part.num_examples} images)" for name, part in info.splits.items()) or "none"
    try:
        parts = tfds.core.ReadInstruction.from_spec(split).to_absolute(info.splits)
    except Exception as error:
        raise DatasetError(
            f"{info.name}: no split {split!r}, the splits are: {there}; name one of them, or a slice such as "
            "train[80%:]"
        ) from error
    ranges = [
        (part.splitname, part.from_ or 0, info.splits[part.splitname].num_examples if part.to is None else part.to)
        for part in parts
    ]
    ranges = [(name, start, stop) for name, start, stop in ranges if start < stop]
    if not ranges:
        raise DatasetError(f"{info.name}: split {split!r} is empty, the splits are: {there}; choose one with images")
    return ranges


def open_split(directory: Path, split: str, start: int, stop: int, decode: bool = True) -> tf.data.Dataset:
    """Rows start to stop of a split as stored: a tf.data of (image, label), encoded bytes if not `decode`."""
    import tensorflow as tf

    builder = load_builder(directory)
    image, label = classification_keys(builder.info)
    wanted = {image: True, label: True}
    pieces, offset = [], 0
    for name, first, last in locate(builder.info, split):
        a, b = max(start - offset, 0) + first, min(stop - offset + first, last)
        offset += last - first
        if a < b:
            pieces.append(tfds.core.ReadInstruction(name, from_=a, to=b, unit="abs"))
    options = tf.data.Options()
    options.deterministic = True
    examples = builder.as_dataset(
        split=functools.reduce(operator.add, pieces),
        shuffle_files=False,
        read_config=tfds.ReadConfig(options=options, interleave_cycle_length=1, try_autocache=False),
        decoders=tfds.decode.PartialDecoding(wanted, None if decode else {image: tfds.decode.SkipDecoding()}),
    )
    return examples.map(lambda example: (example[image], tf.cast(example[label], tf.int64)))


def stream(dataset: Dataset, split: str) -> tf.data.Dataset:
    """Every row of a split in fixed order: (image uint8 (y, x, channel), label int64 ()) elements, not batched.

    split: train or test, or the name of one. Raises DatasetError for another split.
    """
    return _open_rows(dataset, split, 0, dataset.n_rows(split))


def _open_rows(dataset: Dataset, split: str, start: int, stop: int) -> tf.data.Dataset:
    import tensorflow as tf

    def transform(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return apply(image, dataset.geometry, dataset.grey_to_rgb, dataset.shape), label

    rows = open_split(dataset.directory, dataset.split(split), start, stop)
    return rows.map(transform, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def read_rows(
    dataset: Dataset, split: str, start: int, stop: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Rows start to stop (excluded) of a split: images uint8 (row, y, x, channel) and labels int64 (row,).

    split: train or test, or the name of one. Only this range is decoded. Safe to call from several threads.
    Raises ValueError for a range outside the split, DatasetError for damaged files.
    """
    n_rows = dataset.n_rows(split)
    if not 0 <= start <= stop <= n_rows:
        raise ValueError(f"{dataset.name}: rows must lie in 0:{n_rows} of split {split!r}, got {start}:{stop}")
    if start == stop:
        return np.empty((0, *dataset.shape), np.uint8), np.empty(0, np.int64)
    with damage_named(dataset.directory):
        images, labels = next(iter(_open_rows(dataset, split, start, stop).batch(stop - start)))
        return images.numpy(), labels.numpy()


def batches(dataset: Dataset, split: str) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]]:
    """Every row of a split in fixed order, a few MB of (images, labels) at a time."""
    n_rows = max(1, BATCH_BYTES // int(np.prod(dataset.shape)))
    with damage_named(dataset.directory):
        for images, labels in stream(dataset, split).batch(n_rows).prefetch(1):
            yield images.numpy(), labels.numpy()


def mean_image(dataset: Dataset) -> npt.NDArray[np.float64]:
    """The mean of the training images / 255, float64 (y, x, channel). Exact: summed as integers."""
    total = np.zeros(dataset.shape, np.int64)
    for images, _ in batches(dataset, "train"):
        total += images.sum(axis=0, dtype=np.int64)
    return total / (255.0 * dataset.n_train)


@contextmanager
def damage_named(directory: Path) -> Iterator[None]:
    """Turns TensorFlow's errors about record files into a DatasetError that names the directory."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        raise DatasetError(
            f"{directory}: a record file is missing or damaged ({one_line(error)}); remove the directory and prepare "
            "it again"
        ) from error
