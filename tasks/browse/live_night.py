"""One night to look at: its report as a page whose pictures are drawn when they are looked at.

The page is made once, of the numbers alone; what needs the pictures of all rows, the means of classes, is computed when somebody
comes to it. Several threads may ask at a time.
"""

import itertools
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from storage import AttributionStore, StoreCorrupt, StoreError
from storage.nights.training_record import read_history
from tasks.browse.saved_rows import PNG_ROWS
from tasks.night.class_means import class_means
from tasks.night.evaluation import measure
from tasks.report.mean_pictures import MeanPictures, draw_mean
from tasks.report.page_template import render_page
from tasks.report.picture_strips import MOST_PIXELS, RowPictures, draw_rows, shown_size
from tasks.report.report_page import AT_A_GLANCE, at_a_glance, ranked_rows, report_context
from tasks.report.row_columns import page_data, page_entries

__all__ = ["MOST_ROWS", "LiveNight"]

MOST_ROWS = 100  # of one answer
LARGEST = 1024  # pixels of a picture's longer side
RANKED = 40  # ranked rows a class, among which there is one of each class, or it has none


class LiveNight:
    """A sealed night, open. id: what it is asked for by. root: where its model's record is, None if that is not known."""

    def __init__(self, store: AttributionStore, night_id: str, root: Path | None) -> None:
        self.store, self.id, self._root = store, night_id, root
        self._making, self._averaging = threading.Lock(), threading.Lock()
        self._pages: dict[bool, str] = {}
        self._means: list[MeanPictures] | None = None

    def page(self, *, home: bool) -> str:
        """The night's page, as HTML. home: whether there is a list of nights to go back to."""
        with self._making:
            if home not in self._pages:
                self._pages[home] = self._make_page(home)
            return self._pages[home]

    def _make_page(self, home: bool) -> str:
        store = self.store
        evaluation = measure(store.probabilities, store.labels, tuple(store.class_names), seed=0)
        context = report_context(store, self._record(), evaluation, read_history(store, self._root))
        size = shown_size(store.image_shape)
        live = {
            "night": self.id,
            "home": home,
            "size": MOST_PIXELS,
            "reduced": context["reduced"],
            "png_rows": PNG_ROWS,
        }
        context |= {
            "live": live,
            "means": [],
            "glance": at_a_glance(store, self._glance()),
            "n_pictures": len(store),
            "reasons": [],
            "data": page_data(store, [], places=("report", "table")) | {"live": live},
        }
        return render_page("report.html", context, size=size)

    def _record(self) -> dict[str, Any]:
        """The night's record, beside the store or at its address; what is wrong with it is the night's warning."""
        try:
            return self.store.night()
        except StoreError as error:
            return {"verdict": f"sealed, with a record that cannot be read: {error}"}

    def _glance(self) -> list[RowPictures]:
        """The pictures of the first ranked row of each of the first classes."""
        n_classes = len(np.unique(self.store.labels))
        first: dict[int, tuple[int, str]] = {}
        for row, why in itertools.islice(ranked_rows(self.store), RANKED * n_classes):
            first.setdefault(int(self.store.values("label", row)[0]), (row, why))
            if len(first) == n_classes:
                break
        return draw_rows(self.store, [entry for _, entry in sorted(first.items())][:AT_A_GLANCE], np.inf)

    def rows(self, rows: Sequence[int], most_pixels: int) -> dict[str, Any]:
        """The pictures of some rows, and what there is to say of each, as the page's script takes them.

        Raises IndexError for a row that is not in the night, StoreError for what cannot be read.
        """
        store, asked = self.store, np.array(sorted(set(rows)), dtype=np.int64)
        entries = self._drawn(asked.tolist(), most_pixels)
        labels, predictions, confidences = (
            store.values(name, asked).tolist() for name in ("label_name", "prediction_name", "confidence")
        )
        for entry, label, prediction, confidence in zip(entries, labels, predictions, confidences, strict=True):
            entry["told"] = (
                f"{label}, taken for {prediction}" if label != prediction else f"{label}, rightly recognised"
            )
            entry["told"] += f" ({confidence:.1%})"
            entry["predicted_name"] = prediction
        methods = [{"name": m.group, "title": m.title, "is_map": m.is_map} for m in store.methods]
        return {"rows": entries, "methods": methods, "title": f"{self.id}, model {store.attributes['model_name']}"}

    def _drawn(self, rows: list[int], most_pixels: int) -> list[dict[str, Any]]:
        """The entries of the rows; where some cannot be read, those say why in `problem`, and the others are there."""
        try:
            return page_entries(self.store, draw_rows(self.store, [(row, "") for row in rows], np.inf, most_pixels))
        except StoreCorrupt as error:
            if len(rows) == 1:
                return [{"row": rows[0], "problem": str(error)}]
        half = len(rows) // 2
        return self._drawn(rows[:half], most_pixels) + self._drawn(rows[half:], most_pixels)

    def means(self) -> str:
        """The means of each class as the page shows them, as HTML; computed from all rows, once."""
        with self._averaging:
            if self._means is None:
                self._means = [draw_mean(mean, self.store.class_names[mean.label]) for mean in class_means(self.store)]
        return render_page("means.html", {"means": self._means, "methods": self.store.methods})
