"""The record of a prepared dataset: what the tasks hand to each other instead of arrays.

Convention: a prepared dataset is a TFDS directory that keeps the original images, plus the transform that brings
them to the model's shape whenever they are read. Everything here is about images as the model sees them, uint8, unless
the name says `source`. Row i of a split is its i-th example in the order of the TFDS record files.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

__all__ = ["Dataset", "DatasetError", "Range"]

Range = tuple[str, int, int]
"""Stored rows: the stored split, the first row and the one behind the last."""


class DatasetError(ValueError):
    """A dataset that cannot be used: what was expected, what came, what to do, in one line."""


class Dataset(BaseModel):
    """A prepared dataset: where it is, what is in it, and how its images reach the model.

    sha256 is taken over, for train and then test: the line "ROLE ROWS Y X CHANNEL\\n", the images (row, y, x, channel)
    as uint8 in C order, and the labels (row,) as little-endian int64. Two datasets with the same sha256 are the same
    arrays, whatever files they came from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: str
    """The version TFDS gives; for digits, .npz files and folders of images a digest of the content."""
    source: str
    """As configured."""
    directory: Path
    """The TFDS-prepared directory, absolute."""
    train_split: str
    test_split: str
    """Splits as configured: a name, or a slice such as train[80%:] or train[stratified 80%:]."""
    train_ranges: tuple[Range, ...]
    test_ranges: tuple[Range, ...]
    """The stored rows of each split, in reading order."""
    class_names: tuple[str, ...]
    """In the order of the model's outputs: label i is class_names[i]."""
    class_order: str
    """That order in words."""
    label_mapping: tuple[int, ...] = ()
    """The label that each stored label becomes when it is read; empty: the stored one."""
    n_train: int
    n_test: int
    source_shape: tuple[int | None, int | None, int]
    """(y, x, channel) as stored; None where the images differ."""
    shape: tuple[int, int, int]
    """(y, x, channel) as the model sees it."""
    transform: str
    """For people: from source_shape to shape."""
    geometry: Literal["none", "pad", "resize"]
    """pad: centred, black, the odd pixel at the bottom and right; resize: bilinear with antialiasing, rounded."""
    grey_to_rgb: bool
    """Whether the grey channel is repeated three times."""
    rgb_to_grey: bool = False
    """Whether the three channels become one, as Pillow does it (ITU-R 601-2 luma)."""
    train_counts: tuple[int, ...]
    test_counts: tuple[int, ...]
    """Images of each class."""
    sha256: str
    warnings: tuple[str, ...] = ()
    sample: Path | None = None
    """Where a sample of the training images is kept, absolute; the file may be gone."""

    @property
    def n_classes(self) -> int:
        return len(self.class_names)

    def role(self, split: str) -> Literal["train", "test"]:
        """The role of a split, given its role or its name; a role wins over a name. Raises DatasetError otherwise."""
        roles: dict[str, Literal["train", "test"]] = {self.test_split: "test", self.train_split: "train"}
        roles |= {"train": "train", "test": "test"}
        if split in roles:
            return roles[split]
        raise DatasetError(
            f"{self.name}: split must be train or test, or the name of one ({self.train_split}, {self.test_split}), "
            f"got {split!r}"
        )

    def split(self, split: str) -> str:
        """The split as configured, given its role or its name."""
        return self.train_split if self.role(split) == "train" else self.test_split

    def ranges(self, split: str) -> tuple[Range, ...]:
        """The stored rows of a split, given its role or its name."""
        return self.train_ranges if self.role(split) == "train" else self.test_ranges

    def n_rows(self, split: str) -> int:
        """Images in a split, given its role or its name."""
        return self.n_train if self.role(split) == "train" else self.n_test
