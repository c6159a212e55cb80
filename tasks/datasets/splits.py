"""Which stored rows a split has: a name, a slice as TFDS writes it, or a stratified slice.

Convention: `train[stratified 80%:]` takes the same share of each class, in the order of the rows as they are stored.
Both sides of one percentage are disjoint and together whole; of two images or more of a class each side has one at least.
Whole numbers count images of each class. Terms are added with +.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow_datasets as tfds

from tasks.config.dataset_section import STRATIFIED
from tasks.datasets.conversion import remarks
from tasks.datasets.dataset import DatasetError, Range

__all__ = ["chosen", "count", "locate", "shared"]

Labels = npt.NDArray[np.int64]


def locate(info: Any, split: str, read_labels: Callable[[str], Labels]) -> tuple[Range, ...]:
    """A split resolved to stored rows: (stored split, start, stop) in reading order.

    read_labels: the labels of every row of a stored split; asked only for a stratified slice.
    Raises DatasetError for a split that does not exist or is empty, listing the ones there.
    """
    there = ", ".join(f"{name} ({part.num_examples} images)" for name, part in info.splits.items()) or "none"
    ranges: list[Range] = []
    for term in split.split("+"):
        found = re.fullmatch(STRATIFIED, term.strip())
        if found and found["name"] in info.splits:
            mask = _stratified(read_labels(found["name"]), found["start"], found["stop"])
            ranges += [(found["name"], start, stop) for start, stop in _runs(np.flatnonzero(mask))]
            continue
        try:
            parts = tfds.core.ReadInstruction.from_spec(term).to_absolute(info.splits)
        except Exception as error:
            raise DatasetError(
                f"{info.name}: {_missing(info, split, found['name'] if found else term, there)}"
            ) from error
        ranges += [
            (part.splitname, part.from_ or 0, info.splits[part.splitname].num_examples if part.to is None else part.to)
            for part in parts
        ]
    ranges = [(name, start, stop) for name, start, stop in ranges if start < stop]
    if not ranges:
        raise DatasetError(f"{info.name}: split {split!r} is empty, the splits are: {there}; choose one with images")
    return tuple(ranges)


def _missing(info: Any, split: str, term: str, there: str) -> str:
    """Why a split is not there, and what to do."""
    unlabelled = {remark.partition(" ")[0]: remark for remark in remarks(info.description, "unlabelled")}
    why = (
        f"split {term!r} has no class folders: {unlabelled[term]}, and what is explained needs labels; sort its images "
        f"into {term}/CLASS"
        if term in unlabelled
        else f"no split {split!r}, the splits are: {there}; name one of them"
    )
    one = next(iter(info.splits), "train")
    return (
        f"{why}, or take the test images out of {one}, each class alike, with dataset.train_split: "
        f"{one}[stratified :80%] and dataset.test_split: {one}[stratified 80%:]"
    )


def _stratified(labels: Labels, start: str, stop: str) -> npt.NDArray[np.bool_]:
    """Whether each row is in the slice of its class."""
    order = np.argsort(labels, kind="stable")
    _, first, counts = np.unique(labels[order], return_index=True, return_counts=True)
    ranks = np.arange(len(labels)) - np.repeat(first, counts)
    begin, end = _edges(start, counts, 0 * counts), _edges(stop, counts, counts)
    mask = np.zeros(len(labels), bool)
    mask[order] = (ranks >= np.repeat(begin, counts)) & (ranks < np.repeat(end, counts))
    return mask


def _edges(text: str, counts: Labels, default: Labels) -> Labels:
    """Where a boundary such as 80% or 20 or -20% lies in classes of so many rows."""
    if not text:
        return default
    value = int(text.rstrip("%"))
    if not text.endswith("%"):
        return np.clip(counts + value if value < 0 else np.full_like(counts, value), 0, counts)
    percent = 100 + value if value < 0 else value
    edges = (counts * percent + 50) // 100
    return np.clip(edges, 1, np.maximum(counts - 1, 1)) if 0 < percent < 100 else edges


def _runs(rows: Labels) -> Iterator[tuple[int, int]]:
    """Ascending row numbers as ranges (start, stop)."""
    if rows.size:
        for run in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1):
            yield int(run[0]), int(run[-1]) + 1


def chosen(ranges: Sequence[Range], rows: Labels) -> tuple[Range, ...]:
    """The stored ranges of some rows of a split. rows: ascending."""
    found, offset = [], 0
    for name, start, stop in ranges:
        mine = rows[np.searchsorted(rows, offset) : np.searchsorted(rows, offset + stop - start)] - offset + start
        found += [(name, first, last) for first, last in _runs(mine)]
        offset += stop - start
    return tuple(found)


def count(ranges: Sequence[Range]) -> int:
    return sum(stop - start for _, start, stop in ranges)


def shared(ranges: Sequence[Range], others: Sequence[Range]) -> int:
    """How many stored rows are in both."""
    n_shared = 0
    for name in {name for name, _, _ in ranges}:
        end = max(stop for part, _, stop in (*ranges, *others) if part == name)
        masks = np.zeros((2, end), bool)
        for mask, side in zip(masks, (ranges, others), strict=True):
            for part, start, stop in side:
                if part == name:
                    mask[start:stop] = True
        n_shared += int(masks.all(axis=0).sum())
    return n_shared
