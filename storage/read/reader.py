"""Reading a sealed store by row number: what is known of every row, images, attributions and maps.

Opening checks that the file is a whole store of a known schema; the checksum of what is read is compared as it is read.
Targets: "true" explains the label, "predicted" the prediction. The file holds the latter only where the two differ;
here both targets are served for all rows.
"""

import json
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from storage.errors import StoreCorrupt, StoreError, StoreFormatError
from storage.file.added_tables import CLUSTERS, TABLES
from storage.file.layout import read_attributes, read_texts
from storage.file.methods import CAM_AXES, GRAD_CAM, INTEGRATED_GRADIENTS, METHODS, StoredMethod, methods_of
from storage.file.schema import BY_PATH, COLUMNS, OLDEST_SCHEMA, ROOT_ATTRIBUTES, STORED, variables_of
from storage.read import checked
from storage.read.class_names import class_number
from storage.read.parts.linked_parts import check_there, offsets_of, read_table
from storage.read.parts.part_files import PartFiles
from storage.read.remote.address import RemoteFile
from storage.read.row_means import mean_over_rows
from storage.read.row_views import RowSelection, RowView, name_span, select_rows
from storage.read.upsampling import upsample

Target = Literal["true", "predicted"]


def _close(file: h5py.File, source: RemoteFile | None, parts: list[PartFiles]) -> None:
    for each in parts:
        each.close()
    file.close()
    if source is not None:
        source.close()


