"""The page `drift`: what changed since the last night on the same images, whose model was another one."""

from functools import partial
from pathlib import Path

import numpy as np

from storage import AttributionStore, Catalog, StoreError, open_store
from storage.draw.change_figures import shares_figure, then_and_now_figure
from tasks.pages.page import Page, escape
from tasks.worth.drift.night_drift import NightDrift

__all__ = ["drift_page"]

MOST_CLASSES = 4


def drift_page(store: AttributionStore, drift: NightDrift, root: Path) -> Page:
    """Changed predictions, classes beside the floor with their maps then and now, and rows whose reasons moved most."""
    names = store.class_names
    page = Page("drift", "Look for a class whose reasons changed more than its floor.")
    page.heading(f"Since night {drift.compared_with}, of another model")
    alike = (
        ""
        if drift.likeness is None
        else f" The reasons of the others are {drift.likeness:.2f} alike (cosine, 8x8 cells)."
    )
    page.text(f"{drift.n_changed:,} of {drift.n_rows:,} rows changed their prediction.{alike}")
    page.heading("Predictions that changed", level=2)
    page.table([{"from": names[was], "to": names[now], "rows": n} for was, now, n in drift.flows])
    page.heading("Reasons by class, where predictions did not change", level=2)
    page.text(escape(f"For the classes: {drift.floor.about}."))
    _add_classes(page, store, drift)
    page.heading("Rows whose reasons moved most", level=2)
    _add_rows(page, store, drift, root)
    page.text(
        "Cosines of single rows are low between any two trainings, and no alarm. Load them: `store.table()` has "
        "`prediction_before` and `likeness`, and `store.rows(max_likeness=0.2)` chooses by it. "
        "`nightlens compare A B --to drift.html` draws any two stores of the same images."
    )
    return page


def _add_classes(page: Page, store: AttributionStore, drift: NightDrift) -> None:
    ratios, names = drift.ratios, store.class_names
    order = sorted(drift.changes, key=lambda number: (-ratios.get(number, 0.0), -drift.changes[number].share))
    page.table(
        [
            {
                "class": names[number],
                "rows": drift.changes[number].n_rows,
                "share moved": drift.changes[number].share,
                "times the floor": f"{ratios[number]:.2f}" if number in ratios else "no floor",
                "in cell (row, column)": "{}, {}".format(*drift.changes[number].cell),
                "energy distance": drift.changes[number].energy,
            }
            for number in order
        ]
    )
    page.table([{"class": names[number], "not compared because": note} for number, note in drift.notes.items()])
    before, now = store.column("drift/mean_share_before"), store.column("drift/mean_share")
    for number in order[:MOST_CLASSES]:
        page.figure(
            partial(shares_figure, before[number], now[number]), f"Mean shares of {names[number]}, then and now"
        )


def _add_rows(page: Page, store: AttributionStore, drift: NightDrift, root: Path) -> None:
    """Drawn at once: the other store is closed when the page is published."""
    rows = np.array(drift.moved_most, np.int64)
    if not len(rows):
        page.text("No prediction stayed the same.")
        return
    page.text(f"Rows {', '.join(map(str, rows.tolist()))}: the prediction stayed, and the reasons are least alike.")
    try:
        with open_store(Catalog(root).night_dir(drift.compared_with)) as before:
            page.figure(
                partial(then_and_now_figure, before, store, rows), "Image, reasons then, reasons now", thumbnail=True
            )
    except StoreError as error:
        page.text(escape(f"They cannot be drawn then and now: {error}."))
