"""The pages of single rows: chosen ones by each method, and the mistakes by both methods and for both classes."""

from typing import Any, cast

from storage import AttributionStore
from storage.figures import (
    attribution_strip,
    attribution_tile,
    grad_cam_strip,
    image_tile,
    overlay_tile,
)
from tasks.artifacts import Page
from tasks.figures import text_figure
from tasks.pages.reading import HOW_TO_READ

__all__ = ["grad_cam_page", "integrated_gradients_page", "misclassified_page"]


def integrated_gradients_page(store: AttributionStore, rows: dict[int, str]) -> Page:
    """The chosen rows and why they were chosen: image and signed attribution, with the certificate."""
    page = Page(
        "gallery-integrated-gradients",
        "Image and signed Integrated Gradients. Look for green where a person would look too.",
    )
    cells = []
    for row, record in _records(store, list(rows)):
        trust = f"gap {record['gap']:+.3f}, error {record['quadrature_error']:.3f}"
        trust += "" if record["converged"] else ", not converged"
        strip = attribution_strip(store.image[row], store.attributions([row])[0])
        cells.append(([row, rows[row], _told(record), f"{record['confidence']:.1%}", trust], strip, _name(row, record)))
    return _with_rows(page, cells)


def grad_cam_page(store: AttributionStore, rows: dict[int, str]) -> Page:
    """The chosen rows and why they were chosen: image, Grad-CAM and both overlaid."""
    page = Page("gallery-grad-cam", "Image, Grad-CAM and overlay. Look for heat on the thing, not beside it.")
    cells = []
    for row, record in _records(store, list(rows)):
        trust = f"maximum {record['cam_max']:.2g}" if record["cam_max"] > 0 else "empty map"
        strip = grad_cam_strip(store.image[row], store.maps([row])[0])
        cells.append(([row, rows[row], _told(record), f"{record['confidence']:.1%}", trust], strip, _name(row, record)))
    return _with_rows(page, cells)


def _with_rows(page: Page, cells: list) -> Page:
    if cells:
        page.gallery(["row", "why", "class", "confidence", "trust"], cells)
    else:
        page.text("No row was asked for: see the settings gallery.spotlight and gallery.per_class.")
        page.figure(text_figure("no row was asked for"), "No row was asked for", thumbnail=True)
    page.text(HOW_TO_READ)
    return page


def misclassified_page(store: AttributionStore, limit: int) -> Page:
    """The most confident mistakes, each explained for the class it has and for the class it was taken for."""
    page = Page(
        "gallery-misclassified",
        "Mistakes, most confident first. Look for what the model saw of the wrong class, and whether the label is right.",
    )
    table = store.table()
    wrong = table[~table["correct"]].sort_values("confidence", ascending=False)
    page.heading(f"{len(wrong):,} of {len(table):,} rows are misclassified")
    cells = []
    for row, record in _records(store, wrong.index[:limit].tolist()):
        image = store.image[row]
        pictures = [image_tile(image)]
        for target in ("true", "predicted"):
            pictures.append(attribution_tile(store.attributions([row], target)[0]))
            pictures.append(overlay_tile(image, store.maps([row], target)[0]))
        other = store.certificate("predicted", rows=[row]).iloc[0]
        what = [
            row,
            f"{record['label_name']} ({record['score']:.3g})",
            f"{record['prediction_name']} ({other['score']:.3g})",
            f"{record['confidence']:.1%}",
        ]
        cells.append((what, pictures, _name(row, record)))
    if cells:
        page.gallery(
            ["row", "true class (score)", "taken for (score)", "confidence"],
            cells,
            ("image", "IG, true", "Grad-CAM, true", "IG, taken for", "Grad-CAM, taken for"),
        )
        left = len(wrong) - len(cells)
        if left:
            page.text(f"{left:,} more mistakes are in the store: `store.rows(correct=False)`.")
    else:
        why = "no row is misclassified" if wrong.empty else "gallery.mistakes is 0"
        page.figure(text_figure(why), why, thumbnail=True)
    page.text(HOW_TO_READ)
    return page


def _records(store: AttributionStore, rows: list[int]) -> list[tuple[int, dict[str, Any]]]:
    records = cast(list[dict[str, Any]], store.table(rows).to_dict("records"))
    return list(zip(rows, records, strict=True))


def _told(record: dict[str, Any]) -> str:
    label, prediction = record["label_name"], record["prediction_name"]
    return label if record["correct"] else f"{label}, taken for {prediction}"


def _name(row: int, record: dict[str, Any]) -> str:
    return f"row {row}, {_told(record)}"
