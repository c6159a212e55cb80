"""The pages of single rows: chosen ones by each method, and the mistakes by all methods and for both classes."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, cast

from storage import AttributionStore, StoredMethod
from storage.draw.figures import short_name
from storage.draw.row_pictures import ExplainedRow, explained_rows
from tasks.pages.figures.page_figures import text_figure
from tasks.pages.how_to_read import how_to_read
from tasks.pages.page import Page
from tasks.pages.sheets import Tile, attribution_tile, heat_tile, image_tile, overlay_tile, rows_sheet

__all__ = ["method_pages", "misclassified_page"]

SHEET_ROWS, MOST_ROWS = 10, 80
CAPTION_CHARACTERS = 16
MOST_TILES_ACROSS = 3  # of two rows in a line

Record = dict[str, Any]
Captioned = tuple[str, list[Tile]]


def method_pages(store: AttributionStore, rows: dict[int, str]) -> Iterator[Page]:
    """The chosen rows and why they were chosen, with the certificate: a page of each signed method, and one of all maps."""
    for method in (method for method in store.methods if not method.is_map):
        look_for = f"Look for green where a person would look too: image and signed {method.title}."
        yield _gallery(Page(f"gallery-{method.slug}", look_for), store, rows, [method])
    maps = [method for method in store.methods if method.is_map]
    if maps:
        titles = " and ".join(method.title for method in maps)
        look_for = f"Look for heat on the thing, not beside it: image, {titles}, each as heat and over the image."
        yield _gallery(Page(f"gallery-{maps[0].slug}", look_for), store, rows, maps)


def _gallery(page: Page, store: AttributionStore, rows: dict[int, str], methods: Sequence[StoredMethod]) -> Page:
    page.heading(f"{' and '.join(method.title for method in methods)} of {len(rows):,} chosen rows")
    drawn = [
        (
            _caption(shown.row, record, *(said for method in methods for said in _trust(record, method, methods))),
            [image_tile(shown.image), *(tile for method in methods for tile in _all_tiles(shown, method))],
        )
        for record, shown in _explained(store, list(rows)[:MOST_ROWS])
    ]
    headings = ["image", *(heading for method in methods for heading in _headings(method))]
    wide = len(headings) > MOST_TILES_ACROSS
    _draw(page, drawn, headings, across=1 if wide else 2, caption=1.9 if methods[0].is_map else 1.5)
    _say_in_words(
        page, store, rows, lambda record: ", ".join(said for m in methods for said in _trust(record, m, methods))
    )
    return page


def _headings(method: StoredMethod) -> list[str]:
    return [method.title, "overlay"] if method.is_map else ["attribution"]


def _all_tiles(shown: ExplainedRow, method: StoredMethod) -> list[Tile]:
    """A signed attribution; of a map its heat, and the image under it."""
    picture = shown.pictures[method]
    if not method.is_map:
        return [attribution_tile(picture)]
    return [heat_tile(shown.image, picture), overlay_tile(shown.image, picture)]


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
    methods = [method.title if method.is_map else "attribution" for method in store.methods]
    headings = ["image", *(f"{method}\n{which}" for which in ("true class", "taken for") for method in methods)]
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
    page.text(how_to_read(store.methods))
    return page


def _tiles(shown: ExplainedRow) -> list[Tile]:
    """The attribution, and the overlay of each map."""
    return [
        overlay_tile(shown.image, picture) if method.is_map else attribution_tile(picture)
        for method, picture in shown.pictures.items()
    ]


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
        alternative = "; ".join(" ".join(caption.split()) for caption, _ in sheet)
        draw = partial(rows_sheet, sheet, headings, across=across, caption=caption)
        page.figure(draw, alternative, thumbnail=True)
    if not drawn:
        page.figure(partial(text_figure, none), none, thumbnail=True)


def _say_in_words(page: Page, store: AttributionStore, rows: dict[int, str], trust: Any) -> None:
    """The same rows in words, and what is not drawn."""
    page.table(
        [
            {
                "row": row,
                "why": rows[row],
                "class": _classes_of(record),
                "confidence": f"{record['confidence']:.1%}",
                "trust": trust(record),
            }
            for row, record in _records(store, list(rows))
        ]
    )
    if len(rows) > MOST_ROWS:
        page.text(f"The first {MOST_ROWS} are drawn; all are in the night's folder `gallery`.")
    page.text(how_to_read(store.methods))


def _records(store: AttributionStore, rows: list[int]) -> list[tuple[int, Record]]:
    records = cast(list[Record], store.table(rows).to_dict("records")) if rows else []
    return list(zip(rows, records, strict=True))


def _explained(store: AttributionStore, rows: list[int]) -> Iterator[tuple[Record, ExplainedRow]]:
    for (_, record), of_row in zip(_records(store, rows), explained_rows(store, rows), strict=True):
        yield record, of_row


def _trust(record: Record, method: StoredMethod, beside: Sequence[StoredMethod]) -> list[str]:
    """What the schema has pages say of a method's numbers; with the method's title where others stand beside it."""
    columns = [column for column in method.columns if "page" in column.places]
    said = [caption for column in columns if (caption := column.captioned(record[column.name]))]
    return said if len(beside) == 1 else [f"{method.title} {caption}" for caption in said]


def _classes_of(record: Record) -> str:
    label, prediction = record["label_name"], record["prediction_name"]
    return label if record["correct"] else f"{label}, taken for {prediction}"


def _caption(row: int, record: Record, *trust: str) -> str:
    label, prediction = (short_name(record[name], CAPTION_CHARACTERS) for name in ("label_name", "prediction_name"))
    lines = [f"row {row}: {label}"] if len(label) < 8 else [f"row {row}", label]
    lines += [] if record["correct"] else [f"taken for {prediction}" if len(prediction) < 8 else f"for {prediction}"]
    return "\n".join([*lines, f"confidence {record['confidence']:.1%}", *trust])
