"""A store as one lazy xarray.Dataset.

Variables keep the names they have in the file; those of the misclassified rows, explained for the predicted class, are
`predicted_...` along `predicted_row`. Per-row coordinates tell what to group and select by. Numbers are read when they are
asked for, by the store's own reader, and so checked; closing the dataset closes the store.
"""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from storage.file.layout import to_json
from storage.file.variable import TEXT, Variable
from storage.read.reader import StoreReader

ROW_COORDINATES = ("label", "prediction")


def as_dataset(store: StoreReader) -> xr.Dataset:
    """Everything in a store, by the axes row, y, x, channel, class, cam_y, cam_x (with Grad-CAM) and predicted_row."""
    data: dict[str, xr.Variable] = {}
    coordinates: dict[str, xr.Variable] = {}
    for variable in store.variables:
        name = variable_name(variable, store.variables)
        if variable.dtype == TEXT:
            values: Any = np.array(store.class_names, dtype=object).astype(str)
        elif variable.is_coordinate or name in ROW_COORDINATES:
            values = store.column(variable.path)
        else:
            values = indexing.LazilyIndexedArray(StoredRows(store, variable))
        texts = variable.about(int(str(store.attributes["schema"])))
        about = {name: texts[name] for name in ("long_name", "units", "description")}
        labelled = xr.Variable(tuple(map(_dimension, variable.scales)), values, about)
        is_coordinate = variable.is_coordinate or variable.dtype == TEXT or name in ROW_COORDINATES
        (coordinates if is_coordinate else data)[name] = labelled
    dataset = xr.Dataset(data, coordinates, attrs=_attributes(store))
    dataset.set_close(store.close)
    return dataset


def variable_name(variable: Variable, variables: tuple[Variable, ...]) -> str:
    """The name of a variable where there are no groups: its own, with its method in front where two would be the same."""
    if variable.is_coordinate:
        return _dimension(variable.path)
    name = _short_name(variable)
    same = [other for other in variables if _short_name(other) == name and not other.is_coordinate]
    return name if len(same) < 2 else f"{variable.path.partition('/')[0]}_{name}"


def _short_name(variable: Variable) -> str:
    return ("predicted_" if variable.is_ragged else "") + variable.name


def _dimension(scale: str) -> str:
    """Before schema 5 each method had its own coordinate of the misclassified rows, which are the same rows."""
    return "predicted_row" if scale.endswith("/predicted/row") else scale


def _attributes(store: StoreReader) -> dict[str, str | int]:
    """The root attributes; netCDF has none that are nested, so these are JSON again."""
    return {name: value if isinstance(value, str | int) else to_json(value) for name, value in store.attributes.items()}


class StoredRows(BackendArray):
    """One per-row variable of a store, for xarray: (row, ...), read on indexing."""

    def __init__(self, store: StoreReader, variable: Variable) -> None:
        self.store, self.path = store, variable.path
        self.shape, self.dtype = store.shape_of(variable.path), np.dtype(variable.dtype)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> NDArray:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray:
        positions = np.arange(self.shape[0])[key[0]]
        values = self.store.gather(self.path, np.atleast_1d(positions))
        for axis in range(len(key) - 1, 0, -1):
            values = values[(slice(None),) * axis + (key[axis],)]
        return values if np.ndim(positions) else values[0]
