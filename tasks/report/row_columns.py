"""The numbers of all rows as the page carries them: a column of little-endian numbers each, in base64."""

import base64
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage import COLUMNS, AttributionStore, Column
from storage.file.schema import STORED
from tasks.report.picture_strips import RowPictures
from tasks.report.ranking import REASONS

__all__ = ["page_data"]

# Read by templates/report.js; all of float32 is kept. Classes are counted in two bytes.
DTYPES = {"f": "<f4", "i": "<u4", "u": "<u1", "b": "<u1"}
CLASSES = ("label", "prediction")
N_LIKELY = 3


def page_data(store: AttributionStore, pictures: Sequence[RowPictures]) -> dict[str, Any]:
    """What the page's script works on: how each column is called and written, and its numbers; the pictures by row."""
    return {
        "start": store.row_range.start,
        "n_rows": len(store),
        "classes": store.class_names,
        "reasons": REASONS,
        "store": str(store.path),
        "methods": [{"name": m.group, "title": m.title, "is_map": m.is_map} for m in store.methods],
        "columns": [_column(store, column) for column in COLUMNS if _is_in_page(store, column)],
        "pictures": [_entry(store, entry) for entry in sorted(pictures, key=lambda entry: entry.row)],
    }


def _is_in_page(store: AttributionStore, column: Column) -> bool:
    """A number that the store does not have is left out, and not shown as NaN."""
    paths = {variable.path for variable in store.variables}
    is_there = column.name not in STORED or STORED[column.name].path in paths
    return is_there and (column.name in CLASSES or "report" in column.places or bool(column.choices))


def _column(store: AttributionStore, column: Column) -> dict[str, Any]:
    values = store.values(column.name, ...)
    dtype = "<u2" if column.name in CLASSES else DTYPES[values.dtype.kind]
    numbers = base64.b64encode(values.astype(dtype).tobytes()).decode()
    of_map = any(column in method.columns for method in store.methods if method.is_map)
    return asdict(column) | {
        "shown": "report" in column.places,
        "of_map": of_map,
        "dtype": dtype[1:],
        "numbers": numbers,
    }


def _entry(store: AttributionStore, entry: RowPictures) -> dict[str, Any]:
    probabilities: NDArray[np.float32] = store.values("probability", entry.row)[0]
    likely = np.argsort(-probabilities, kind="stable")[:N_LIKELY]
    return {
        "row": entry.row,
        "why": REASONS.index(entry.why),
        "image": entry.image,
        "true": {group: asdict(picture) for group, picture in entry.true.items()},
        "predicted": {group: asdict(picture) for group, picture in entry.predicted.items()},
        "likely": [[int(k), round(float(probabilities[k]), 4)] for k in likely],
    }
