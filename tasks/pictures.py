"""Pictures of a store's rows: which rows to draw, and the figures of each. Needs neither TensorFlow nor Prefect."""

from typing import TYPE_CHECKING, cast

import pandas as pd
from matplotlib.figure import Figure

from storage import AttributionStore, Target
from tasks.numerics.figures import attribution_figure, grad_cam_figure, summary_figure

if TYPE_CHECKING:
    from tasks.config import GalleryConfig

__all__ = ["choose_rows", "row_caption", "row_figures", "summary"]

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


def row_caption(store: AttributionStore, row: int, target: Target = "true") -> str:
    """What there is to say of a row in two lines: classes and confidence, and how far to trust its attribution."""
    record = cast(pd.Series, store.table().loc[row])
    certificate = cast(pd.Series, store.certificate(target).loc[row])
    label, prediction = record["label_name"], record["prediction_name"]
    trust = f"gap {certificate['gap']:+.3f}, error {certificate['quadrature_error']:.3f}"
    return (
        f"Row {row}: {label}, predicted {prediction} ({record['confidence']:.1%}), "
        f"explained {label if target == 'true' else prediction}\n"
        f"{trust}, {'converged' if certificate['converged'] else 'NOT CONVERGED'}"
    )


def row_figures(store: AttributionStore, row: int, target: Target = "true") -> dict[str, Figure]:
    """The seed's two figures of a row, by method.

    Raises IndexError if the store has no such row.
    """
    pixels, caption = store.image[row], row_caption(store, row, target)
    score = cast(dict, store.attributes["configuration"]).get("explanation", {}).get("score", "score")
    attribution, grad_cam = store.attributions([row], target)[0], store.maps([row], target)[0]
    return {
        "integrated-gradients": attribution_figure(pixels, attribution, title=caption, units=score),
        "grad-cam": grad_cam_figure(pixels, grad_cam, title=caption.splitlines()[0]),
    }


def summary(store: AttributionStore, rows: dict[int, str]) -> Figure:
    """The first of the chosen rows of each class, and then others, up to ten; the store's first rows if none is chosen."""
    rows = rows or dict.fromkeys(store.row_numbers[:SUMMARY_ROWS].tolist(), "first")
    labels = dict(zip(store.row_numbers.tolist(), store.labels.tolist(), strict=True))
    first_of_class = {labels[row]: row for row in reversed(rows)}
    chosen = sorted(first_of_class.values(), key=lambda row: labels[row])[:SUMMARY_ROWS]
    chosen += [row for row in rows if row not in chosen][: SUMMARY_ROWS - len(chosen)]
    titles = [store.class_names[labels[row]] for row in chosen]
    return summary_figure(store.image[chosen], store.attributions(chosen), store.maps(chosen), titles)
