"""How the schema becomes HDF5: datasets with filters and chunks, texts, dimension scales.

The file is made to be read for years by others: it is also a valid netCDF-4 file (a dimension scale on every axis; `row`
is an unlimited dimension, as netCDF's record dimension is), its filters are those that every reader has, and all our
texts are fixed-length, because the heap of variable-length strings is the one part of a `v110` file without checksum.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from storage.file.schema import SCHEMA_VERSION, chunk_rows, groups_of
from storage.file.variable import TEXT, Variable

# 4 MiB per open dataset: room for a chunk that is filled by several parts, so that it is compressed once.
CACHE_BYTES = 4 << 20
MAGIC = b"\x89HDF\r\n\x1a\n"
LIBVER = ("v110", "v110")
GZIP_LEVEL = 4
FILTERS = {"compression": "gzip", "compression_opts": GZIP_LEVEL, "shuffle": True, "fletcher32": True}
NO_TEXTS: Mapping[str, np.dtype] = {}
NOTHING_VIRTUAL: Mapping[str, h5py.VirtualLayout] = {}


def create_file(target: Path | BinaryIO) -> h5py.File:
    """A new, empty HDF5 file with checksummed headers (libver v110); one that is there is overwritten."""
    return h5py.File(target, "w", libver=LIBVER, rdcc_nbytes=CACHE_BYTES)


def create_reserved(path: Path, n_bytes: int) -> h5py.File:
    """The same on the disk, with room for n_bytes taken beforehand; closing gives back what was not needed.

    A disk that fills up under HDF5 ends the process: the library cannot close a file that it cannot flush (1.14.6 ends in
    a segmentation fault). So the disk is asked first, and a full one is a plain OSError. Where the system cannot
    reserve (macOS) nothing is reserved.
    """
    create_file(path).close()
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, n_bytes)
    return h5py.File(path, "r+", libver=LIBVER, rdcc_nbytes=CACHE_BYTES)


def fixed_text(text: str) -> NDArray[np.bytes_]:
    """A text as a fixed-length UTF-8 scalar, as HDF5 stores it.

    Raises ValueError if the text holds a NUL, which ends a fixed-length string, or cannot be encoded.
    """
    if "\0" in text:
        raise ValueError(f"a text in the store cannot hold the character NUL, got {text!r}")
    encoded = text.encode(TEXT)
    return np.array(encoded, dtype=h5py.string_dtype(TEXT, max(1, len(encoded))))


def fixed_texts(texts: Sequence[str]) -> NDArray[np.bytes_]:
    """Texts as one fixed-length UTF-8 array (text), as long as the longest needs."""
    scalars = [fixed_text(text) for text in texts]
    n_bytes = max((scalar.dtype.itemsize for scalar in scalars), default=1)
    return np.array([scalar.item() for scalar in scalars], dtype=h5py.string_dtype(TEXT, n_bytes))


def write_attributes(node: h5py.Group | h5py.Dataset, attributes: Mapping[str, object]) -> None:
    """Write attributes: a str as fixed-length text, an int as int64, a mapping or list as JSON text."""
    for name, value in attributes.items():
        if isinstance(value, (int, np.integer)):
            node.attrs[name] = np.int64(value)
        else:
            node.attrs[name] = fixed_text(value if isinstance(value, str) else to_json(value))


def to_json(value: object) -> str:
    """Canonical JSON; raises TypeError or ValueError for what JSON cannot say."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)


def read_attributes(node: h5py.Group | h5py.Dataset) -> dict[str, object]:
    """All attributes, texts decoded, numbers as int."""
    return {name: _plain(value) for name, value in node.attrs.items()}


def read_texts(values: NDArray[np.bytes_]) -> list[str]:
    """The texts of a fixed-length UTF-8 array."""
    return [value.decode(TEXT) for value in values.tolist()]


def lay_out(
    file: h5py.File,
    variables: Sequence[Variable],
    sizes: Mapping[str, int],
    *,
    part_rows: int,
    text_dtypes: Mapping[str, np.dtype] = NO_TEXTS,
    virtual: Mapping[str, h5py.VirtualLayout] = NOTHING_VIRTUAL,
    schema: int = SCHEMA_VERSION,
) -> None:
    """Create the datasets of `variables`, empty, with attributes, filters and dimension scales.

    sizes: the length of each dimension by the path of its coordinate.
    part_rows: rows of a whole part, which chunks copied raw must tile.
    text_dtypes: the fixed-length string dtype of each text among the variables, by path.
    virtual: by path, where the values of those are that lie in other files. Where such a file is missing HDF5 reads NaN
        from the dataset if it can, and not a number that could be one.
    schema: the version whose texts the datasets carry, of which the variables are.
    """
    for variable in variables:
        shape = tuple(sizes[scale] for scale in variable.scales)
        if variable.path in virtual:
            dataset = file.create_virtual_dataset(variable.path, virtual[variable.path], fillvalue=_no_value(variable))
        else:
            dataset = file.create_dataset(
                variable.path,
                shape=shape,
                maxshape=(None, *shape[1:]) if variable.is_per_row else shape,
                dtype=text_dtypes[variable.path] if variable.dtype == TEXT else variable.dtype,
                chunks=_chunks(variable, shape, part_rows),
                **FILTERS,
            )
        write_attributes(dataset, variable.about(schema))
        if variable.is_coordinate:
            dataset.make_scale(variable.dimensions[0])
    for path, description in groups_of(variables).items():
        write_attributes(file[path], {"description": description})
    for variable in variables:
        if not variable.is_coordinate:
            _attach_scales(file, variable)


def index_coordinates(file: h5py.File, variables: Sequence[Variable]) -> None:
    """Fill the coordinates that merely count: all but those of rows."""
    for variable in variables:
        if variable.is_coordinate and not variable.is_per_row:
            file[variable.path][:] = np.arange(file[variable.path].shape[0])


def _attach_scales(file: h5py.File, variable: Variable) -> None:
    for axis, dimension, scale in zip(file[variable.path].dims, variable.dimensions, variable.scales, strict=True):
        axis.attach_scale(file[scale])
        axis.label = dimension


def _no_value(variable: Variable) -> float:
    return float("nan") if np.dtype(variable.dtype).kind == "f" else 0


def _chunks(variable: Variable, shape: tuple[int, ...], part_rows: int) -> tuple[int, ...]:
    if not variable.is_per_row:
        return shape
    return (chunk_rows(variable, shape[1:], part_rows=part_rows, n_rows=shape[0]), *shape[1:])


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.decode(TEXT)
    return value.item() if isinstance(value, np.generic) else value
