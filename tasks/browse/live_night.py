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

from storage import AttributionStore
from storage.nights.training_record import read_history
from tasks.night.class_means import class_means
from tasks.night.evaluation import measure
from tasks.report.mean_pictures import MeanPictures, draw_mean
from tasks.report.page_template import render_page
from tasks.report.picture_strips import MOST_PIXELS, RowPictures, draw_rows, shown_size
from tasks.report.report_page import AT_A_GLANCE, at_a_glance, ranked_rows, report_context
from tasks.report.row_columns import page_data, page_entries
from tasks.report.sources import read_night

__all__ = ["MOST_ROWS", "LiveNight"]

MOST_ROWS = 100  # of one answer
LARGEST = 1024  # pixels of a picture's longer side
RANKED = 40  # ranked rows a class, among which there is one of each class, or it has none


class LiveNight:
    """A sealed night, open. root: where its model's record is, None if that is not known."""

    def __init__(self, store: AttributionStore, root: Path | None) -> None:
        self.store, self._root = store, root
        self.id = str(store.attributes["run_id"])
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
        folder = Path(str(store.path)).parent
        night = read_night(folder) if folder.is_dir() else {}
        history = read_history(store, self._root)
        context = report_context(store, night, evaluation, history)
        size = shown_size(store.image_shape)
        live = {"night": self.id, "home": home, "size": MOST_PIXELS, "reduced": context["reduced"]}
        context |= {
            "live": live,
            "means": [],
            "glance": at_a_glance(store, self._glance()),
            "n_pictures": len(store),
            "reasons": [],
            "data": page_data(store, []) | {"live": live},
        }
        return render_page("report.html", context, size=size)

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
        drawn = draw_rows(store, [(int(row), "") for row in asked], np.inf, most_pixels)
        entries = page_entries(store, drawn)
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

    def means(self) -> str:
        """The means of each class as the page shows them, as HTML; computed from all rows, once."""
        with self._averaging:
            if self._means is None:
                self._means = [draw_mean(mean, self.store.class_names[mean.label]) for mean in class_means(self.store)]
        return render_page("means.html", {"means": self._means, "methods": self.store.methods})
