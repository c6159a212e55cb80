"""Reading a prepared dataset: by range of rows, as a stream, or as its mean, always in the dataset's own order.

Convention: images are uint8 (row, y, x, channel) and labels int64 (row,). TFDS would interleave 16 files at once; here
one file is read after the other, so row i is the i-th record. Memory does not grow with the dataset.
"""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import tensorflow_datasets as tfds

from tasks.datasets.conversion import quiet
from tasks.datasets.dataset import Dataset, DatasetError, Range
from tasks.datasets.splits import chosen, count
from tasks.datasets.transform import apply

# TensorFlow takes seconds to import, and those who only want the record or an error do not need it.
if TYPE_CHECKING:
    import tensorflow as tf

__all__ = [
    "batches",
    "classification_keys",
    "damage_named",
    "load_builder",
    "mean_image",
    "one_line",
    "open_rows",
    "read_chosen",
    "read_rows",
    "stored_labels",
    "stream",
]

BATCH_BYTES = 2**24
LABELS_AT_ONCE = 4096
PASSED_OVER = 4096


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
        # TFDS warns of its own property when `open_rows` decodes in part; it is cached, so ask for it here, unheard.
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


def open_rows(directory: Path, ranges: Sequence[Range], start: int, stop: int) -> tf.data.Dataset:
    """Rows start to stop of stored ranges: a tf.data of (encoded image, label), nothing decoded.

    Files are read from the first to the last row of these ranges; the rows between two ranges that lie close are passed
    over as they are, which takes a few microseconds each.
    """
    import tensorflow as tf

    builder = load_builder(directory)
    image, label = classification_keys(builder.info)
    pieces, keep = _cover(ranges, start, stop)
    options = tf.data.Options()
    options.deterministic = True
    examples = builder.as_dataset(
        split=functools.reduce(
            operator.add, [tfds.core.ReadInstruction(name, from_=a, to=b, unit="abs") for name, a, b in pieces]
        ),
        shuffle_files=False,
        read_config=tfds.ReadConfig(options=options, interleave_cycle_length=1, try_autocache=False),
        decoders=tfds.decode.PartialDecoding({image: True, label: True}, {image: tfds.decode.SkipDecoding()}),
    )
    if not keep.all():
        wanted = tf.constant(keep)
        examples = examples.enumerate().filter(lambda row, _: wanted[row]).map(lambda _, example: example)
    return examples.map(lambda example: (example[image], tf.cast(example[label], tf.int64)))


def _cover(ranges: Sequence[Range], start: int, stop: int) -> tuple[list[Range], npt.NDArray[np.bool_]]:
    """Rows start to stop as few pieces of files, and which rows of those pieces are wanted."""
    pieces: list[Range] = []
    keep: list[npt.NDArray[np.bool_]] = []
    offset = 0
    for name, first, last in ranges:
        a, b = max(start - offset, 0) + first, min(stop - offset + first, last)
        offset += last - first
        if a >= b:
            continue
        if pieces and pieces[-1][0] == name and 0 <= (gap := a - pieces[-1][2]) <= PASSED_OVER:
            pieces[-1] = (name, pieces[-1][1], b)
            keep.append(np.zeros(gap, bool))
        else:
            pieces.append((name, a, b))
        keep.append(np.ones(b - a, bool))
    return pieces, np.concatenate(keep)


def stored_labels(directory: Path, ranges: Sequence[Range]) -> npt.NDArray[np.int64]:
    """The labels of these rows as stored, no image decoded."""
    with damage_named(directory):
        labels = open_rows(directory, ranges, 0, count(ranges)).map(lambda _, label: label).batch(LABELS_AT_ONCE)
        return np.concatenate([batch.numpy() for batch in labels])


def stream(dataset: Dataset, split: str) -> tf.data.Dataset:
    """Every row of a split in fixed order: (image uint8 (y, x, channel), label int64 ()) elements, not batched.

    split: train or test, or the name of one. Raises DatasetError for another split.
    """
    return _open_rows(dataset, split, 0, dataset.n_rows(split))


def _open_rows(dataset: Dataset, split: str, start: int, stop: int) -> tf.data.Dataset:
    return _decoded(dataset, open_rows(dataset.directory, dataset.ranges(split), start, stop))


def _decoded(dataset: Dataset, rows: tf.data.Dataset) -> tf.data.Dataset:
    """Stored rows as the model sees them, labels in the order of its classes."""
    import tensorflow as tf

    info = load_builder(dataset.directory).info
    feature = info.features[classification_keys(info)[0]]
    mapping = tf.constant(dataset.label_mapping or range(dataset.n_classes), tf.int64)

    # Nothing in it depends on values, and TensorFlow's rewriting of Python takes longer than reading a few rows.
    @tf.autograph.experimental.do_not_convert
    def decode(encoded: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # A label that is no class stays what it is, so that whoever counts them can name it.
        known = tf.clip_by_value(label, 0, dataset.n_classes - 1)
        return apply(feature.decode_example(encoded), dataset), tf.where(label == known, mapping[known], label)

    return rows.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


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


def read_chosen(
    dataset: Dataset, split: str, rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Some rows of a split, in ascending order: images uint8 (row, y, x, channel) and labels int64 (row,)."""
    ranges = chosen(dataset.ranges(split), rows)
    with damage_named(dataset.directory):
        examples = _decoded(dataset, open_rows(dataset.directory, ranges, 0, len(rows)))
        images, labels = next(iter(examples.batch(len(rows))))
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
