"""What a notebook shows of a store, and of some of its rows: HTML in the notebook's own colours, light or dark.

Colours and borders are the surrounding text's, pictures are PNG in data URIs, and there is neither style sheet nor script, which
would reach beyond their cell. Every text is somebody's, and escaped. What cannot be read is a sentence.
"""

import base64
import io
from collections.abc import Callable, Iterable, Mapping
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from storage.draw.figures import as_rgb, explained_picture
from storage.draw.row_pictures import ExplainedRow, explained_rows, score_units
from storage.draw.row_sheet import row_lines, scale_of
from storage.errors import StoreError
from storage.read.reader import StoreReader, Target
from storage.read.row_views import name_span

__all__ = ["MOST_CARDS", "N_STRIP", "ShownRows", "rows_html", "store_html"]

MOST_CARDS = 20
N_STRIP = 8
MOST_PIXELS, SHOWN_PIXELS = 96, 72
BOX = "border:1px solid;border-color:currentColor;border-radius:4px;padding:.6em .8em;color:inherit;max-width:70em"
ROW_OF_CARDS = "display:flex;flex-wrap:wrap;gap:.7em;margin-top:.6em"
QUIET = "opacity:.8;font-size:90%"


class ShownRows:
    """Some rows of a store that show themselves in a notebook: captions and pictures, of at most MOST_CARDS.

    It is an array of their numbers to NumPy. The numbers themselves, as store.rows() gives them, know of no store, and so can be
    sorted, saved and compared like any others.
    """

    def __init__(self, store: StoreReader, numbers: NDArray[np.int64], target: Target):
        self._store, self.numbers, self.target = store, numbers, target

    def __len__(self) -> int:
        return len(self.numbers)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray:
        return self.numbers.astype(dtype or self.numbers.dtype, copy=bool(copy))

    def __repr__(self) -> str:
        night = self._store.attributes["run_id"]
        return f"<{_count(self.numbers)} of {night}, explained for the {self.target} class: {self.numbers}>"

    def _repr_html_(self) -> str:
        return rows_html(self._store, self.numbers, self.target)


def store_html(store: StoreReader, night: Callable[[], Mapping[str, Any]]) -> str:
    """A store: what it is of, the night's verdict, what its rows are worth in numbers, and some rows that are worth a look.

    night: reads the record of its night, empty where there is none; what it raises as StoreError becomes a sentence.
    """
    about = store.attributes
    head = f"<b>{_text(about['dataset_name'])}/{_text(about['dataset_split'])}</b>, {name_span(store.row_range)}"
    head += f", model {_text(about['model_name'])}, night {_text(about['run_id'])}"
    head += "" if store.has_images else ", without its images"
    blocks = [f"<div>{head}</div>"]
    if store.is_closed:
        blocks.append("<div>The store is closed: open it again to see its rows.</div>")
    else:
        blocks += [
            _or_sentence(part) for part in (lambda: _verdict(night()), lambda: _numbers(store), lambda: _strip(store))
        ]
    return f'<div style="{BOX}">{"".join(blocks)}</div>'


def rows_html(store: StoreReader, rows: NDArray[np.int64], target: Target = "true") -> str:
    """Some rows, in their order: the first MOST_CARDS with caption, image, and the picture of each method with its scale."""
    if store.is_closed:
        return f'<div style="{BOX}">The store is closed: open it again to see its rows.</div>'
    some = rows[:MOST_CARDS]
    head = _count(rows) if len(some) == len(rows) else f"the first {len(some)} of {_count(rows)}"
    head += f", explained for the {target} class; colours of each picture end at the number below it, in units of the "
    head += score_units(store)
    cards = _or_sentence(lambda: _cards(store, some, target))
    return f'<div style="{BOX}"><div style="{QUIET}">{_text(head)}</div>{cards}</div>'


def _count(rows: NDArray[np.int64]) -> str:
    return f"{len(rows):,} rows" if len(rows) != 1 else "1 row"


def _or_sentence(draw: Callable[[], str]) -> str:
    """What is drawn, or why it cannot be."""
    try:
        return draw()
    except (StoreError, OSError) as error:
        return f"<div>Cannot be shown: {_text(error)}</div>"


def _verdict(night: Mapping[str, Any]) -> str:
    if not night:
        return f'<div style="{QUIET}">no verdict: there is no night.json beside the store</div>'
    compared = f"; audit {_text(night['audit'])}" if "audit" in night else ""
    return f"<div>{_text(night.get('verdict', 'no verdict'))}{compared}</div>"


