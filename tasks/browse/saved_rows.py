"""Rows as a file to take along: their numbers as Parquet, their pictures as one PNG."""

import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from storage import AttributionStore
from storage.export import export_rows, prepared_destination

__all__ = ["PNG_ROWS", "SavedAs", "save_rows"]

SavedAs = Literal["parquet", "png"]
PNG_ROWS = 24
DPI = 110


def save_rows(store: AttributionStore, rows: Sequence[int], to: SavedAs) -> bytes:
    """The file's bytes. rows: in the order in which they are shown; of a PNG the first PNG_ROWS.

    Raises IndexError for a row that is not in the store, ModuleNotFoundError where Parquet needs a package that is missing.
    """
    if to == "png":
        buffer = io.BytesIO()
        store.figure(list(rows[:PNG_ROWS])).savefig(buffer, format="png", dpi=DPI)
        return buffer.getvalue()
    with tempfile.TemporaryDirectory(prefix="nightlens-") as folder:
        path = prepared_destination(Path(folder) / "rows", store.path, overwrite=False)
        export_rows(store, np.unique(np.asarray(rows, np.int64)), "parquet", path)
        return (path / "rows.parquet").read_bytes()
