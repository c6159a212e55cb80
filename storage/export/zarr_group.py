"""The store as a Zarr group: the same paths, values, attributes and dimension names, in `attributions.zarr`.

Zarr format 2 with xarray's convention for dimensions (`_ARRAY_DIMENSIONS`) and consolidated metadata: every Zarr library
reads it, and texts have a type there, which format 3 does not specify yet. Chunks are those of the store along rows.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from storage import reading
from storage.layout import read_attributes, read_texts
from storage.store import AttributionStore

__all__ = ["write_zarr"]

# How HDF5 says what a dimension is; Zarr says it in another way.
SCALE_ATTRIBUTES = {"CLASS", "NAME", "DIMENSION_LIST", "DIMENSION_LABELS", "REFERENCE_LIST"}


def write_zarr(store: AttributionStore, rows: NDArray[np.int64], folder: Path, advance: Callable[[int], None]) -> None:
    """Write attributions.zarr, block by block; where rows are chosen every array along `row` holds those only.

    Root attributes are as in the HDF5 file, with JSON as text. Arguments as export_rows.
    """
    import zarr

    path = folder / "attributions.zarr"
    with reading.open_file(store.path) as file:
        root = zarr.open_group(path, mode="w", zarr_format=2)
        root.attrs.update(_attributes(file))
        for dataset in _datasets(file):
            _copy(dataset, rows, root, advance if dataset.name == "/image" else lambda n_rows: None)
        for name in _groups(file):
            root.require_group(name).attrs.update(_attributes(file[name]))
    zarr.consolidate_metadata(path)


def _copy(dataset: h5py.Dataset, rows: NDArray[np.int64], root: Any, advance: Callable[[int], None]) -> None:
    """One dataset as one array: the chosen rows in blocks of a chunk, or all of what has no rows."""
    positions, numbers = _chosen(dataset, rows)
    shape, is_text = (len(positions), *dataset.shape[1:]), h5py.check_string_dtype(dataset.dtype) is not None
    texts = _texts(dataset[...]) if is_text else None
    array = root.create_array(
        dataset.name.lstrip("/"),
        shape=shape,
        chunks=tuple(max(1, min(chunk, size)) for chunk, size in zip(dataset.chunks, shape, strict=True)),
        dtype=dataset.dtype if texts is None else texts.dtype,
        # With a value here xarray would take cells of that value for missing.
        fill_value=None,
    )
    dimensions = [axis.label or Path(dataset.name).name for axis in dataset.dims]
    array.attrs.update(_attributes(dataset) | {"_ARRAY_DIMENSIONS": dimensions})
    step = array.chunks[0]
    for first in range(0, len(positions), step):
        block = positions[first : first + step]
        values = reading.gather_rows(dataset, block, numbers)
        array[first : first + step] = values if texts is None else _texts(values)
        advance(len(block))


def _chosen(dataset: h5py.Dataset, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The positions of the first axis that are exported, and the number of every position, for messages."""
    axis = dataset.dims[0]
    scale = axis[0] if len(axis) else dataset
    if Path(scale.name).name != "row":
        return np.arange(len(dataset)), np.arange(len(dataset))
    numbers = reading.read_rows(scale, 0, len(scale))
    return np.flatnonzero(np.isin(numbers, rows)), numbers


def _texts(values: NDArray[np.bytes_]) -> NDArray[np.str_]:
    return np.array(read_texts(values), dtype=np.str_)


def _attributes(node: h5py.Group | h5py.Dataset) -> dict[str, Any]:
    known = {name: value for name, value in read_attributes(node).items() if name not in SCALE_ATTRIBUTES}
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in known.items()}


def _datasets(file: h5py.File) -> Iterator[h5py.Dataset]:
    return (file[name] for name in _names(file) if isinstance(file[name], h5py.Dataset))


def _groups(file: h5py.File) -> Iterator[str]:
    return (name for name in _names(file) if isinstance(file[name], h5py.Group))


def _names(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visit(names.append)
    return names
