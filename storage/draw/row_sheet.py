"""Several rows in one figure: a line a row, with what is known of it, its image and the picture of each method.

Every picture has its own scale, and what that is stands below it. Places are fixed, in inches, as in panels.py: fifty lines are
one set of axes and need no layout.
"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from storage.draw.figures import INK, as_rgb, explained_picture, short_name, signed_heat
from storage.draw.row_pictures import NAME_LENGTH, ExplainedRow, explained_rows, score_units
from storage.file.methods import StoredMethod
from storage.read.reader import StoreReader, Target

__all__ = ["MOST_LINES", "draw_rows", "row_lines", "scale_of"]

MOST_LINES = 50
# In inches: of the captions, of a picture with what is around it, of a line, and of the headings.
CAPTION, PICTURE, GAP, LINE, HEAD = 2.9, 1.5, 0.12, 1.78, 0.62
SMALL, PLAIN = 7.5, 8.5
LEAST_WIDTH = 5.2  # of the heading's longest line


def draw_rows(store: StoreReader, rows: NDArray[np.int64], target: Target = "true") -> Figure:
    """A line for each of 1 to MOST_LINES rows, in their order: caption, image, and the picture of each method.

    A store without images has none here either: attributions, and the heat of maps alone.
    Raises ValueError for no row and for more rows, IndexError if the store has no such row.
    """
    if not 1 <= len(rows) <= MOST_LINES:
        raise ValueError(
            f"expected 1 to {MOST_LINES} rows for one figure, got {len(rows):,}; take some of them, such as "
            f"rows[:{MOST_LINES}], or export them all with `nightlens export --to png`"
        )
    width = max(LEAST_WIDTH, CAPTION + (store.has_images + len(store.methods)) * (PICTURE + GAP) + GAP)
    figure = Figure(figsize=(width, HEAD + LINE * len(rows)), facecolor="white")
    ax = _inches(figure)
    _write_head(ax, store)
    texts = row_lines(store, rows, target)
    for number, shown in enumerate(explained_rows(store, rows.tolist(), target)):
        _draw_line(ax, HEAD + LINE * number, shown, texts[number])
    return figure


def row_lines(store: StoreReader, rows: NDArray[np.int64], target: Target = "true") -> list[tuple[str, ...]]:
    """What there is to say of each row in short lines: its number, classes, what is explained, certificate."""
    of_rows = {name: store.values(name, rows) for name in ("label_name", "prediction_name", "confidence")}
    trust = {name: store.values(name, rows, target) for name in ("gap", "quadrature_error", "converged")}
    lines: list[tuple[str, ...]] = []
    for k, row in enumerate(rows):
        label, prediction = (short_name(of_rows[name][k], NAME_LENGTH) for name in ("label_name", "prediction_name"))
        lines.append(
            (
                f"row {row}",
                f"label {label}",
                f"predicted {prediction}",
                f"confidence {of_rows['confidence'][k]:.1%}",
                f"explained {label if target == 'true' else prediction}",
                f"gap {trust['gap'][k]:+.3f}, error {trust['quadrature_error'][k]:.3f}",
                "converged" if trust["converged"][k] else "NOT CONVERGED",
            )
        )
    return lines


def _inches(figure: Figure) -> Axes:
    """Axes without ticks over the whole figure, in inches from its upper left corner."""
    width, height = figure.get_size_inches()
    ax = figure.add_axes((0, 0, 1, 1))
    ax.axis("off")
    ax.set_xlim(0, width)
    ax.set_ylim(height, 0)
    ax.autoscale(False)
    return ax


def _write_head(ax: Axes, store: StoreReader) -> None:
    of_scale = (
        f"below each picture: where its colours end, in units of the {score_units(store)}; green adds, red takes away"
    )
    _write(ax, GAP, 0.2, of_scale, fontsize=SMALL)
    image = ("Image",) if store.has_images else ()
    for column, title in enumerate((*image, *(method.title for method in store.methods))):
        _write(ax, _left(column) + PICTURE / 2, HEAD - 0.1, title, ha="center", fontsize=PLAIN)


def _draw_line(ax: Axes, top: float, shown: ExplainedRow, lines: tuple[str, ...]) -> None:
    for number, line in enumerate(lines):
        weight = "bold" if number == 0 else "normal"
        _write(ax, GAP, top + 0.2 + 0.2 * number, line, fontsize=PLAIN, fontweight=weight)
    has_image = bool(shown.image.shape[-1])
    if has_image:
        _place(ax, as_rgb(shown.image), _left(0), top)
    for column, (method, picture) in enumerate(shown.pictures.items(), start=has_image):
        _place(ax, explained_picture(method, shown.image, picture), _left(column), top)
        scale = scale_of(method, picture)
        _write(ax, _left(column) + PICTURE / 2, top + PICTURE + 0.15, scale, ha="center", fontsize=SMALL)


def scale_of(method: StoredMethod, picture: NDArray) -> str:
    """Where the colours of a picture end, in units of the score: of an attribution for a pixel, of a map its maximum."""
    if not method.is_map:
        heat, end = signed_heat(picture)
        return f"±{end:.2g} a pixel" if heat.any() else "no attribution"
    return f"maximum {picture.max():.2g}" if picture.any() else "empty map"


def _left(column: int) -> float:
    return CAPTION + column * (PICTURE + GAP)


def _place(ax: Axes, picture: NDArray, left: float, top: float) -> None:
    """A picture, framed, in the middle of its place."""
    height, width = (PICTURE * side / max(picture.shape[:2]) for side in picture.shape[:2])
    x, y = left + (PICTURE - width) / 2, top + (PICTURE - height) / 2
    ax.imshow(picture, interpolation="nearest", aspect="equal", extent=(x, x + width, y + height, y))
    ax.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=INK, linewidth=0.6))


def _write(ax: Axes, x: float, y: float, text: str, **how: Any) -> None:
    ax.text(x, y, text, va="baseline", color=INK, parse_math=False, **how)
