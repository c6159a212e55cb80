"""The store as a Zarr group (format 2, which every Zarr library reads), paths, axes and attributes as in the HDF5 file.

xarray opens each group by `xr.open_zarr(path, group=...)`. Texts become variable-length strings, the only kind that Zarr's
other implementations share.
"""

from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr
from numcodecs import Blosc
from numpy.typing import NDArray

from storage.export import Progress
from storage.export.blocks import blocks
from storage.schema import GROUPS, TEXT, Variable
from storage.store import AttributionStore, Target

GROUP = "attributions.zarr"
CHUNK_BYTES = 1 << 20


def write(store: AttributionStore, rows: NDArray[np.int64], folder: Path, progress: Progress) -> None:
    """Write attributions.zarr with the given rows; the `predicted` groups hold the misclassified among them."""
    root = zarr.open_group(folder / GROUP, mode="w", zarr_format=2)
    root.attrs.update(cast(dict[str, Any], store.attributes))
    for path, description in GROUPS.items():
        root.require_group(path).attrs["description"] = description
    positions = rows - store.row_numbers[0]
    wrong = rows[store.labels[positions] != store.predictions[positions]]
    arrays = {variable.path: _create(root, store, variable, rows, wrong) for variable in store.variables}
    for ragged, chosen in ((False, rows), (True, wrong)):
        variables = [v for v in store.variables if v.is_per_row and v.is_ragged is ragged and not v.is_coordinate]
        for start, block in blocks(store, chosen):
            for variable in variables:
                path, target = _served_by(variable)
                arrays[variable.path][start : start + len(block)] = store.variable(path, target)[block]
            done = len(rows) + start if ragged else start
            progress(done + len(block), len(rows) + len(wrong))
    zarr.consolidate_metadata(folder / GROUP, zarr_format=2)


def _create(
    root: zarr.Group, store: AttributionStore, variable: Variable, rows: NDArray[np.int64], wrong: NDArray[np.int64]
) -> zarr.Array:
    """The array of a variable, filled where it does not count rows or merely names them."""
    values: NDArray | None = None
    if variable.dtype == TEXT:
        values = np.array(store.class_names, dtype=object)
    elif variable.is_coordinate:
        own = wrong if variable.is_ragged else rows
        values = own if variable.is_per_row else np.arange(_sizes(store)[variable.path])
    shape = values.shape if values is not None else _shape(store, variable, len(wrong if variable.is_ragged else rows))
    row_bytes = max(1, int(np.prod(shape[1:])) * (np.dtype(variable.dtype).itemsize if variable.dtype != TEXT else 64))
    array = root.create_array(
        variable.path,
        shape=shape,
        dtype=str if variable.dtype == TEXT else variable.dtype,
        chunks=(max(1, min(CHUNK_BYTES // row_bytes, shape[0])), *(max(1, side) for side in shape[1:])),
        # A fill value would be taken for "missing": every 0 would become NaN in xarray.
        fill_value=None,
        compressors=Blosc(cname="zstd", clevel=3, shuffle=Blosc.SHUFFLE),
        attributes={
            "_ARRAY_DIMENSIONS": list(variable.dimensions),
            "long_name": variable.long_name,
            "units": variable.units,
            "description": variable.description,
        },
    )
    if values is not None and len(values):
        array[:] = values
    return array


def _sizes(store: AttributionStore) -> dict[str, int]:
    lengths = (*store.image.shape[1:], *store.grad_cam.shape[1:], len(store.class_names))
    return dict(zip(("y", "x", "channel", "cam_y", "cam_x", "class"), lengths, strict=True))


def _served_by(variable: Variable) -> tuple[str, Target]:
    return variable.path.replace("/predicted/", "/"), "predicted" if variable.is_ragged else "true"


def _shape(store: AttributionStore, variable: Variable, n_rows: int) -> tuple[int, ...]:
    return (n_rows, *store.variable(_served_by(variable)[0]).shape[1:])
