"""Reading a sealed store: `with open_store(path) as store`, then rows by what is true of them, and their attributions.

    with open_store("nightlens-data/latest") as store:
        rows = store.rows(label="cat", correct=False, converged=True)
        values = store.attributions(rows, target="predicted")

Opening checks that the file is a whole store of a known schema; the checksum of what is read is compared as it is read.
Targets: "true" explains the label, "predicted" the prediction. The file holds the latter only where the two differ;
here both targets are served for all rows.
"""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from storage import reading
from storage.catalog import resolve_store
from storage.errors import StoreCorrupt, StoreError, StoreFormatError
from storage.layout import read_attributes, read_texts
from storage.schema import OLDEST_SCHEMA, ROOT_ATTRIBUTES, variables_of
from storage.views import RowSelection, RowView, name_span, select_rows

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Target = Literal["true", "predicted"]
CERTIFICATE = ("gap", "quadrature_error", "score", "score_baseline", "n_gradients", "converged")


def open_store(path: Path | str) -> "AttributionStore":
    """Open the store at `path`: an attributions.h5, a night's folder, the symlink `latest`, or the root of all nights.

    Raises StoreNotFound, StoreFormatError (not HDF5, not ours), StoreIncomplete (not sealed), StoreVersionError or
    StoreCorrupt (truncated, damaged); each says what to do.
    """
    resolved = resolve_store(path)
    file = reading.opened(resolved)
    try:
        return AttributionStore(file, resolved)
    except BaseException:
        file.close()
        raise


