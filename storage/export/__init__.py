"""Exporting a store, or the rows of it that a filter chose, into the formats of other programs.

An export is a folder that appears under its name only once it is whole. Rows keep their numbers wherever the format has a
place for them. Nothing is named after a class, a dataset or a model, so that no name can lead out of the folder.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from storage.errors import StoreError
from storage.export.destination import destination, whole_folder
from storage.store import AttributionStore

__all__ = ["FORMATS", "Format", "MissingPackage", "destination", "export_rows"]

Format = Literal["virelay", "zarr", "parquet", "png"]
FORMATS: tuple[Format, ...] = get_args(Format)
WRITERS = {
    "virelay": "storage.export.virelay_project",
    "zarr": "storage.export.zarr_group",
    "parquet": "storage.export.row_table",
    "png": "storage.export.row_pictures",
}
# Of each format, what the base install does not bring.
EXTRA_PACKAGES = ("yaml", "zarr", "pyarrow")

Progress = Callable[[int, int], None]
"""Called with how many of how many rows are done."""


class MissingPackage(StoreError):
    """A format needs a package that is not installed."""


def export_rows(
    store: AttributionStore,
    rows: NDArray[np.int64],
    to: Format,
    folder: Path,
    *,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
) -> Path:
    """Write the rows with those numbers into a new folder, in the given format. Returns the folder.

    rows: ascending, as AttributionStore.rows returns them; none is an empty export, not an error.
    overwrite: replace a folder that is there and not empty.
    Raises ValueError for an unknown format, FileExistsError for a folder in use, MissingPackage, OSError if it cannot be
    written and StoreError if the store is damaged; then no folder is left behind.
    """
    if to not in FORMATS:
        raise ValueError(f"expected one of the formats {', '.join(FORMATS)}, got {to!r}")
    rows = np.asarray(rows, dtype=np.int64)
    try:
        write = import_module(WRITERS[to]).write
    except ModuleNotFoundError as error:
        if error.name not in EXTRA_PACKAGES:
            raise
        raise MissingPackage(
            f"--to {to} needs {error.name}; install it with: pip install 'nightlens[export]'"
        ) from error
    with whole_folder(folder, overwrite=overwrite) as temporary:
        write(store, rows, temporary, progress)
    return folder
