"""The file of a sealed store, open: what is in it, and its datasets by path, read with their checksums compared.

Opening checks that the file is a whole store of a known schema. A virtual store's pictures are read from its parts.
"""

import json
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from storage.errors import StoreCorrupt, StoreFormatError
from storage.file.added_tables import CLUSTERS, DRIFT, TABLES
from storage.file.layout import read_attributes
from storage.file.methods import CAM_AXES, methods_of
from storage.file.schema import BY_PATH, COLUMNS, IMAGE, OLDEST_SCHEMA, ROOT_ATTRIBUTES, variables_of
from storage.file.variable import Variable
from storage.read import checked
from storage.read.parts.linked_parts import check_there, offsets_of, read_table
from storage.read.parts.part_files import PartFiles
from storage.read.remote.address import RemoteFile
from storage.read.row_views import name_span

__all__ = ["StoreFile"]


def _close(file: h5py.File, source: RemoteFile | None, parts: list[PartFiles]) -> None:
    for each in parts:
        each.close()
    file.close()
    if source is not None:
        source.close()


class StoreFile:
    """A sealed store's file; close it or use it as a context manager.

    Several threads may read it at once. variables: the part of the schema that every row needs. methods: what its rows are
    explained by. has_images: false for a store that was handed over without its images; then `image` is a ValueError.
    """

    def __init__(
        self,
        file: h5py.File,
        path: Path | str,
        origin: tuple[str, Mapping[str, Any] | None],
        source: RemoteFile | None = None,
    ) -> None:
        """origin: what open_store is given to open it again. source: the file behind an address."""
        self.path = path
        self._file, self._source, self._origin = file, source, origin
        self._prefetch = source.prefetch if source else None
        self._columns: dict[str, NDArray] = {}
        self._offsets: dict[str, NDArray[np.int64]] = {}
        self._parts: PartFiles | None = None
        self._opened_parts: list[PartFiles] = []
        # Closed at the latest when the interpreter ends: HDF5 files on Python objects that outlive it can crash (h5py 3.14).
        self._finalize = weakref.finalize(self, _close, file, source, self._opened_parts)
        with checked.named_damage(path, "the root attributes"):
            self.attributes = read_attributes(file)
        if "part_rows" in self.attributes:
            raise StoreFormatError(f"{path}: expected a sealed store, got one of its parts; open attributions.h5")
        required = [attribute.name for attribute in ROOT_ATTRIBUTES]
        schema = checked.check_header(path, self.attributes, required, "a sealed store", oldest=OLDEST_SCHEMA)
        maps = checked.has_maps(file, path, schema)
        self.has_images = checked.has_images(self.attributes, path)
        self.variables = variables_of(schema, maps=maps, images=self.has_images)
        self.methods = tuple(methods_of(schema, maps=maps))
        tables = [variable for table in checked.tables_in(file, path, schema) for variable in table.variables]
        self._by_path = {variable.path: variable for variable in (*self.variables, *tables)}
        self._sizes = checked.check_datasets(file, path, [*self.variables, *tables])
        with checked.named_damage(path, "the root attributes"):
            for attribute in ROOT_ATTRIBUTES:
                if attribute.since > schema:
                    self.attributes[attribute.name] = attribute.earlier
                if attribute.kind == "json" and self.attributes[attribute.name] is not None:
                    self.attributes[attribute.name] = json.loads(str(self.attributes[attribute.name]))
        self._rows = self._consecutive_rows(self._sizes["row"])
        self._parts = self._linked_parts()

    def close(self) -> None:
        """Close the file; reading afterwards is a ValueError."""
        self._finalize()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def is_closed(self) -> bool:
        """Whether the store was closed: what was read before is still known, and nothing else."""
        return not self._file

    @property
    def n_bytes(self) -> int:
        """Size of the store's file and, in a virtual one, of its parts, on the disk or at its address."""
        own = Path(self.path).stat().st_size if self._source is None else self._source.size
        return own + sum(part.bytes for part in (self._parts.parts if self._parts else ()))

    @property
    def row_range(self) -> range:
        """The row numbers of the store as a range."""
        return self._rows

    @property
    def has_grad_cam(self) -> bool:
        """Whether the night has Grad-CAM maps; a model without any map has Integrated Gradients alone."""
        return CAM_AXES[0] in self._sizes

    @property
    def has_clusters(self) -> bool:
        """Whether the store has strategies: clusters of its explanations."""
        return CLUSTERS.variables[0].path in self._by_path

    @property
    def has_drift(self) -> bool:
        """Whether the store says what changed since an earlier night with another model."""
        return DRIFT.variables[0].path in self._by_path

    @property
    def all_variables(self) -> tuple[Variable, ...]:
        """Those that every row needs, and those of the tables that the store has, but for that of its parts."""
        return tuple(self._by_path.values())

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(y, x, channel) of every image, also where the store is without them."""
        return self._sizes["y"], self._sizes["x"], self._sizes["channel"]

    def shape_of(self, path: str) -> tuple[int, ...]:
        """The shape of a variable of the schema, as it is in the file. Raises ValueError for what the file does not have."""
        self._check_has(path)
        return tuple(self._sizes[scale] for scale in self._by_path[path].scales)

    def gather(self, path: str, positions: NDArray[np.int64]) -> NDArray:
        """The given positions of a variable's first axis, in any order and repeated; positions are not row numbers."""
        self._check_has(path)
        variable = self._by_path[path]
        scale = variable.scales[0]
        numbers: Sequence[int] | NDArray[np.int64] | None = None
        if scale != path:
            numbers = self._rows if scale == "row" else self.column(scale)
        try:
            if self._parts and variable.holds_pictures and numbers is not None:
                self._check_open()
                if scale not in self._offsets:
                    self._offsets[scale] = offsets_of(self._parts.parts, numbers)
                return self._parts.gather(variable, positions, numbers, self._offsets[scale])
            return checked.gather_rows(self._dataset(path), positions, numbers, self._prefetch)
        except (StoreCorrupt, ValueError, RuntimeError) as error:
            self._check_open(error)
            raise

    def column(self, path: str) -> NDArray:
        """A whole variable, read-only and read once: for those that are small."""
        if path not in self._columns:
            values = self.gather(path, np.arange(self.shape_of(path)[0]))
            values.setflags(write=False)
            self._columns[path] = values
        return self._columns[path]

    def _check_has(self, path: str) -> None:
        """Raises ValueError for a dataset that the store does not have, saying why."""
        if path in self._by_path:
            return
        if path == IMAGE:
            raise ValueError(
                f"{self.path}: this store was handed over without its images; ask for attributions and maps, or whoever "
                "packed it for the images"
            )
        variable = BY_PATH.get(path)
        if variable is None and any(path.startswith(f"{table.group}/") for table in TABLES):
            raise ValueError(f"{self.path}: this store has no {path}: nothing of it was found, or looked for")
        if variable is None:
            raise ValueError(
                f"{self.path}: unknown {path!r}; expected a dataset, or one of {[c.name for c in COLUMNS]}"
            )
        if variable.needs_map and not self.has_grad_cam:
            raise ValueError(
                f"{self.path}: this night has no Grad-CAM, its model had no map or grad_cam.layer was none; "
                "read the attributions, and ask store.has_grad_cam first"
            )
        came = self.attributes["schema"]
        raise ValueError(f"{self.path}: {path} is there since schema {variable.since}, this store has schema {came}")

    def _dataset(self, path: str) -> h5py.Dataset:
        self._check_open()
        with checked.named_damage(self.path, path):
            return self._file[path]

    def _check_open(self, cause: Exception | None = None) -> None:
        """Raises ValueError if the store is closed, be it since just now, by another thread."""
        if not self._file:
            message = f"{self.path}: the store is closed; open it again, or read inside the `with` block"
            raise ValueError(message) from cause

    def _linked_parts(self) -> PartFiles | None:
        """The parts that hold the pictures, None where they are in the store's own file."""
        table = read_table(self._file, self.path)
        if not table:
            return None
        if (table[0].start, table[-1].stop) != (self._rows.start, self._rows.stop):
            came = f"parts of the rows {table[0].start}-{table[-1].stop - 1}"
            raise StoreCorrupt(f"{self.path}: expected parts of {name_span(self._rows)}, got {came}; {checked.RESTORE}")
        if self._source is None:
            check_there(table, Path(self.path))
        files = PartFiles(self.path, table, str(self.attributes["digest"]), self._sizes, self._source)
        self._opened_parts.append(files)
        return files

    def _consecutive_rows(self, n_rows: int) -> range:
        numbers = self.column("row")
        rows = range(int(numbers[0]), int(numbers[0]) + n_rows)
        if not np.array_equal(numbers, rows):
            raise StoreCorrupt(f"{self.path}: expected consecutive row numbers from {rows.start}; {checked.RESTORE}")
        return rows