class AttributionStore:
    """A sealed store, open for reading; close it or use it as a context manager. Made by open_store."""

    def __init__(self, file: h5py.File, path: Path) -> None:
        self.path = path
        self._file = file
        with reading.named_damage(path, "the root attributes"):
            self.attributes = read_attributes(file)
        if "part_rows" in self.attributes:
            raise StoreFormatError(f"{path}: expected a sealed store, got one of its parts; open attributions.h5")
        required = [attribute.name for attribute in ROOT_ATTRIBUTES]
        schema = reading.check_header(path, self.attributes, required, "a sealed store", oldest=OLDEST_SCHEMA)
        sizes = reading.check_datasets(file, path, variables_of(schema))
        with reading.named_damage(path, "the root attributes"):
            for attribute in ROOT_ATTRIBUTES:
                if attribute.since > schema:
                    self.attributes[attribute.name] = attribute.earlier
                elif attribute.kind == "json":
                    self.attributes[attribute.name] = json.loads(str(self.attributes[attribute.name]))
        self._rows = self._consecutive_rows(sizes["row"])

    def close(self) -> None:
        """Close the file; reading afterwards is a ValueError."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        about = self.attributes
        head = f"<AttributionStore {about['dataset_name']}/{about['dataset_split']}, {name_span(self._rows)}"
        head += f", model {about['model_name']}, night {about['run_id']}"
        if not self._file:
            return f"{head}, closed>"
        try:
            converged = self._read("integrated_gradients/converged", self.row_numbers, "true").mean()
            return f"{head}, accuracy {self._correct.mean():.2%}, converged {converged:.2%}>"
        except StoreError:
            return f"{head}, damaged>"

    # What is known of every row.

    @property
    def row_numbers(self) -> NDArray[np.int64]:
        """(row,): the row numbers of the store, ascending and consecutive; they need not begin at 0."""
        return np.array(self._rows, dtype=np.int64)

    @cached_property
    def class_names(self) -> list[str]:
        """The name of each class, by class number."""
        return read_texts(self._all("class_name"))

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """(row,): the true class of each row, in the order of row_numbers. Read-only, as are the next two."""
        return self._all("label")

    @cached_property
    def predictions(self) -> NDArray[np.int64]:
        """(row,): the predicted class of each row, in the order of row_numbers."""
        return self._all("prediction")

    @cached_property
    def probabilities(self) -> NDArray[np.float32]:
        """(row, class): the model's softmax output, in the order of row_numbers."""
        return self._all("probability")

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
            chosen &= self.labels == self._class_number(label)
        if prediction is not None:
            chosen &= self.predictions == self._class_number(prediction)
        if correct is not None:
            chosen &= self._correct == correct
        if min_confidence is not None:
            chosen &= self.confidences >= min_confidence
        if converged is not None:
            chosen &= (self._all("integrated_gradients/converged") == 1) == converged
        if max_gap is not None:
            chosen &= np.abs(self._all("integrated_gradients/gap")) <= max_gap
        return self.row_numbers[chosen]

    def certificate(self, target: Target = "true", rows: RowSelection = ...) -> "pd.DataFrame":
        """How far each row's attribution can be trusted: a table by row number with the columns of CERTIFICATE.

        gap, score and score_baseline in units of the score; quadrature_error relative; converged as bool.
        rows: as RowView takes them, by default all.
        """
        import pandas as pd

        numbers = np.atleast_1d(select_rows(rows, self._rows))
        columns = {n: self._read(f"integrated_gradients/{n}", numbers, target) for n in CERTIFICATE}
        columns["converged"] = columns["converged"] == 1
        return pd.DataFrame(columns, index=pd.Index(numbers, name="row"))

    def table(self) -> "pd.DataFrame":
        """A pandas table of a line per image, by row number.

        label, prediction (class numbers), label_name, prediction_name, correct, confidence (probability of the
        prediction), the certificate for the true class, and cam_max of its Grad-CAM map.
        """
        names = np.array(self.class_names, dtype=object)
        table = self.certificate()
        first = {
            "label": self.labels,
            "label_name": names[self.labels],
            "prediction": self.predictions,
            "prediction_name": names[self.predictions],
            "correct": self._correct,
            "confidence": self.confidences,
        }
        for position, (name, column) in enumerate(first.items()):
            table.insert(position, name, column)
        return table.assign(cam_max=self._all("grad_cam/cam_max"))

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
        """(row, cam_y, cam_x) float32: Grad-CAM maps for the true class, by row number, not normalised."""
        return self._view("grad_cam/map", "true")

    def attributions(self, rows: RowSelection, target: Target = "true") -> NDArray[np.float32]:
        """(row, y, x, channel): attributions for the true or the predicted class, for any rows, as RowView takes them.

        Raises IndexError for rows that are not in the store, StoreCorrupt if they are damaged.
        """
        return self._view("integrated_gradients/attribution", target)[rows]

    def maps(self, rows: RowSelection, target: Target = "true") -> NDArray[np.float32]:
        """(row, cam_y, cam_x): Grad-CAM maps for the true or the predicted class, otherwise as attributions()."""
        return self._view("grad_cam/map", target)[rows]

    def figure(self, row: int, target: Target = "true") -> "Figure":
        """The seed's figures of a row, as one matplotlib figure: image, Integrated Gradients, Grad-CAM and overlay.

        Raises IndexError if the store has no such row.
        """
        from storage.pictures import draw_row

        return draw_row(self, row, target)

    # The file.

    @cached_property
    def _correct(self) -> NDArray[np.bool_]:
        return self.labels == self.predictions

    def _view(self, path: str, target: Target) -> RowView:
        dataset = self._dataset(path)
        name = path if target == "true" else f"{path} ({target})"
        return RowView(name, self._rows, dataset.shape, dataset.dtype, lambda rows: self._read(path, rows, target))

    def _read(self, path: str, rows: NDArray[np.int64], target: Target) -> NDArray:
        """Rows of a variable, by number; for "predicted" from its own group where the prediction is not the label."""
        if target not in ("true", "predicted"):
            raise ValueError(f'expected the target "true" or "predicted", got {target!r}')
        dataset = self._dataset(path)
        if target == "true":
            return reading.gather_rows(dataset, rows - self._rows.start, self._rows)
        group, _, name = path.partition("/")
        numbers = self._all(f"{group}/predicted/row")
        own = np.isin(rows, numbers)
        values = np.empty((len(rows), *dataset.shape[1:]), dtype=dataset.dtype)
        values[~own] = reading.gather_rows(dataset, rows[~own] - self._rows.start, self._rows)
        predicted = self._dataset(f"{group}/predicted/{name}")
        values[own] = reading.gather_rows(predicted, np.searchsorted(numbers, rows[own]), numbers)
        return values

    def _all(self, path: str) -> NDArray:
        dataset = self._dataset(path)
        numbers: Sequence[int] = range(len(dataset))
        values = reading.read_rows(dataset, 0, len(dataset), numbers if path.endswith("predicted/row") else self._rows)
        values.setflags(write=False)
        return values

    def _dataset(self, path: str) -> h5py.Dataset:
        if not self._file:
            raise ValueError(f"{self.path}: the store is closed; open it again, or read inside the `with` block")
        with reading.named_damage(self.path, path):
            return self._file[path]

    def _consecutive_rows(self, n_rows: int) -> range:
        numbers = reading.read_rows(self._dataset("row"), 0, n_rows)
        rows = range(int(numbers[0]), int(numbers[0]) + n_rows)
        if not np.array_equal(numbers, rows):
            raise StoreCorrupt(f"{self.path}: expected consecutive row numbers from {rows.start}; {reading.RESTORE}")
        return rows

    def _class_number(self, name_or_number: str | int) -> int:
        names = self.class_names
        if isinstance(name_or_number, str):
            numbers = [number for number, name in enumerate(names) if name == name_or_number]
            if len(numbers) > 1:
                raise ValueError(f"{name_or_number!r} is the name of the classes {numbers}; give the number")
        else:
            numbers = [number for number in range(len(names)) if number == name_or_number]
        if not numbers:
            raise ValueError(f"unknown class {name_or_number!r}; the classes are {dict(enumerate(names))}")
        return numbers[0]
