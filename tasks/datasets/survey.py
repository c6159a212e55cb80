"""What is in a prepared dataset: read once from the first image to the last, for its record.

The extent of the images, how many of each class there are, the fingerprint, what is allowed and yet worth a look, and a
sample of the training images that is kept for later.
"""

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from tasks.datasets.counting import Count, Report
from tasks.datasets.dataset import Dataset, DatasetError, Range
from tasks.datasets.prepared_rows import batches, open_rows
from tasks.datasets.sample import Sample, Sampler
from tasks.datasets.splits import count, shared
from tasks.datasets.transform import Extent

__all__ = ["Survey", "measure", "survey"]

ROLES = ("train", "test")
# Images that go no further are nearly black.
DARK = 16


class Survey(NamedTuple):
    """sha256: as Dataset defines it. counts: images of each class, by role. sample: of the training images."""

    sha256: str
    counts: dict[str, npt.NDArray[np.int64]]
    warnings: list[str]
    sample: Sample


def measure(
    directory: Path, shape: tuple[int | None, ...], ranges: Mapping[str, tuple[Range, ...]], report: Report | None
) -> Extent:
    """The extent of the stored images; where TFDS does not declare their size, from the header of every one."""
    y, x, n_channels = shape
    if y is not None and x is not None and n_channels is not None:
        return Extent(y, y, x, x, n_channels)
    sizes = set()
    measured = Count("measuring", sum(map(count, ranges.values())), report)
    for parts in ranges.values():
        for encoded, _ in open_rows(directory, parts, 0, count(parts)):
            with Image.open(io.BytesIO(encoded.numpy())) as image:
                sizes.add(image.size)
            measured.add(1)
    ys, xs = [size[1] for size in sizes], [size[0] for size in sizes]
    return Extent(min(ys), max(ys), min(xs), max(xs), n_channels or 3)


def survey(dataset: Dataset, report: Report | None) -> Survey:
    """Reads every image of both splits. dataset: a record that lacks what is found here.

    Raises DatasetError for labels that are no classes.
    """
    digest, counts, largest = hashlib.sha256(), {}, 0
    sampler = Sampler(dataset)
    read = Count("taking the fingerprint", dataset.n_train + dataset.n_test, report)
    for role in ROLES:
        shape = (dataset.n_rows(role), *dataset.shape)
        digest.update(f"{role} {' '.join(str(length) for length in shape)}\n".encode())
        parts = []
        for images, labels in batches(dataset, role):
            digest.update(np.ascontiguousarray(images).data)
            largest = max(largest, int(images.max()))
            parts.append(labels)
            if role == "train":
                sampler.add(images, labels)
            read.add(len(labels))
        labels = np.concatenate(parts)
        outside = np.flatnonzero((labels < 0) | (labels >= dataset.n_classes))
        if outside.size:
            raise DatasetError(
                f"{dataset.name}: labels must lie in 0..{dataset.n_classes - 1}, got {labels[outside[0]]} in row "
                f"{outside[0]} of split {dataset.split(role)}; choose a labelled split"
            )
        digest.update(labels.astype("<i8").tobytes())
        counts[role] = np.bincount(labels, minlength=dataset.n_classes)
    return Survey(digest.hexdigest(), counts, _doubts(dataset, counts, largest), sampler.sample)


def _doubts(dataset: Dataset, counts: Mapping[str, npt.NDArray[np.int64]], largest: int) -> list[str]:
    """What is allowed and yet worth a look."""
    doubts = []
    if 0 < largest <= DARK:
        doubts.append(
            f"the largest value of all images is {largest} of 255, so they are nearly black; if {largest} means white, "
            f"multiply by {255 // largest if 255 % largest == 0 else f'255 / {largest}'} and save them again"
        )
    for role in ROLES:
        absent = [dataset.class_names[index] for index in np.flatnonzero(counts[role] == 0)]
        if absent:
            more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
            doubts.append(
                f"no image of class {', '.join(absent[:5])}{more} in the {role} split{_remedy(dataset, role)}"
            )
    n_shared = shared(dataset.train_ranges, dataset.test_ranges)
    if n_shared:
        doubts.append(f"{n_shared} rows of the test split are in the train split too")
    return doubts


def _remedy(dataset: Dataset, role: str) -> str:
    """What to do where a slice lacks classes."""
    split = dataset.split(role)
    if "[" not in split or "stratified" in split:
        return ""
    return (
        f", which is the slice {split} of rows in their stored order; {split.replace('[', '[stratified ')} takes that "
        "share of each class"
    )