def _numbers(store: StoreReader) -> str:
    converged, gap, gain = (store.values(name, ...) for name in ("converged", "gap", "relevance_gain"))
    numbers = {
        "accuracy": f"{store.values('correct', ...).mean():.2%}",
        "converged": f"{converged.mean():.2%}",
        "worst gap": f"{np.abs(gap).max():.3g}",
    }
    if not np.isnan(gain).all():
        numbers["mean relevance gain"] = f"{gain.mean(dtype=np.float64):+.3f}"
    said = "".join(
        f'<span style="margin-right:1.6em"><span style="{QUIET}">{name}</span> <b>{value}</b></span>'
        for name, value in numbers.items()
    )
    return f'<div style="margin-top:.4em">{said}</div>'


def _strip(store: StoreReader) -> str:
    wrong = store.rows(correct=False)
    order = np.argsort(store.values("confidence", wrong), kind="stable")[::-1]
    rows, why = wrong[order][:N_STRIP], "the model's surest mistakes"
    if not len(rows):
        order = np.argsort(store.confidences, kind="stable")
        rows, why = store.row_numbers[order][:N_STRIP], "no mistake; the rows of which the model is least sure"
    about = f"{why}, explained for the predicted class; more by store.show(rows)"
    return f'<div style="{QUIET};margin-top:.6em">{about}</div>{_small_cards(store, rows)}'


def _small_cards(store: StoreReader, rows: NDArray[np.int64]) -> str:
    """Of each row its image and its first explanation, for the predicted class."""
    cards = []
    for shown, (number, label, predicted, confidence, *_, trust) in zip(
        explained_rows(store, rows.tolist(), "predicted"), row_lines(store, rows, "predicted"), strict=True
    ):
        method, picture = next(iter(shown.pictures.items()))
        pair = _picture(as_rgb(shown.image), "image") if store.has_images else ""
        pair += _picture(explained_picture(method, shown.image, picture), method.title)
        cards.append(
            _card([number, label, predicted, confidence, trust], f'<div style="display:flex;gap:.2em">{pair}</div>')
        )
    return f'<div style="{ROW_OF_CARDS}">{"".join(cards)}</div>'


def _cards(store: StoreReader, rows: NDArray[np.int64], target: Target) -> str:
    lines = row_lines(store, rows, target)
    cards = [_card(lines[k], _pictures(shown)) for k, shown in enumerate(explained_rows(store, rows.tolist(), target))]
    return f'<div style="{ROW_OF_CARDS}">{"".join(cards)}</div>'


def _pictures(shown: ExplainedRow) -> str:
    figures = [_titled(_picture(as_rgb(shown.image), "image"), "image")] if shown.image.shape[-1] else []
    for method, picture in shown.pictures.items():
        drawn = _picture(explained_picture(method, shown.image, picture), method.title)
        figures.append(_titled(drawn, f"{method.title}, {scale_of(method, picture)}"))
    return f'<div style="display:flex;gap:.4em">{"".join(figures)}</div>'


def _titled(picture: str, title: str) -> str:
    return f'<div style="width:{SHOWN_PIXELS + 4}px;font-size:75%;line-height:1.2">{picture}{_text(title)}</div>'


def _card(lines: Iterable[str], pictures: str) -> str:
    first, *rest = lines
    said = "".join(f"<div>{_text(line)}</div>" for line in rest)
    return f'<div style="font-size:85%;line-height:1.3">{pictures}<b>{_text(first)}</b>{said}</div>'


def _picture(pixels: NDArray[np.float32], what: str) -> str:
    """(y, x, 3) in 0..1 as a picture in the page, reduced if it is large."""
    height, width = pixels.shape[:2]
    picture = Image.fromarray(np.rint(pixels * 255).astype(np.uint8))
    if max(height, width) > MOST_PIXELS:
        picture.thumbnail((MOST_PIXELS, MOST_PIXELS), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "png")
    shown = [max(1, round(SHOWN_PIXELS * side / max(height, width))) for side in (width, height)]
    return (
        f'<img alt="{_text(what)}" width="{shown[0]}" height="{shown[1]}" '
        f'style="image-rendering:pixelated;border:1px solid;border-color:currentColor;display:block;max-width:none;margin:0" '
        f'src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'
    )


def _text(what: object) -> str:
    """Somebody's text for HTML, in one line; what is no character is left out, as is what turns the direction of text."""
    line = " ".join(str(what).split())
    return escape("".join(c for c in line if c.isprintable()))
