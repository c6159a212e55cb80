"""Reading a sealed store by row number: what is known of every row, images, attributions and maps.

Opening checks that the file is a whole store of a known schema; the checksum of what is read is compared as it is read.
Targets: "true" explains the label, "predicted" the prediction. The file holds the latter only where the two differ;
here both targets are served for all rows.
"""

import json
import weakref
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from storage.errors import StoreCorrupt, StoreError, StoreFormatError
from storage.file.layout import read_attributes, read_texts
from storage.file.schema import BY_PATH, OLDEST_SCHEMA, ROOT_ATTRIBUTES, variables_of
from storage.read import checked
from storage.read.class_names import class_number
from storage.read.linked_parts import check_there, offsets_of, read_table
from storage.read.part_files import PartFiles
from storage.read.remote.address import RemoteFile
from storage.read.row_means import mean_over_rows
from storage.read.row_views import RowSelection, RowView, name_span
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

    Several threads may read one store at once. variables: the part of the schema that the file holds.
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
        self.variables = variables_of(schema, grad_cam=checked.has_grad_cam(file, path, schema))
        self._sizes = checked.check_datasets(file, path, self.variables)
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
            converged = self.values("integrated_gradients/converged", self.row_numbers, "true").mean()
            head += f", accuracy {self._correct.mean():.2%}, converged {converged:.2%}"
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
        return "cam_y" in self._sizes

    @property
    def contract(self) -> dict[str, Any]:
        """What the model was fed and how it is read, with the reasons and the checks; empty for a store before schema 4."""
        contract = self.attributes["contract"]
        return contract if isinstance(contract, dict) else {}

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
        return np.take_along_axis(self.probabilities, self.predictions[:, None], axis=1)[:, 0]

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
            chosen &= self._correct == correct
        if min_confidence is not None:
            chosen &= self.confidences >= min_confidence
        if converged is not None:
            chosen &= (self.column("integrated_gradients/converged") == 1) == converged
        if max_gap is not None:
            chosen &= np.abs(self.column("integrated_gradients/gap")) <= max_gap
        return self.row_numbers[chosen]

    # Images and explanations, read on demand.

    @property
    def image(self) -> RowView:
        """(row, y, x, channel) uint8: the images, by row number."""
        return self._view("image", "true")

    @property
    def integrated_gradients(self) -> RowView:
        """(row, y, x, channel) float32: attributions for the true class, by row number, in units of the score."""
        return self._view("integrated_gradients/attribution", "true")

    @property
    def grad_cam(self) -> RowView:
        """(row, cam_y, cam_x) float32: Grad-CAM maps for the true class, by row number, not normalised.

        Raises ValueError if the store has no Grad-CAM, as do maps, upsampled_cam and mean_map.
        """
        return self._view("grad_cam/map", "true")

    def attributions(self, rows: RowSelection, target: Target = "true") -> NDArray[np.float32]:
        """(row, y, x, channel): attributions for the true or the predicted class, for any rows, as RowView takes them.

        Raises IndexError for rows that are not in the store, StoreCorrupt if they are damaged.
        """
        return self._view("integrated_gradients/attribution", target)[rows]

    def maps(self, rows: RowSelection, target: Target = "true") -> NDArray[np.float32]:
        """(row, cam_y, cam_x): Grad-CAM maps for the true or the predicted class, otherwise as attributions()."""
        return self._view("grad_cam/map", target)[rows]

    def upsampled_cam(self, rows: RowSelection, target: Target = "true") -> NDArray[np.float32]:
        """(row, y, x): Grad-CAM maps at the size of the image, bilinear with half-pixel centres, in the maps' own units.

        rows: as RowView takes them; for an int the axis row falls away. Never normalised: an empty map stays zero.
        """
        return upsample(self.maps(rows, target), *self.shape_of("image")[1:3])

    def mean_map(self, label: str | int | None = None, target: Target = "true") -> NDArray[np.float64]:
        """(cam_y, cam_x): the mean Grad-CAM map of the rows whose label is this class, by name or number; of all for None.

        Raises ValueError for an unknown class, and for one that no row has.
        """
        return self._mean("grad_cam/map", label, target)

    def mean_attribution(self, label: str | int | None = None, target: Target = "true") -> NDArray[np.float64]:
        """(y, x, channel): the mean attribution of these rows, signed, in units of the score; otherwise as mean_map()."""
        return self._mean("integrated_gradients/attribution", label, target)

    # The file.

    def _mean(self, path: str, label: str | int | None, target: Target) -> NDArray[np.float64]:
        rows = self.rows(label=label)
        if not len(rows):
            raise ValueError(f"class {label!r} has no rows in this store, {name_span(self._rows)}: there is no mean")
        return mean_over_rows(lambda numbers: self.values(path, numbers, target), rows, self.shape_of(path)[1:])

    @cached_property
    def _correct(self) -> NDArray[np.bool_]:
        return self.labels == self.predictions

    def _view(self, path: str, target: Target) -> RowView:
        name, dtype = path if target == "true" else f"{path} ({target})", np.dtype(BY_PATH[path].dtype)
        return RowView(name, self._rows, self.shape_of(path), dtype, lambda rows: self.values(path, rows, target))

    def values(self, path: str, rows: NDArray[np.int64], target: Target = "true") -> NDArray:
        """Rows of a variable by number, in any order and repeated.

        For "predicted" they come from its own group, where the prediction is not the label.
        """
        if target not in ("true", "predicted"):
            raise ValueError(f'expected the target "true" or "predicted", got {target!r}')
        if target == "true":
            return self.gather(path, rows - self._rows.start)
        group, _, name = path.partition("/")
        numbers = self.column(f"{group}/predicted/row")
        own = np.isin(rows, numbers)
        values = np.empty((len(rows), *self.shape_of(path)[1:]), dtype=BY_PATH[path].dtype)
        values[~own] = self.gather(path, rows[~own] - self._rows.start)
        values[own] = self.gather(f"{group}/predicted/{name}", np.searchsorted(numbers, rows[own]))
        return values

    def shape_of(self, path: str) -> tuple[int, ...]:
        """The shape of a variable of the schema, as it is in the file. Raises ValueError for Grad-CAM's where it has none."""
        self._check_has(path)
        return tuple(self._sizes[scale] for scale in BY_PATH[path].scales)

    def gather(self, path: str, positions: NDArray[np.int64]) -> NDArray:
        """The given positions of a variable's first axis, in any order and repeated; positions are not row numbers."""
        self._check_has(path)
        scale = BY_PATH[path].scales[0]
        numbers: Sequence[int] | NDArray[np.int64] | None = None
        if scale != path:
            numbers = self._rows if scale == "row" else self.column(scale)
        try:
            if self._parts and BY_PATH[path].holds_pictures and numbers is not None:
                self._check_open()
                if scale not in self._offsets:
                    self._offsets[scale] = offsets_of(self._parts.parts, numbers)
                return self._parts.gather(BY_PATH[path], positions, numbers, self._offsets[scale])
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
        if BY_PATH[path].is_of_grad_cam and not self.has_grad_cam:
            raise ValueError(
                f"{self.path}: this night has no Grad-CAM, its model had no map or grad_cam.layer was none; "
                "read the attributions, and ask store.has_grad_cam first"
            )

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
