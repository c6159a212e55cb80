"""The attribution store for whoever analyses it: open_store, and the store with its tables and figures.

    with open_store("nightlens-data/latest") as store:
        rows = store.rows(label="cat", correct=False, converged=True)
        values = store.attributions(rows, target="predicted")

Tables need pandas, labelled arrays xarray, figures matplotlib; each is imported by the method that needs it.
"""

import operator
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from storage.errors import StoreNotFound
from storage.file.catalog import resolve_store
from storage.read import checked
from storage.read.reader import StoreReader, Target
from storage.read.remote.address import is_address, local_path, open_remote
from storage.read.row_views import RowSelection, select_rows

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.figure import Figure

    from storage.draw.notebook_cards import ShownRows

__all__ = ["AttributionStore", "open_store"]


class AttributionStore(StoreReader):
    """A sealed store, open for reading; close it or use it as a context manager. Made by open_store.

    A pickled one opens itself again where it is read, by the same path or address and with the same storage options.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen_store, self._origin

    def certificate(self, target: Target = "true", rows: RowSelection = ...) -> "pd.DataFrame":
        """How far each row's attribution can be trusted: a table by row number with the columns of methods.CERTIFICATE.

        gap, score and score_baseline in units of the score; quadrature_error relative; converged as bool.
        rows: as RowView takes them, by default all.
        """
        from storage.read.tables import certificate_table

        return certificate_table(self, target, np.atleast_1d(select_rows(rows, self._rows)))

    def table(self, rows: RowSelection = ...) -> "pd.DataFrame":
        """A pandas table of a line per image, by row number. rows: as RowView takes them, by default all.

        label, prediction (class numbers), label_name, prediction_name, correct, confidence (probability of the
        prediction), the certificate for the true class, and the maximum of each of its maps: NaN where there is none.
        """
        from storage.read.tables import row_table

        return row_table(self, np.atleast_1d(select_rows(rows, self._rows)))

    def clusters(self) -> "pd.DataFrame":
        """The strategies by which the model recognises its classes, a line each, by number; empty where there are none.

        name, class (number) and class_name of the prediction, n_rows, share_wrong, transplant_score with its control, and
        region_share. Means, regions and medoids are arrays: store.column("clusters/mean_heat").
        """
        from storage.read.tables import clusters_table

        return clusters_table(self)

    def to_xarray(self) -> "xr.Dataset":
        """Everything as one lazy xarray.Dataset, which reads through this store and closes it when it is closed.

        Axes row, y, x, channel, class, cam_y, cam_x and predicted_row; label, prediction and class_name are coordinates.
        A night without maps has none of their axes either.
        """
        from storage.read.labelled import as_dataset

        return as_dataset(self)

    def figure(self, rows: RowSelection, target: Target = "true") -> "Figure":
        """Explained rows as one matplotlib figure.

        rows: one row number gives the notebook's figures, the image with the picture of each method; several rows, as RowView
        takes them, give a sheet with a line a row: caption, image, and each method's picture with its own scale. Of a store
        without images every figure is such a sheet.
        Raises IndexError for a row that is not in the store, ValueError for none and for more than a sheet holds.
        """
        try:
            row = operator.index(rows)  # type: ignore[arg-type]
        except TypeError:
            row = None
        if row is None or not self.has_images:
            from storage.draw.row_sheet import draw_rows

            return draw_rows(self, np.atleast_1d(select_rows(rows, self._rows)), target)
        from storage.draw.row_pictures import draw_row

        return draw_row(self, row, target)

    def show(self, rows: RowSelection, target: Target = "true") -> "ShownRows":
        """Some rows that show themselves in a notebook, with captions and pictures; an array of their numbers to NumPy.

        rows: as RowView takes them. Raises IndexError for rows that are not in the store.
        """
        from storage.draw.notebook_cards import ShownRows

        if target not in ("true", "predicted"):
            raise ValueError(f'expected the target "true" or "predicted", got {target!r}')
        return ShownRows(self, np.atleast_1d(select_rows(rows, self._rows)), target)

    def _repr_html_(self) -> str:
        from storage.draw.notebook_cards import store_html

        return store_html(self, self.night)

    def night(self) -> dict[str, Any]:
        """The night.json beside the store, here or at its address; empty where there is none.

        Raises StoreCorrupt if it is no record of a night, StoreUnreachable.
        """
        from storage.nights.night_records import NIGHT_RECORD, checked_result, parsed_json, read_result

        if self._source is None:
            return read_result(Path(self.path).parent)
        try:
            with self._source.beside(NIGHT_RECORD) as record:
                return checked_result(parsed_json(NIGHT_RECORD, record.read() or b""))
        except StoreNotFound:
            return {}


def open_store(path: Path | str, *, storage_options: Mapping[str, Any] | None = None) -> AttributionStore:
    """Open the store at `path`: an attributions.h5, a night's folder, the symlink `latest`, or the root of all nights.

    The path may be an address, https:// or s3:// or file:// or whatever fsspec opens, which is read by ranges (but file://,
    which is a path); then storage_options go to fsspec's file system. A pickled store carries them, and opens itself again.
    Raises StoreNotFound, StoreUnreachable, StoreFormatError (not HDF5, not ours), StoreIncomplete (not sealed),
    StoreVersionError or StoreCorrupt (truncated, damaged); each says what to do.
    """
    if is_address(path):
        local = local_path(str(path))
        if local is None:
            return _open_address(str(path), storage_options)
        path = local
    if storage_options:
        raise ValueError(f"storage_options are for addresses such as s3://bucket/night, got the path {path}")
    resolved = resolve_store(path)
    file = checked.opened(resolved)
    try:
        return AttributionStore(file, resolved, (str(resolved), None))
    except BaseException:
        file.close()
        raise


def _reopen_store(path: str, storage_options: Mapping[str, Any] | None) -> AttributionStore:
    """What a pickled store becomes where it is read."""
    return open_store(path, storage_options=storage_options)


def _open_address(address: str, storage_options: Mapping[str, Any] | None) -> AttributionStore:
    source = open_remote(address, storage_options)
    try:
        file = checked.opened_hdf5(source, source.shown)
    except BaseException:
        source.close()
        raise
    try:
        return AttributionStore(file, source.shown, (address, storage_options), source)
    except BaseException:
        file.close()
        source.close()
        raise
