"""The pages of single rows: chosen ones by each method, and the mistakes by both methods and for both classes."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, cast

from storage import AttributionStore
from storage.draw.figures import short_name
from storage.draw.row_pictures import ExplainedRow, explained_rows
from tasks.pages.how_to_read import how_to_read
from tasks.pages.page import Page
from tasks.pages.page_figures import text_figure
from tasks.pages.sheets import Tile, attribution_tile, heat_tile, image_tile, overlay_tile, rows_sheet

__all__ = ["grad_cam_page", "integrated_gradients_page", "misclassified_page"]

SHEET_ROWS, MOST_ROWS = 10, 80
CAPTION_CHARACTERS = 16

Record = dict[str, Any]
Captioned = tuple[str, list[Tile]]


def integrated_gradients_page(store: AttributionStore, rows: dict[int, str]) -> Page:
    """The chosen rows and why they were chosen: image and signed attribution, with the certificate."""
    page = Page(
        "gallery-integrated-gradients",
        "Look for green where a person would look too: image and signed Integrated Gradients.",
    )
    page.heading(f"Integrated Gradients of {len(rows):,} chosen rows")
    drawn = [
        (
            _caption(shown.row, record, *_certificate(record)),
            [image_tile(shown.image), attribution_tile(shown.attribution)],
        )
        for record, shown in _explained(store, list(rows)[:MOST_ROWS])
    ]
    _draw(page, drawn, ("image", "attribution"), across=2)
    _tell(page, store, rows, lambda record: ", ".join(_certificate(record)))
    return page


def grad_cam_page(store: AttributionStore, rows: dict[int, str]) -> Page:
    """The chosen rows and why they were chosen: image, Grad-CAM and both overlaid. Of a store that has Grad-CAM."""
    page = Page("gallery-grad-cam", "Look for heat on the thing, not beside it: image, Grad-CAM and overlay.")
    page.heading(f"Grad-CAM of {len(rows):,} chosen rows")
    drawn = [
        (
            _caption(shown.row, record, _peak(record)),
            [
                image_tile(shown.image),
                heat_tile(shown.image, grad_cam),
                overlay_tile(shown.image, grad_cam),
            ],
        )
        for record, shown in _explained(store, list(rows)[:MOST_ROWS])
        if (grad_cam := shown.grad_cam) is not None
    ]
    _draw(page, drawn, ("image", "Grad-CAM", "overlay"), across=2, caption=1.9)
    _tell(page, store, rows, _peak)
    return page


def misclassified_page(store: AttributionStore, limit: int) -> Page:
    """The most confident mistakes, each explained for the class it has and for the class it was taken for."""
    page = Page(
        "gallery-misclassified",
        "Look for what the model saw of the wrong class, and whether the label is right: mistakes, most confident first.",
    )
    table = store.table()
    wrong = table[~table["correct"]].sort_values("confidence", ascending=False)
    page.heading(f"{len(wrong):,} of {len(table):,} rows are misclassified")
    records = _records(store, wrong.index[:limit].tolist())
    numbers = [row for row, _ in records]
    believed = store.certificate("predicted", rows=numbers)["score"].tolist() if records else []
    drawn = [
        (
            _caption(true.row, record),
            [image_tile(true.image), *_tiles(true), *_tiles(predicted)],
        )
        for (record, true), predicted in zip(
            _explained(store, numbers), explained_rows(store, numbers, "predicted"), strict=True
        )
    ]
    methods = ("attribution", "Grad-CAM") if store.has_grad_cam else ("attribution",)
    headings = ("image", *(f"{method}\n{which}" for which in ("true class", "taken for") for method in methods))
    none = "no row is misclassified" if wrong.empty else "gallery.mistakes is 0"
    _draw(page, drawn, headings, none=none)
    page.table(
        [
            {
                "row": row,
                "true class": record["label_name"],
                "score, true class": f"{record['score']:.3g}",
                "taken for": record["prediction_name"],
                "score, taken for": f"{score:.3g}",
                "confidence": f"{record['confidence']:.1%}",
            }
            for (row, record), score in zip(records, believed, strict=True)
        ]
    )
    if len(wrong) > len(records):
        page.text(f"{len(wrong) - len(records):,} more are in the store: `store.rows(correct=False)`.")
    page.text(how_to_read(grad_cam=store.has_grad_cam))
    return page


def _tiles(shown: ExplainedRow) -> list[Tile]:
    """The attribution, and the overlay where there is Grad-CAM."""
    overlays = [] if shown.grad_cam is None else [overlay_tile(shown.image, shown.grad_cam)]
    return [attribution_tile(shown.attribution), *overlays]


def _draw(
    page: Page,
    drawn: Sequence[Captioned],
    headings: Sequence[str],
    *,
    across: int = 1,
    caption: float = 1.5,
    none: str = "no row was chosen",
) -> None:
    for start in range(0, len(drawn), SHEET_ROWS):
        sheet = drawn[start : start + SHEET_ROWS]
        told = "; ".join(" ".join(caption.split()) for caption, _ in sheet)
        draw = partial(rows_sheet, sheet, headings, across=across, caption=caption)
        page.figure(draw, told, thumbnail=True)
    if not drawn:
        page.figure(partial(text_figure, none), none, thumbnail=True)


def _tell(page: Page, store: AttributionStore, rows: dict[int, str], trust: Any) -> None:
    """The same rows in words, and what is not drawn."""
    page.table(
        [
            {
                "row": row,
                "why": rows[row],
                "class": _told(record),
                "confidence": f"{record['confidence']:.1%}",
                "trust": trust(record),
            }
            for row, record in _records(store, list(rows))
        ]
    )
    if len(rows) > MOST_ROWS:
        page.text(f"The first {MOST_ROWS} are drawn; all are in the night's folder `gallery`.")
    page.text(how_to_read(grad_cam=store.has_grad_cam))


def _records(store: AttributionStore, rows: list[int]) -> list[tuple[int, Record]]:
    records = cast(list[Record], store.table(rows).to_dict("records")) if rows else []
    return list(zip(rows, records, strict=True))


def _explained(store: AttributionStore, rows: list[int]) -> Iterator[tuple[Record, ExplainedRow]]:
    for (_, record), of_row in zip(_records(store, rows), explained_rows(store, rows), strict=True):
        yield record, of_row


def _certificate(record: Record) -> list[str]:
    told = [f"gap {record['gap']:+.3f}", f"error {record['quadrature_error']:.3f}"]
    return told if record["converged"] else [*told, "not converged"]


def _peak(record: Record) -> str:
    return f"maximum {record['cam_max']:.2g}" if record["cam_max"] > 0 else "empty map"


def _told(record: Record) -> str:
    label, prediction = record["label_name"], record["prediction_name"]
    return label if record["correct"] else f"{label}, taken for {prediction}"


def _caption(row: int, record: Record, *trust: str) -> str:
    label, prediction = (short_name(record[name], CAPTION_CHARACTERS) for name in ("label_name", "prediction_name"))
    lines = [f"row {row}: {label}"] if len(label) < 8 else [f"row {row}", label]
    lines += [] if record["correct"] else [f"taken for {prediction}" if len(prediction) < 8 else f"for {prediction}"]
    return "\n".join([*lines, f"confidence {record['confidence']:.1%}", *trust])
