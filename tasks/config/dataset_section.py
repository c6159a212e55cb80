"""Which images: the source, its splits, their classes and their size."""

import re
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from tasks.config.section import Section

__all__ = ["STRATIFIED", "DatasetConfig"]

# A slice of each class alike, such as train[stratified 80%:].
STRATIFIED = r"(?P<name>[\w-]+)\[\s*stratified\s+(?P<start>(?:-?\d+%?)?)\s*:\s*(?P<stop>(?:-?\d+%?)?)\s*\]"


class DatasetConfig(Section):
    """Which images."""

    source: str = Field(
        "digits",
        min_length=1,
        description="A TFDS name (cifar10, fashion_mnist, ...), 'digits' (scikit-learn's, offline), a Keras-layout .npz, "
        "a TFDS-prepared directory, or a folder of images as SPLIT/CLASS/*.png or CLASS/*.png.",
    )
    data_dir: Path | None = Field(
        None, description="Where TFDS keeps prepared datasets; empty: <root>/datasets, then TFDS's own default folder."
    )
    train_split: str = Field(
        "train",
        min_length=1,
        description="The split to train on: a name, or a slice of one. train[:80%] is a share of the rows in their order; "
        "train[stratified :80%] is that share of each class, for a dataset that has one split only.",
    )
    test_split: str = Field(
        "test",
        min_length=1,
        description="The split to evaluate and explain: a name, or a slice of one, such as train[stratified 80%:] beside "
        "train[stratified :80%], with which it has no image in common.",
    )
    class_order: Literal["numeric", "sorted"] | tuple[str, ...] | None = Field(
        None,
        description="Which output of the model means which class: a list of all class names in the order of the outputs; "
        "numeric: names that are whole numbers, by value; sorted: names sorted as strings; empty: the dataset's own order, "
        "in folders names sorted as strings, as image_dataset_from_directory of Keras does.",
    )
    transform: Literal["auto", "none", "pad", "resize"] = Field(
        "auto",
        description="How images reach the model's shape. auto: the shape of a given model, by padding up to 4 pixels a side, "
        "else resizing; without one, grey becomes RGB and images smaller than 32x32 are padded with black to 32x32; images "
        "that differ in size are resized. Recorded in the store.",
    )
    size: int | None = Field(
        None, ge=8, le=4096, description="Side of the square images after pad or resize, in pixels; empty: 32."
    )

    @field_validator("train_split", "test_split")
    @classmethod
    def _stratified_is_a_slice(cls, split: str) -> str:
        for term in split.split("+"):
            found = re.fullmatch(STRATIFIED, term.strip())
            edges = [edge for edge in (found["start"], found["stop"]) if edge] if found else []
            beyond = [edge for edge in edges if edge.endswith("%") and abs(int(edge[:-1])) > 100]
            if "stratif" in term and (not edges or beyond):
                raise ValueError(
                    "a stratified slice must be NAME[stratified A:B] with percentages up to 100% or images a class, such "
                    f"as train[stratified :80%] or train[stratified 80%:], got {split!r}"
                )
        return split

    @field_validator("class_order", mode="before")
    @classmethod
    def _class_order_is_a_list(cls, order: Any) -> Any:
        if order is None or order in ("numeric", "sorted"):
            return order
        if not isinstance(order, (list, tuple)) or not order:
            raise ValueError(f"class_order must be a list of class names, numeric or sorted, got {order!r}")
        names = [str(name) if type(name) is int else name for name in order]
        wrong = next((name for name in names if not isinstance(name, str)), None)
        if wrong is not None:
            raise ValueError(f"class_order must be a list of class names, got {wrong!r} in it; put it in quotes")
        name, times = Counter(names).most_common(1)[0]
        if times > 1:
            raise ValueError(f"class_order must have each class once, got {name!r} {times} times")
        return tuple(names)
