"""Reading a sealed store by row number: what is known of every row, images, attributions and maps.

What is read is checked as it is read: see store_file.py.
Targets: "true" explains the label, "predicted" the prediction. The file holds the latter only where the two differ;
here both targets are served for all rows.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from storage.errors import StoreError
from storage.file.layout import read_texts
from storage.file.methods import GRAD_CAM, INTEGRATED_GRADIENTS, METHODS, StoredMethod
from storage.file.schema import STORED
from storage.read.class_names import CLUSTER, class_number
from storage.read.progress_line import Progress, reporting
from storage.read.row_means import mean_over_rows, values_of_rows
from storage.read.row_views import RowSelection, RowView, name_span, select_rows
from storage.read.store_file import StoreFile
from storage.read.upsampling import upsample

Target = Literal["true", "predicted"]


class StoreReader(StoreFile):
    """A sealed store, open for reading, by row number. Drawing, tables and exports take one."""

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
        head += "" if self.has_images else ", without its images"
        fed = " ".join(str(self.contract.get("summary", "")).split())
        return f"{head}>\nmodel is fed: {fed}" if fed else f"{head}>"

    # What is known of every row.

    @property
    def row_numbers(self) -> NDArray[np.int64]:
        """(row,): the row numbers of the store, ascending and consecutive; they need not begin at 0."""
        return np.arange(self._rows.start, self._rows.stop, dtype=np.int64)

    @property
    def contract(self) -> dict[str, Any]:
        """What the model was fed and how it is read, with the reasons and the checks; empty for a store before schema 4."""
        contract = self.attributes["contract"]
        return contract if isinstance(contract, dict) else {}

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
        cluster: str | int | None = None,
        min_relevance_gain: float | None = None,
        max_likeness: float | None = None,
    ) -> NDArray[np.int64]:
        """The row numbers, ascending int64, of which all that is given is true; empty if there are none.

        label, prediction: a class by name or number. correct: whether prediction is label.
        min_confidence: least probability of the predicted class.
        converged, max_gap: the certificate for the true class; max_gap bounds |gap|, in units of the score.
        cluster: a strategy by its name or number, of clusters(). min_relevance_gain: of the predicted class.
        max_likeness: of the reasons to those of the last model; rows without any are not chosen.
        Raises ValueError for an unknown class or cluster, listing the known ones.
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
        if cluster is not None:
            chosen &= self.column("clusters/of_row") == class_number(self.cluster_names, cluster, CLUSTER)
        if min_relevance_gain is not None:
            chosen &= self.values("relevance_gain", ...) >= min_relevance_gain
        if max_likeness is not None:
            chosen &= self.values("likeness", ...) <= max_likeness  # false for NaN
        return self.row_numbers[chosen]

    # Images and explanations, read on demand.

    @property
    def image(self) -> RowView:
        """(row, y, x, channel) uint8: the images, by row number. Raises ValueError for a store without them: has_images."""
        self._check_has("image")
        return self._view("image", "true")

    def images(self, rows: RowSelection) -> NDArray[np.uint8]:
        """(row, y, x, channel) of some rows, to be drawn: without any channel in a store that was handed over without images."""
        if self.has_images:
            return self.image[rows]
        return np.empty((len(np.atleast_1d(select_rows(rows, self._rows))), *self.image_shape[:2], 0), np.uint8)

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

    def attributions(
        self, rows: RowSelection, target: Target = "true", *, progress: Progress | bool = False
    ) -> NDArray[np.float32]:
        """(row, y, x, channel): attributions for the true or the predicted class, for any rows, as RowView takes them.

        progress: True writes on stderr how far it is, which takes long at an address; a function is called with "rows", rows
        done and rows in all, a block at a time.
        Raises IndexError for rows that are not in the store, StoreCorrupt if they are damaged.
        """
        return self._pictures(INTEGRATED_GRADIENTS, rows, target, progress)

    def maps(
        self,
        rows: RowSelection,
        target: Target = "true",
        method: StoredMethod | str = GRAD_CAM,
        *,
        progress: Progress | bool = False,
    ) -> NDArray[np.float32]:
        """(row, cam_y, cam_x): the maps of a method for the true or the predicted class, otherwise as attributions().

        method: one of `methods`, or its group, "grad_cam" by default.
        """
        return self._pictures(self._known(method, is_map=True), rows, target, progress)

    def upsampled_cam(
        self, rows: RowSelection, target: Target = "true", method: StoredMethod | str = GRAD_CAM
    ) -> NDArray[np.float32]:
        """(row, y, x): maps at the size of the image, bilinear with half-pixel centres, in the maps' own units.

        rows: as RowView takes them; for an int the axis row falls away. Never normalised: an empty map stays zero.
        """
        return upsample(self.maps(rows, target, method), *self.image_shape[:2])

    def mean_map(
        self,
        label: str | int | None = None,
        target: Target = "true",
        method: StoredMethod | str = GRAD_CAM,
        *,
        progress: Progress | bool = False,
    ) -> NDArray[np.float64]:
        """(cam_y, cam_x): the mean map of the rows whose label is this class, by name or number; of all for None.

        progress: as attributions() takes it. Raises ValueError for an unknown class, and for one that no row has.
        """
        return self._mean(self._known(method, is_map=True).picture, label, target, progress)

    def mean_attribution(
        self, label: str | int | None = None, target: Target = "true", *, progress: Progress | bool = False
    ) -> NDArray[np.float64]:
        """(y, x, channel): the mean attribution of these rows, signed, in units of the score; otherwise as mean_map()."""
        return self._mean(INTEGRATED_GRADIENTS.picture, label, target, progress)

    # The file.

    def _mean(
        self, path: str, label: str | int | None, target: Target, progress: Progress | bool
    ) -> NDArray[np.float64]:
        rows = self.rows(label=label)
        if not len(rows):
            raise ValueError(f"class {label!r} has no rows in this store, {name_span(self._rows)}: there is no mean")
        return mean_over_rows(
            lambda numbers: self.values(path, numbers, target), rows, self.shape_of(path)[1:], reporting(progress)
        )

    def _pictures(
        self, method: StoredMethod, rows: RowSelection, target: Target, progress: Progress | bool
    ) -> NDArray[np.float32]:
        view = self.view(method, target)
        numbers = select_rows(rows, self._rows)
        if not progress or numbers.ndim == 0:
            return view[numbers]
        return values_of_rows(view.__getitem__, numbers, view.shape[1:], view.dtype, reporting(progress))

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


