"""The numbers of all rows as the page carries them: a column of little-endian numbers each, in base64.

Of a column of names the numbers say which of its `names` a row has.
"""

import base64
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage import COLUMNS, AttributionStore, Column
from storage.file.schema import STORED
from storage.file.variable import NAME, Place
from tasks.report.picture_strips import RowPictures
from tasks.report.ranking import REASONS

__all__ = ["page_data", "page_entries"]

# Read by templates/report.js; all of float32 is kept. Classes are counted in two bytes.
DTYPES = {"f": "<f4", "i": "<u4", "u": "<u1", "b": "<u1"}
CLASSES = ("label", "prediction")
NAMED = ("label_name", "prediction_name")  # which the page has from `classes`
N_LIKELY = 3


def page_data(
    store: AttributionStore, pictures: Sequence[RowPictures], places: Sequence[Place] = ("report",)
) -> dict[str, Any]:
    """What the page's script works on: how each column is called and written, and its numbers; the pictures by row.

    places: whose columns are among them, to filter and order by; those that are shown are the report's.
    """
    in_page = {column: store.values(column.name, ...) for column in COLUMNS if _is_in_page(store, column, places)}
    return {
        "start": store.row_range.start,
        "n_rows": len(store),
        "classes": store.class_names,
        "reasons": REASONS,
        "store": str(store.path),
        "methods": [{"name": m.group, "title": m.title, "is_map": m.is_map} for m in store.methods],
        "columns": [_column(store, column, values) for column, values in in_page.items() if _has_any(values)],
        "pictures": page_entries(store, pictures),
    }


def page_entries(store: AttributionStore, pictures: Sequence[RowPictures]) -> list[dict[str, Any]]:
    """The pictures of some rows as the page's script takes them, by row."""
    return [_entry(store, entry) for entry in sorted(pictures, key=lambda entry: entry.row)]


def _is_in_page(store: AttributionStore, column: Column, places: Sequence[Place]) -> bool:
    """A number that the store does not have is left out, and not shown as NaN."""
    paths = {variable.path for variable in store.variables}
    is_there = (column.name not in STORED or STORED[column.name].path in paths) and column.name not in NAMED
    return is_there and (column.name in CLASSES or bool(set(places) & set(column.places)) or bool(column.choices))


def _has_any(values: NDArray) -> bool:
    """Whether any row has a value: none has where nothing was measured, or no strategy was found."""
    if values.dtype.kind == "O":
        return bool((values != "").any())
    return values.dtype.kind != "f" or not np.isnan(values).all()


def _column(store: AttributionStore, column: Column, values: NDArray) -> dict[str, Any]:
    names: list[str] = []
    if column.number_format == NAME:
        # The shorter first, so that the names of class 10 come after those of class 2.
        names = sorted(set(values), key=lambda name: (len(name), name))
        places = {name: place for place, name in enumerate(names)}
        values = np.array([places[name] for name in values])
    dtype = "<u2" if column.name in CLASSES or names else DTYPES[values.dtype.kind]
    of_map = any(column in method.columns for method in store.methods if method.is_map)
    return asdict(column) | {
        "shown": "report" in column.places,
        "of_map": of_map,
        "names": names,
        "dtype": dtype[1:],
        "numbers": base64.b64encode(values.astype(dtype).tobytes()).decode(),
    }


def _entry(store: AttributionStore, entry: RowPictures) -> dict[str, Any]:
    probabilities: NDArray[np.float32] = store.values("probability", entry.row)[0]
    likely = np.argsort(-probabilities, kind="stable")[:N_LIKELY]
    return {
        "row": entry.row,
        "why": REASONS.index(entry.why) if entry.why else None,
        "image": entry.image,
        "true": {group: asdict(picture) for group, picture in entry.true.items()},
        "predicted": {group: asdict(picture) for group, picture in entry.predicted.items()},
        "likely": [[int(k), round(float(probabilities[k]), 4)] for k in likely],
    }
