"""The page of two compared stores: one HTML file, with all that is in it."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from storage import AttributionStore
from storage.draw.figures import INK, as_rgb, blank_figure, contact_sheet, explained_picture, place
from storage.file.disk.durable import replacing
from storage.file.methods import INTEGRATED_GRADIENTS
from tasks.numerics.worth.drift import Change
from tasks.worth.store_drift import StoreDrift

__all__ = ["write_drift_page"]

DPI = 110
MOST_FLOWS = 30


def write_drift_page(
    before: AttributionStore, after: AttributionStore, found: StoreDrift, path: Path, n_rows: int
) -> Path:
    """Writes the page, whole or not at all, and returns its path. n_rows: how many rows whose reasons moved most are drawn."""
    names = after.class_names
    changes = sorted(found.changes.items(), key=lambda item: -item[1].share)
    moved = found.moved_most(n_rows)
    context: dict[str, Any] = {
        "before": before.attributes,
        "after": after.attributes,
        "found": found,
        "likeness": float(found.likeness.mean()) if len(found.stayed) else None,
        "flows": [(names[was], names[now], n) for was, now, n in found.flows()[:MOST_FLOWS]],
        "classes": [(names[number], change, _data_uri(_shares_figure(change))) for number, change in changes],
        "notes": [(names[number], note) for number, note in found.notes.items()],
        "moved_rows": moved.tolist(),
        "moved": _data_uri(_moved_figure(before, after, moved)) if len(moved) else None,
    }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tasks.report"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    html = environment.get_template("drift.html").render(context)
    with replacing(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return path


def _data_uri(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _shares_figure(change: Change) -> Figure:
    """Mean shares of |attribution| by cell, before and after, in one scale, and their difference."""
    figure = blank_figure(7.2, 2.4)
    most = float(max(change.before.max(), change.after.max()))
    difference = change.after - change.before
    panels: Sequence[tuple[str, NDArray, str, float, float]] = (
        ("before", change.before, "viridis", 0.0, most),
        ("after", change.after, "viridis", 0.0, most),
        ("after - before", difference, "PuOr_r", -change.share or -1.0, change.share or 1.0),
    )
    for ax, (title, values, colours, least, largest) in zip(figure.subplots(1, 3), panels, strict=True):
        shown = ax.imshow(values, cmap=colours, vmin=least, vmax=largest)
        ax.set_title(title, fontsize=9, color=INK)
        ax.set_xticks([])
        ax.set_yticks([])
        figure.colorbar(shown, ax=ax, shrink=0.8).ax.tick_params(labelsize=7)
    return figure


def _moved_figure(before: AttributionStore, after: AttributionStore, rows: NDArray[np.int64]) -> Figure:
    """Of each row a column: the image, its attributions for the predicted class before, and after."""
    figure = blank_figure(1.1 * len(rows) + 0.6, 3.7)
    ax = contact_sheet(figure, 3, len(rows))
    images = after.image[rows]
    then, now = (store.attributions(rows, "predicted") for store in (before, after))
    for column, row in enumerate(rows):
        place(ax, as_rgb(images[column]), 0, column)
        for line, attributions in ((1, then), (2, now)):
            place(ax, explained_picture(INTEGRATED_GRADIENTS, images[column], attributions[column]), line, column)
        ax.text(column + 0.5, -0.03, f"row {row}", ha="center", va="bottom", fontsize=8, color=INK)
    for line, text in enumerate(("image", "before", "after")):
        ax.text(-0.05, line + 0.5, text, ha="right", va="center", rotation="vertical", fontsize=8, color=INK)
    return figure
