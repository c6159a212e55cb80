"""What may enter the store: arrays that follow the schema exactly, agree with each other and hold finite numbers.

A NaN that got in would be found by an analyst a year later; here it is found by the night that made it.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from storage.errors import name_rows
from storage.file.schema import BY_PATH, part_variables
from storage.file.variable import ROW_DIMENSIONS, Variable

PREDICTED_ROW = "predicted_row"


def checked_arrays(arrays: Mapping[str, ArrayLike], start: int, stop: int) -> dict[str, NDArray]:
    """The arrays of the rows [start, stop) in the schema's dtypes, or ValueError naming what is wrong.

    arrays: every per-row variable of the schema but `row` by its path, e.g. "integrated_gradients/attribution"
        (row, y, x, channel); those of maps all or none.
    Raises ValueError for a missing or unknown variable, a dtype that cannot be cast without loss, axes that disagree,
    numbers that are not finite, classes out of range, and predicted rows other than those with prediction != label.
    """
    if not 0 <= start < stop:
        raise ValueError(f"expected a range of rows 0 <= start < stop, got start={start}, stop={stop}")
    has_maps = any(BY_PATH[path].needs_map for path in arrays if path in BY_PATH)
    variables = [v for v in part_variables(maps=has_maps) if v.is_per_row and v.path != "row"]
    _check_names(arrays, variables)
    checked = {v.path: _as_dtype(v, np.asarray(arrays[v.path])) for v in variables}
    checked["row"] = np.arange(start, stop, dtype=np.int64)
    _check_axes(checked)
    _check_classes(checked)
    _check_predicted_rows(checked)
    for variable in variables:
        _check_numbers(variable, checked)
    return checked


def dimension_sizes(arrays: Mapping[str, NDArray]) -> dict[str, int]:
    """The length of each dimension, by the path of its coordinate. Raises ValueError where two arrays disagree."""
    sizes: dict[str, int] = {}
    set_by: dict[str, str] = {}
    for path, array in arrays.items():
        variable = BY_PATH[path]
        if array.ndim != len(variable.dimensions):
            raise ValueError(f"{path}: expected the axes {variable.dimensions}, got an array of shape {array.shape}")
        for dimension, scale, size in zip(variable.dimensions, variable.scales, array.shape, strict=True):
            if size == 0 and dimension not in ROW_DIMENSIONS:
                raise ValueError(f"{path}: the axis {dimension} is empty, got an array of shape {array.shape}")
            if sizes.setdefault(scale, size) != size:
                expected = f"{sizes[scale]} along {dimension}, as {set_by[scale]} has"
                raise ValueError(f"{path}: expected {expected}, got {size}")
            set_by.setdefault(scale, path)
    return sizes


def _check_names(arrays: Mapping[str, ArrayLike], variables: Sequence[Variable]) -> None:
    expected = {variable.path for variable in variables}
    missing, unknown = sorted(expected - arrays.keys()), sorted(arrays.keys() - expected)
    if missing or unknown:
        raise ValueError(f"expected the variables of the schema; missing: {missing}, unknown: {unknown}")


def _as_dtype(variable: Variable, array: NDArray) -> NDArray:
    dtype = np.dtype(variable.dtype)
    if array.dtype == dtype:
        return array
    kinds = "f" if dtype.kind == "f" else "biu"
    if array.dtype.kind not in kinds:
        raise ValueError(f"{variable.path}: expected {dtype}, got {array.dtype}; cast it where it is computed")
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(dtype)
    if not np.array_equal(cast, array, equal_nan=dtype.kind == "f"):
        raise ValueError(f"{variable.path}: {array.dtype} values cannot become {dtype} without loss; round them first")
    return cast


def _check_axes(arrays: Mapping[str, NDArray]) -> None:
    rows_first = {"row": arrays["row"], PREDICTED_ROW: arrays[PREDICTED_ROW]}
    dimension_sizes(rows_first | dict(arrays))


def _check_classes(arrays: Mapping[str, NDArray]) -> None:
    n_classes = arrays["probability"].shape[1]
    for path in ("label", "prediction"):
        outside = (arrays[path] < 0) | (arrays[path] >= n_classes)
        if outside.any():
            raise ValueError(f"{path}: not in 0..{n_classes - 1} at rows {name_rows(arrays['row'][outside])}")


def _check_predicted_rows(arrays: Mapping[str, NDArray]) -> None:
    wrong = arrays["row"][arrays["prediction"] != arrays["label"]]
    given = arrays[PREDICTED_ROW]
    if not np.array_equal(given, wrong):
        differ = name_rows(np.setxor1d(given, wrong))
        reason = f"they differ at rows {differ}" if differ else "they are not ascending"
        raise ValueError(f"{PREDICTED_ROW}: expected the rows whose prediction is not their label, ascending; {reason}")


def _check_numbers(variable: Variable, arrays: Mapping[str, NDArray]) -> None:
    array = arrays[variable.path]
    if array.dtype.kind == "f":
        good, expected = np.isfinite(array), "finite numbers"
        if variable.least is not None:
            good, expected = good & (array >= variable.least), f"finite numbers from {variable.least:g} on"
    elif variable.is_flag:
        good, expected = array <= 1, "0 or 1"
    else:
        return
    if not good.all():
        bad = ~good.reshape(len(array), -1).all(axis=1)
        rows = arrays[variable.scales[0]][bad]
        raise ValueError(f"{variable.path}: expected {expected}, but not so at rows {name_rows(rows)}")
