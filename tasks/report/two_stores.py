"""The page of two compared stores: one HTML file, with all that is in it."""

import base64
import io
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from storage import AttributionStore
from storage.draw.change_figures import shares_figure, then_and_now_figure
from storage.file.disk.durable import replacing
from tasks.report.page_template import render_page
from tasks.worth.drift.night_drift import DriftFloor
from tasks.worth.drift.store_drift import StoreDrift

__all__ = ["comparison_page", "write_comparison"]

DPI = 110
MOST_FLOWS, MOST_DRAWN = 30, 20


def write_comparison(
    before: AttributionStore, after: AttributionStore, found: StoreDrift, floor: DriftFloor, path: Path, n_rows: int
) -> Path:
    """Writes the page, whole or not at all, and returns its path. n_rows: how many rows whose reasons moved most are drawn."""
    html = comparison_page(before, after, found, floor, n_rows)
    with replacing(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return path


def comparison_page(
    before: AttributionStore,
    after: AttributionStore,
    found: StoreDrift,
    floor: DriftFloor,
    n_rows: int,
    *,
    links: tuple[str, str] | None = None,
) -> str:
    """The page as HTML. links: the ids under which the pages of both nights are served beside it, for links to their rows."""
    names = after.class_names
    changes = sorted(found.changes.items(), key=lambda item: -item[1].share)
    moved = found.moved_most(n_rows)
    context: dict[str, Any] = {
        "live": links is not None,
        "links": links,
        "before": before.attributes,
        "after": after.attributes,
        "found": found,
        "floor": floor,
        "likeness": float(found.likeness[found.stayed].mean()) if len(found.stayed) else None,
        "flows": [(names[was], names[now], n) for was, now, n in found.flows()[:MOST_FLOWS]],
        "classes": [
            (number, names[number], change, _data_uri(shares_figure(change.before, change.after)))
            for number, change in changes[:MOST_DRAWN]
        ],
        "notes": [(names[number], note) for number, note in found.notes.items()],
        "moved_rows": moved.tolist(),
        "moved": _data_uri(then_and_now_figure(before, after, moved)) if len(moved) else None,
    }
    return render_page("two_stores.html", context)


def _data_uri(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
