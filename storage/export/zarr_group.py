"""The store as a Zarr group: the same paths, values, attributes and dimension names, in `attributions.zarr`.

Zarr format 2 with xarray's convention for dimensions (`_ARRAY_DIMENSIONS`) and consolidated metadata: every Zarr library
reads it, and texts have a type there, which format 3 does not specify yet.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from storage.file.layout import to_json
from storage.file.methods import INTEGRATED_GRADIENTS
from storage.file.schema import CHUNK_BYTES, groups_of
from storage.file.variable import TEXT, Variable
from storage.read.reader import StoreReader

if TYPE_CHECKING:
    import zarr

__all__ = ["write_zarr"]


def write_zarr(store: StoreReader, rows: NDArray[np.int64], folder: Path, advance: Callable[[int], None]) -> None:
    """Write attributions.zarr, block by block; where rows are chosen every array along `row` holds those only.

    Root attributes are as in the HDF5 file, with JSON as text. Arguments as export_rows.
    """
    import zarr

    path = folder / "attributions.zarr"
    root = zarr.open_group(path, mode="w", zarr_format=2)
    root.attrs.update({name: _attribute(value) for name, value in store.attributes.items()})
    for variable in store.variables:
        _copy(
            store,
            variable,
            rows,
            root,
            advance if variable.path == INTEGRATED_GRADIENTS.picture else lambda n_rows: None,
        )
    for group, description in groups_of(store.variables).items():
        root.require_group(group).attrs["description"] = description
    zarr.consolidate_metadata(path)


def _copy(
    store: StoreReader,
    variable: Variable,
    rows: NDArray[np.int64],
    root: "zarr.Group",
    advance: Callable[[int], None],
) -> None:
    """One dataset as one array: the chosen rows in blocks of a chunk, or all of what has no rows."""
    positions, texts = _positions(store, variable, rows), np.array(store.class_names, dtype=np.str_)
    is_text, shape = variable.dtype == TEXT, (len(positions), *store.shape_of(variable.path)[1:])
    row_bytes = texts.itemsize if is_text else int(np.prod(shape[1:])) * np.dtype(variable.dtype).itemsize
    texts_of = variable.about(int(str(store.attributes["schema"])))
    array = root.create_array(
        variable.path,
        shape=shape,
        chunks=(max(1, min(CHUNK_BYTES // row_bytes, shape[0])), *shape[1:]),
        dtype=texts.dtype if is_text else variable.dtype,
        # With a value here xarray would take cells of that value for missing.
        fill_value=None,
        attributes={
            "_ARRAY_DIMENSIONS": list(variable.dimensions),
            **{name: texts_of[name] for name in ("long_name", "units", "description")},
        },
    )
    step = array.chunks[0]
    for first in range(0, len(positions), step):
        block = positions[first : first + step]
        array[first : first + step] = texts[block] if is_text else store.gather(variable.path, block)
        advance(len(block))


def _positions(store: StoreReader, variable: Variable, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The positions along the first axis that are exported."""
    if not variable.is_per_row:
        return np.arange(store.shape_of(variable.path)[0])
    return np.flatnonzero(np.isin(store.column(variable.scales[0]), rows))


def _attribute(value: object) -> Any:
    return value if isinstance(value, str | int) else to_json(value)
