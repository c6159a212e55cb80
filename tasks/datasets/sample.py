"""A small labelled sample of the training images, kept beside the record of a dataset.

Convention: every training row has a random priority that follows from the number of rows alone. A sample of n rows has
the first row of each class by priority, as far as n goes, then the others by priority; so a smaller sample is a part of a
larger one, and it can be taken while a dataset is read, without knowing what comes.
"""

import logging
import uuid
import zipfile
import zlib
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tasks.datasets.dataset import Dataset
from tasks.datasets.prepared_rows import read_chosen, stored_labels

__all__ = ["Sample", "Sampler", "keep_sample", "labelled_sample"]

logger = logging.getLogger("nightlens")

KEPT_ROWS = 512
MOST_BYTES = 64 * 10**6
SEED = 0

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Rows = npt.NDArray[np.int64]


class Sample(NamedTuple):
    """rows: numbers in the training split, ascending. images, labels: of these rows."""

    rows: Rows
    images: Images
    labels: Labels


def labelled_sample(dataset: Dataset, n: int = KEPT_ROWS) -> tuple[Images, Labels]:
    """Training images drawn at random, as the model sees them and in the dataset's order.

    Returns images uint8 (row, y, x, channel) and labels int64 (row,), the same for every call. They are fewer than n where
    the training split has fewer, or where n images have more than 64 MB. Every class that the split has occurs if there
    are as many rows as classes.
    Raises DatasetError for damaged files.
    """
    n = min(n, _most_rows(dataset))
    sample = _kept(dataset)
    if sample is None:
        sample = _draw(dataset, min(KEPT_ROWS, _most_rows(dataset)))
        keep_sample(dataset, sample)
    if n > len(sample.rows):
        sample = _draw(dataset, n)
    chosen = _choose(sample.labels, _priorities(dataset)[sample.rows], n)
    return sample.images[chosen], sample.labels[chosen]


class Sampler:
    """Takes a dataset's sample while its training split is read from the first to the last row."""

    def __init__(self, dataset: Dataset) -> None:
        self._n = min(KEPT_ROWS, _most_rows(dataset))
        self._priorities = _priorities(dataset)
        self._seen = 0
        self.sample = Sample(np.empty(0, np.int64), np.empty((0, *dataset.shape), np.uint8), np.empty(0, np.int64))

    def add(self, images: Images, labels: Labels) -> None:
        """The next rows."""
        n_before = len(self.sample.rows)
        rows = np.concatenate([self.sample.rows, np.arange(self._seen, self._seen + len(labels))])
        both = np.concatenate([self.sample.labels, labels])
        chosen = _choose(both, self._priorities[rows], self._n)
        stay, come = chosen[chosen < n_before], chosen[chosen >= n_before] - n_before
        kept = np.concatenate([self.sample.images[stay], images[come]])
        self.sample = Sample(rows[chosen], kept, both[chosen])
        self._seen += len(labels)


def _most_rows(dataset: Dataset) -> int:
    return min(dataset.n_train, max(1, MOST_BYTES // int(np.prod(dataset.shape))))


def _priorities(dataset: Dataset) -> npt.NDArray[np.float64]:
    return np.random.default_rng(SEED).random(dataset.n_train)


def _choose(labels: Labels, priorities: npt.NDArray[np.float64], n: int) -> Rows:
    """Which n of these rows belong to the sample, ascending."""
    by_priority = np.argsort(priorities, kind="stable")
    _, firsts = np.unique(labels[by_priority], return_index=True)
    later = np.ones(len(labels), bool)
    later[by_priority[firsts]] = False
    return np.sort(np.lexsort((priorities, later))[:n])


def _draw(dataset: Dataset, n: int) -> Sample:
    """A sample of n rows, read from the dataset."""
    labels = stored_labels(dataset.directory, dataset.train_ranges)
    rows = _choose(labels, _priorities(dataset), n)
    return Sample(rows, *read_chosen(dataset, "train", rows))


def _kept(dataset: Dataset) -> Sample | None:
    """The sample that is kept, if it is whole and of this dataset."""
    if dataset.sample is None or not dataset.sample.is_file():
        return None
    try:
        with np.load(dataset.sample, allow_pickle=False) as file:
            sample = Sample(*(file[name] for name in Sample._fields))
            fits = str(file["sha256"]) == dataset.sha256 and sample.images.shape == (len(sample.rows), *dataset.shape)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        logger.warning("%s cannot be read and is made again (%s)", dataset.sample, error)
        return None
    return sample if fits else None


def keep_sample(dataset: Dataset, sample: Sample) -> None:
    """Writes the sample beside the dataset's record, whole or not at all."""
    if dataset.sample is None:
        return
    partial = dataset.sample.with_name(f"{dataset.sample.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("wb") as file:
            np.savez(file, sha256=np.array(dataset.sha256), **sample._asdict())
        partial.replace(dataset.sample)
    except OSError as error:
        partial.unlink(missing_ok=True)
        logger.warning("the sample of training images is not kept in %s (%s)", dataset.sample, error.strerror)
