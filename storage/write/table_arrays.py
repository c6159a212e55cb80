"""What may enter the tables that a store has or has not: arrays that follow the schema, agree with each other and are finite."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from storage.file.added_tables import PARTS, TABLES, Table
from storage.file.layout import fixed_texts
from storage.file.variable import TEXT, Variable

__all__ = ["checked_tables"]


def checked_tables(tables: Mapping[str, ArrayLike], n_rows: int, n_classes: int) -> dict[str, NDArray]:
    """The arrays in the schema's dtypes, by path, e.g. "clusters/n_rows": those of a table all or none, without coordinates.

    n_rows, n_classes: of the store. Raises ValueError for a path that is in no table, one that is missing, a dtype that cannot
    be cast without loss, axes that disagree or are empty, and numbers that are not finite.
    """
    given = [table for table in TABLES if table is not PARTS and any(path in tables for path in _paths(table))]
    known = {path: variable for table in given for path, variable in _paths(table).items()}
    missing, unknown = sorted(known.keys() - tables.keys()), sorted(tables.keys() - known.keys())
    if missing or unknown:
        raise ValueError(f"expected the tables of the schema; missing: {missing}, unknown: {unknown}")
    checked = {path: _as_dtype(variable, tables[path]) for path, variable in known.items()}
    sizes = {"row": n_rows, "class": n_classes}
    for path, values in checked.items():
        variable = known[path]
        if values.ndim != len(variable.dimensions):
            raise ValueError(f"{path}: expected the axes {variable.dimensions}, got an array of shape {values.shape}")
        for scale, size in zip(variable.scales, values.shape, strict=True):
            if not size or sizes.setdefault(scale, size) != size:
                raise ValueError(f"{path}: expected {sizes[scale] or 'some'} along {scale}, got {size}")
    return checked


def _paths(table: Table) -> dict[str, Variable]:
    return {variable.path: variable for variable in table.variables if not variable.is_coordinate}


def _as_dtype(variable: Variable, values: ArrayLike) -> NDArray:
    if variable.dtype == TEXT:
        return fixed_texts([str(text) for text in np.asarray(values, dtype=object)])
    array = np.asarray(values)
    if array.dtype.kind not in ("f" if variable.dtype.startswith("float") else "biu"):
        raise ValueError(f"{variable.path}: expected {variable.dtype}, got {array.dtype}")
    cast = array.astype(variable.dtype)
    if cast.dtype.kind == "f" and not np.isfinite(cast).all():
        raise ValueError(f"{variable.path}: expected finite numbers")
    if cast.dtype.kind != "f" and not np.array_equal(cast, array):
        raise ValueError(f"{variable.path}: {array.dtype} values cannot become {variable.dtype} without loss")
    return cast
