"""The labels of an .npz file as class numbers, and the names of the classes.

Convention: class numbers (row,) or (row, 1) from 0; one-hot rows (row, class), of which the column of the 1 is the class;
or names, of which the classes are the sorted ones, unless the file has class_names. Booleans are 0 and 1.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tasks.datasets.class_order import STRINGS
from tasks.datasets.dataset import DatasetError

__all__ = ["Classes", "read_classes"]

Array = npt.NDArray[Any]
Labels = npt.NDArray[np.int64]


class Classes(NamedTuple):
    """labels: class numbers (row,) by role. names: by class number. order: theirs in words. remarks: what was done."""

    labels: dict[str, Labels]
    names: tuple[str, ...]
    order: str
    remarks: list[str]


def read_classes(path: str, arrays: Mapping[str, tuple[str, Array]], given: Array | None) -> Classes:
    """The classes of both roles. arrays: the key in the file and the labels, by role. given: class_names, if there are.

    Raises DatasetError for labels that are no classes.
    """
    columns = {key: _one_column(path, key, labels) for key, labels in arrays.values()}
    names = None if given is None else _given_names(path, given)
    text = [key for key, column in columns.items() if column.dtype.kind in "US"]
    if len(text) == len(columns):
        found, names, order, remarks = *_from_names(path, columns, names), []
    elif text:
        raise DatasetError(
            f"{path}: {text[0]} must hold whole class numbers from 0, got {columns[text[0]].dtype}, where others are "
            "numbers; save names in both, or numbers"
        )
    else:
        found = {key: _class_numbers(path, key, column) for key, column in columns.items()}
        widths = {key: column.shape[1] for key, column in columns.items() if column.ndim == 2}
        remarks = [f"{key} from one-hot rows of {width} to class numbers" for key, width in widths.items()]
        names = names or _numbered(path, found, max(widths.values(), default=0))
        order = "by class number"
    largest = max(int(labels.max()) for labels in found.values())
    if largest >= len(names):
        raise DatasetError(f"{path}: labels must be below {len(names)}, the number of class_names, got {largest}")
    return Classes({role: found[key] for role, (key, _) in arrays.items()}, names, order, remarks)


def _one_column(path: str, key: str, labels: Array) -> Array:
    """Labels as (row,), or one-hot as (row, class)."""
    if labels.dtype.kind == "b":
        labels = labels.astype(np.int64)
    while labels.ndim > 1 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    if labels.ndim == 1 or (labels.ndim == 2 and labels.dtype.kind in "iuf"):
        return labels
    raise DatasetError(
        f"{path}: {key} must be class numbers (row,) or (row, 1), or one-hot (row, class), got {labels.dtype} of shape "
        f"{labels.shape}; save class numbers"
    )


def _class_numbers(path: str, key: str, column: Array) -> Labels:
    if column.ndim == 2:
        return _from_one_hot(path, key, column)
    whole = column.dtype.kind in "iu" or (column.dtype.kind == "f" and bool(np.all(np.mod(column, 1) == 0)))
    if not whole:
        wrong = column[np.mod(column, 1) != 0][0] if column.dtype.kind == "f" else column.dtype
        raise DatasetError(f"{path}: {key} must hold whole class numbers from 0, got {wrong}; number the classes")
    if column.min() < 0:
        row = int(np.argmin(column))
        raise DatasetError(f"{path}: {key} must hold class numbers from 0, got {column[row]} in row {row}")
    return column.astype(np.int64)


def _from_one_hot(path: str, key: str, rows: Array) -> Labels:
    ones = rows == 1
    wrong = np.flatnonzero((ones.sum(axis=1) != 1) | ((rows != 0) & ~ones).any(axis=1))
    if wrong.size:
        values = ", ".join(f"{value:g}" for value in rows[wrong[0]][:8]) + (", ..." if rows.shape[1] > 8 else "")
        raise DatasetError(
            f"{path}: {key} of shape {rows.shape} must be one-hot, a single 1 in a row of 0, got {values} in row {wrong[0]}; "
            "save one class number for each image"
        )
    return ones.argmax(axis=1).astype(np.int64)


def _from_names(
    path: str, columns: Mapping[str, Array], given: tuple[str, ...] | None
) -> tuple[dict[str, Labels], tuple[str, ...], str]:
    """Class numbers by key, names and their order in words, of labels that are names."""
    texts = {key: np.array(_as_text(column)) for key, column in columns.items()}
    first, *others = texts
    names = given or tuple(np.unique(texts[first]).tolist())
    for key in texts if given else others:
        unknown = np.flatnonzero(~np.isin(texts[key], names))
        if unknown.size:
            where = "class_names" if given else first
            raise DatasetError(
                f"{path}: {key} has the class {str(texts[key][unknown[0]])!r} in row {unknown[0]}, which {where} has not; "
                "correct the labels, or add class_names with every class"
            )
    numbers = {name: number for number, name in enumerate(names)}
    found = {key: np.array([numbers[name] for name in text.tolist()], np.int64) for key, text in texts.items()}
    return found, names, "as class_names has them" if given else STRINGS


def _as_text(names: Array) -> list[str]:
    return [name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in names.tolist()]


def _given_names(path: str, given: Array) -> tuple[str, ...]:
    if given.ndim != 1 or given.dtype.kind not in "US":
        raise DatasetError(
            f"{path}: class_names must be text (class,), got {given.dtype} of shape {given.shape}; save a list of names"
        )
    names = tuple(_as_text(given))
    if len(set(names)) < len(names):
        raise DatasetError(f"{path}: class_names must differ, got {', '.join(names)}")
    return names


def _numbered(path: str, labels: Mapping[str, Labels], width: int) -> tuple[str, ...]:
    """The names "0", "1", ... up to the largest label, or as many as the one-hot rows are wide."""
    first, *others = labels
    known = max(int(labels[first].max()), width - 1)
    for key in others:
        if int(labels[key].max()) > known:
            row = int(np.argmax(labels[key] > known))
            raise DatasetError(
                f"{path}: {key} has label {labels[key][row]} in row {row}, {first} only goes to {known}; correct the labels, "
                "or add class_names with every class"
            )
    # Names invented for classes that mostly do not occur would make a model of mostly dead outputs.
    n_values = len(np.unique(np.concatenate(list(labels.values()))))
    if not width and known + 1 > 2 * n_values + 8:
        raise DatasetError(
            f"{path}: labels run to {known} but only {n_values} values occur; number the classes from 0, or add class_names"
        )
    return tuple(str(label) for label in range(known + 1))
