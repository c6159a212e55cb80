"""Which output of the model means which class: the dataset's own order, or the one that is set.

Convention: the prepared directory keeps its own numbers; labels are mapped whenever rows are read. Entry i of a mapping
is the class that a stored label i becomes; an empty mapping leaves labels as they are.
"""

import difflib
import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

from tasks.datasets.dataset import DatasetError

__all__ = ["OWN", "STRINGS", "Order", "in_order"]

OWN = "as the dataset numbers them"
STRINGS = "names sorted as strings, as image_dataset_from_directory of Keras sorts them"


class Order(NamedTuple):
    """names: in the order of the model's outputs. mapping: from stored labels. text: the order in words."""

    names: tuple[str, ...]
    mapping: tuple[int, ...]
    text: str


def in_order(
    dataset: str,
    shown: Sequence[str],
    stored: Sequence[str],
    own: str,
    wanted: Sequence[str] | Literal["numeric", "sorted"] | None,
) -> Order:
    """The classes in the order wanted.

    shown, stored: names of the classes as people see them and as the files have them, by stored label; a list may
    use either. own: the dataset's own order in words.
    Raises DatasetError for a list that is no permutation of the names, naming what is missing, unknown or twice there,
    and for `numeric` if a name is no whole number.
    """
    if wanted is None:
        return Order(tuple(shown), (), own)
    if wanted == "sorted":
        order, text = sorted(range(len(shown)), key=lambda label: shown[label]), "names sorted as strings"
    elif wanted == "numeric":
        order, text = _by_number(dataset, shown), "names sorted as whole numbers"
    else:
        order, text = _by_list(dataset, shown, stored, wanted), "as set by dataset.class_order"
    mapping = [0] * len(shown)
    for label, stored_label in enumerate(order):
        mapping[stored_label] = label
    moved = mapping != list(range(len(shown)))
    return Order(tuple(shown[label] for label in order), tuple(mapping) if moved else (), text)


def _by_number(dataset: str, names: Sequence[str]) -> list[int]:
    others = [name for name in names if not re.fullmatch(r"[+-]?[0-9]+", name)]
    if others:
        raise DatasetError(
            f"{dataset}: class_order numeric expects names that are all whole numbers, got {_some(others)}; give the "
            "names as a list, or leave it empty"
        )
    values = [int(name) for name in names]
    times = Counter(values)
    twice = [name for name, value in zip(names, values, strict=True) if times[value] > 1]
    if twice:
        raise DatasetError(
            f"{dataset}: class_order numeric expects different numbers, got {_some(twice)}; give the names as a list"
        )
    return sorted(range(len(names)), key=lambda label: values[label])


def _by_list(dataset: str, shown: Sequence[str], stored: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """The stored label of each name of the list."""
    labels = {name: label for label, name in enumerate(stored)} | {name: label for label, name in enumerate(shown)}
    unknown = [name for name in wanted if name not in labels]
    found = [labels[name] for name in wanted if name in labels]
    times = Counter(found)
    missing = [name for label, name in enumerate(shown) if not times[label]]
    twice = [name for name in wanted if name in labels and times[labels[name]] > 1]
    faults = [
        f"{words} {_some(names)}"
        for words, names in (("missing:", missing), ("unknown:", unknown), ("more than once:", twice))
        if names
    ]
    if not faults:
        return found
    close = difflib.get_close_matches(unknown[0], shown, n=1, cutoff=0.5) if unknown else []
    hint = f" (did you mean {close[0]}?)" if close else ""
    raise DatasetError(
        f"{dataset}: class_order must name each of the {len(shown)} classes once; {'; '.join(faults)}{hint}; the "
        f"classes are: {_some(shown, 30)}"
    )


def _some(names: Sequence[str], n: int = 8) -> str:
    return ", ".join(names[:n]) + (f" and {len(names) - n} more" if len(names) > n else "")