class StoreReader:
    """A sealed store, open for reading; close it or use it as a context manager. Drawing, tables and exports take one.

    Several threads may read one store at once. variables: the part of the schema that the file holds. methods: what its rows
    are explained by.
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
        self.variables, self.methods = variables_of(schema, maps=maps), tuple(methods_of(schema, maps=maps))
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
    def n_bytes(self) -> int:
        """Size of the store's file and, in a virtual one, of its parts, on the disk or at its address."""
        own = Path(self.path).stat().st_size if self._source is None else self._source.size
        return own + sum(part.bytes for part in (self._parts.parts if self._parts else ()))

    def __repr__(self) -> str:
        about = self.attributes
        head = f"<{type(self).__name__} {about['dataset_name']}/{about['dataset_split']}, {name_span(self._rows)}"
        head += f", model {about['model_name']}, night {about['run_id']}"
        if not self._file:
            return f"{head}, closed>"
        try:
            right, converged = (self.values(name, ...).mean() for name in ("correct", "converged"))
            head += f", accuracy {right:.2%}, converged {converged:.2%}"
        except StoreError:
            return f"{head}, damaged>"
        head += "" if self.has_grad_cam else ", no Grad-CAM"
        fed = " ".join(str(self.contract.get("summary", "")).split())
        return f"{head}>\nmodel is fed: {fed}" if fed else f"{head}>"

    # What is known of every row.

    @property
    def row_numbers(self) -> NDArray[np.int64]:
        """(row,): the row numbers of the store, ascending and consecutive; they need not begin at 0."""
        return np.arange(self._rows.start, self._rows.stop, dtype=np.int64)

    @property
    def row_range(self) -> range:
        """The row numbers of the store as a range."""
        return self._rows

    @property
    def has_grad_cam(self) -> bool:
        """Whether the night has Grad-CAM maps; a model without any map has Integrated Gradients alone."""
        return CAM_AXES[0] in self._sizes

    @property
    def contract(self) -> dict[str, Any]:
        """What the model was fed and how it is read, with the reasons and the checks; empty for a store before schema 4."""
        contract = self.attributes["contract"]
        return contract if isinstance(contract, dict) else {}

    @property
    def has_clusters(self) -> bool:
        """Whether the store has strategies: clusters of its explanations."""
        return CLUSTERS.variables[0].path in self._by_path

    @cached_property
    def cluster_names(self) -> list[str]:
        """The name of each cluster, by its number; none where there are none."""
        return read_texts(self.column("clusters/name")) if self.has_clusters else []

    @cached_property
    def class_names(self) -> list[str]:
        """The name of each class, by class number."""
        return read_texts(self.column("class_name"))

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """(row,): the true class of each row, in the order of row_numbers. Read-only, as are the next two."""
        return self.column("label")

    @cached_property
    def predictions(self) -> NDArray[np.int64]:
        """(row,): the predicted class of each row, in the order of row_numbers."""
        return self.column("prediction")

    @cached_property
    def probabilities(self) -> NDArray[np.float32]:
        """(row, class): what the model says of each class, in the order of row_numbers; see `contract`."""
        return self.column("probability")

    @property
    def confidences(self) -> NDArray[np.float32]:
        """(row,): the probability of the predicted class, in the order of row_numbers."""
        return self.values("confidence", ...)

    def rows(
        self,
        label: str | int | None = None,
        prediction: str | int | None = None,
        correct: bool | None = None,
        min_confidence: float | None = None,
        converged: bool | None = None,
        max_gap: float | None = None,
    ) -> NDArray[np.int64]:
        """The row numbers, ascending int64, of which all that is given is true; empty if there are none.

        label, prediction: a class by name or number. correct: whether prediction is label.
        min_confidence: least probability of the predicted class.
        converged, max_gap: the certificate for the true class; max_gap bounds |gap|, in units of the score.
        Raises ValueError for an unknown class, listing the known ones.
        """
        chosen = np.ones(len(self), dtype=bool)
        if label is not None:
            chosen &= self.labels == class_number(self.class_names, label)
        if prediction is not None:
            chosen &= self.predictions == class_number(self.class_names, prediction)
        if correct is not None:
            chosen &= self.values("correct", ...) == correct
        if min_confidence is not None:
            chosen &= self.confidences >= min_confidence
        if converged is not None:
            chosen &= self.values("converged", ...) == converged
        if max_gap is not None:
            chosen &= np.abs(self.values("gap", ...)) <= max_gap
        return self.row_numbers[chosen]

    # Images and explanations, read on demand.

    @property
    def image(self) -> RowView:
        """(row, y, x, channel) uint8: the images, by row number."""
        return self._view("image", "true")

    @property
    def integrated_gradients(self) -> RowView:
        """(row, y, x, channel) float32: attributions for the true class, by row number, in units of the score."""
        return self.view(INTEGRATED_GRADIENTS)

    @property
    def grad_cam(self) -> RowView:
        """(row, cam_y, cam_x) float32: Grad-CAM maps for the true class, by row number, not normalised.

        Raises ValueError if the store has no Grad-CAM, as do maps, upsampled_cam and mean_map.
        """
        return self.view(GRAD_CAM)

    def attributions(self, rows: RowSelection, target: Target = "true") -> NDArray[np.float32]:
        """(row, y, x, channel): attributions for the true or the predicted class, for any rows, as RowView takes them.

        Raises IndexError for rows that are not in the store, StoreCorrupt if they are damaged.
        """
        return self.view(INTEGRATED_GRADIENTS, target)[rows]

    def maps(
        self, rows: RowSelection, target: Target = "true", method: StoredMethod | str = GRAD_CAM
    ) -> NDArray[np.float32]:
        """(row, cam_y, cam_x): the maps of a method for the true or the predicted class, otherwise as attributions().

        method: one of `methods`, or its group, "grad_cam" by default.
        """
        return self.view(self._known(method, is_map=True), target)[rows]

    def upsampled_cam(
        self, rows: RowSelection, target: Target = "true", method: StoredMethod | str = GRAD_CAM
    ) -> NDArray[np.float32]:
        """(row, y, x): maps at the size of the image, bilinear with half-pixel centres, in the maps' own units.

        rows: as RowView takes them; for an int the axis row falls away. Never normalised: an empty map stays zero.
        """
        return upsample(self.maps(rows, target, method), *self.shape_of("image")[1:3])

    def mean_map(
        self, label: str | int | None = None, target: Target = "true", method: StoredMethod | str = GRAD_CAM
    ) -> NDArray[np.float64]:
        """(cam_y, cam_x): the mean map of the rows whose label is this class, by name or number; of all for None.

        Raises ValueError for an unknown class, and for one that no row has.
        """
        return self._mean(self._known(method, is_map=True).picture, label, target)

    def mean_attribution(self, label: str | int | None = None, target: Target = "true") -> NDArray[np.float64]:
        """(y, x, channel): the mean attribution of these rows, signed, in units of the score; otherwise as mean_map()."""
        return self._mean(INTEGRATED_GRADIENTS.picture, label, target)

    # The file.

    def _mean(self, path: str, label: str | int | None, target: Target) -> NDArray[np.float64]:
        rows = self.rows(label=label)
        if not len(rows):
            raise ValueError(f"class {label!r} has no rows in this store, {name_span(self._rows)}: there is no mean")
        return mean_over_rows(lambda numbers: self.values(path, numbers, target), rows, self.shape_of(path)[1:])

    def view(self, method: StoredMethod | str, target: Target = "true") -> RowView:
        """The picture of every row by one of the store's methods, or by its group, by row number and read on indexing."""
        return self._view(self._known(method).picture, target)

    def _known(self, method: StoredMethod | str, *, is_map: bool | None = None) -> StoredMethod:
        """The method, by itself or by its group. Raises ValueError for one that is unknown, not here, or of the other kind."""
        group = method if isinstance(method, str) else method.group
        found = next((each for each in METHODS if each.group == group), None)
        if found is None:
            raise ValueError(f"unknown method {group!r}; this store has {[each.group for each in self.methods]}")
        if is_map and not found.is_map:
            raise ValueError(f"{found.title} has no maps; use attributions(), or a method of {_groups_of_maps()}")
        self._check_has(found.picture)
        return found

    def _view(self, path: str, target: Target) -> RowView:
        name, dtype = path if target == "true" else f"{path} ({target})", np.dtype(self._by_path[path].dtype)
        return RowView(name, self._rows, self.shape_of(path), dtype, lambda rows: self.values(path, rows, target))

    def values(self, what: str, rows: RowSelection, target: Target = "true") -> NDArray:
        """What is known of some rows, (row, ...), in their order: a column of table(), or a per-row dataset by its path.

        Flags are bool by the name of a column, and NaN where the store does not have them.
        For "predicted" what belongs to an explanation is that of the predicted class.
        A column that the store is too old for, or has no maps for, is what the schema says of such stores, mostly NaN.
        Raises IndexError for rows that are not in the store, ValueError for what it does not have.
        """
        if target not in ("true", "predicted"):
            raise ValueError(f'expected the target "true" or "predicted", got {target!r}')
        numbers = np.atleast_1d(select_rows(rows, self._rows))
        if what in DERIVED:
            return DERIVED[what](self, numbers)
        if what not in STORED:
            self._check_has(what)
            if not self._by_path[what].is_per_row or self._by_path[what].is_ragged:
                raise ValueError(f"{self.path}: {what} has no value for each row; read all of it with column()")
            return self._stored(what, numbers, target)
        variable = STORED[what]
        if variable.path not in self._by_path:
            return np.full(len(numbers), variable.earlier, np.result_type(variable.dtype, np.float32))
        values = self._stored(variable.path, numbers, target)
        return values == 1 if variable.is_flag else values

    def _stored(self, path: str, rows: NDArray[np.int64], target: Target) -> NDArray:
        self._check_has(path)
        variable, predicted = self._by_path[path], _predicted(path)
        if target == "true" or predicted not in self._by_path:
            positions = rows - self._rows.start
            return self._columns[path][positions] if path in self._columns else self.gather(path, positions)
        numbers = self.column(self._by_path[predicted].scales[0])
        own = np.isin(rows, numbers)
        values = np.empty((len(rows), *self.shape_of(path)[1:]), dtype=variable.dtype)
        values[~own] = self.gather(path, rows[~own] - self._rows.start)
        values[own] = self.gather(predicted, np.searchsorted(numbers, rows[own]))
        return values

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


def _groups_of_maps() -> list[str]:
    return [method.group for method in METHODS if method.is_map]


def _predicted(path: str) -> str:
    """Where the same is of the misclassified rows, for the predicted class."""
    group, _, name = path.rpartition("/")
    return f"{group}/predicted/{name}"


def _names(store: StoreReader, column: str, rows: NDArray[np.int64]) -> NDArray[np.object_]:
    return np.array(store.class_names, dtype=object)[store.values(column, rows)]


def _confidences(store: StoreReader, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    probabilities, predictions = store.values("probability", rows), store.values("prediction", rows)
    return np.take_along_axis(probabilities, predictions[:, None], axis=1)[:, 0]


# The columns that follow from a row's classes.
DERIVED: dict[str, Callable[[StoreReader, NDArray[np.int64]], NDArray]] = {
    "label_name": lambda store, rows: _names(store, "label", rows),
    "prediction_name": lambda store, rows: _names(store, "prediction", rows),
    "correct": lambda store, rows: store.values("label", rows) == store.values("prediction", rows),
    "confidence": _confidences,
}