def _groups_of_maps() -> list[str]:
    return [method.group for method in METHODS if method.is_map]


def _predicted(path: str) -> str:
    """Where the same is of the misclassified rows, for the predicted class."""
    group, _, name = path.rpartition("/")
    return f"{group}/predicted/{name}"


def _names(store: StoreReader, column: str, rows: NDArray[np.int64]) -> NDArray[np.object_]:
    return np.array(store.class_names, dtype=object)[store.values(column, rows)]


def _clusters(store: StoreReader, rows: NDArray[np.int64]) -> NDArray[np.object_]:
    """The name of each row's strategy, empty for none."""
    if not store.has_clusters:
        return np.full(len(rows), "", dtype=object)
    # -1, for none, is the last.
    return np.array([*store.cluster_names, ""], dtype=object)[store.values("clusters/of_row", rows)]


def _predictions_before(store: StoreReader, rows: NDArray[np.int64]) -> NDArray[np.object_]:
    """The name of the class that each row was called in the night before, empty where that is not known."""
    if not store.has_drift:
        return np.full(len(rows), "", dtype=object)
    return np.array([*store.class_names, ""], dtype=object)[store.values("drift/prediction_before", rows)]


def _likeness(store: StoreReader, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """How alike each row's reasons are to those of the night before; NaN where that is not known."""
    if not store.has_drift:
        return np.full(len(rows), np.nan, np.float32)
    known = store.values("drift/prediction_before", rows) >= 0
    return np.where(known, store.values("drift/likeness", rows), np.float32(np.nan))


def _confidences(store: StoreReader, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    probabilities, predictions = store.values("probability", rows), store.values("prediction", rows)
    return np.take_along_axis(probabilities, predictions[:, None], axis=1)[:, 0]


# The columns that follow from a row's classes.
DERIVED: dict[str, Callable[[StoreReader, NDArray[np.int64]], NDArray]] = {
    "label_name": lambda store, rows: _names(store, "label", rows),
    "prediction_name": lambda store, rows: _names(store, "prediction", rows),
    "correct": lambda store, rows: store.values("label", rows) == store.values("prediction", rows),
    "confidence": _confidences,
    "cluster": _clusters,
    "prediction_before": _predictions_before,
    "likeness": _likeness,
}
