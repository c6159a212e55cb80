"""Which rows of a night are drawn, and their summary. Needs neither TensorFlow nor Prefect."""

from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.figure import Figure

from storage import AttributionStore
from storage.draw.figures import summary_figure

if TYPE_CHECKING:
    from tasks.config import GalleryConfig

__all__ = ["choose_rows", "summary"]

SUMMARY_ROWS = 10


def choose_rows(table: pd.DataFrame, gallery: "GalleryConfig") -> dict[int, str]:
    """The rows to draw and why, in order: the spotlight, then of each class the most confident right, the most confident
    wrong and the least converged ones. table: as of AttributionStore.table()."""
    chosen = {row: "spotlight" for row in gallery.spotlight if row in table.index}
    for _, rows in table.groupby("label"):
        right = rows[rows["correct"]].sort_values("confidence", ascending=False)
        wrong = rows[~rows["correct"]].sort_values("confidence", ascending=False)
        open_ones = rows.sort_values(["converged", "quadrature_error"], ascending=[True, False])
        reasons = ("most confident right", right), ("most confident wrong", wrong), ("least converged", open_ones)
        for why, ranked in reasons:
            for row in ranked.index[: gallery.per_class]:
                chosen.setdefault(int(row), why)
    return chosen


def summary(store: AttributionStore, rows: dict[int, str], columns: int = SUMMARY_ROWS) -> Figure:
    """The first of the chosen rows of each class, and then others, up to ten; the store's first rows if none is chosen.

    columns: at most in a line.
    """
    rows = rows or dict.fromkeys(store.row_numbers[:SUMMARY_ROWS].tolist(), "first")
    labels = dict(zip(rows, store.values("label", list(rows)).tolist(), strict=True))
    first_of_class = {labels[row]: row for row in reversed(rows)}
    chosen = sorted(first_of_class.values(), key=lambda row: labels[row])[:SUMMARY_ROWS]
    chosen += [row for row in rows if row not in chosen][: SUMMARY_ROWS - len(chosen)]
    titles = [store.class_names[labels[row]] for row in chosen]
    explained = [(method, store.view(method)[chosen]) for method in store.methods]
    return summary_figure(store.image[chosen], explained, titles, columns=columns)
