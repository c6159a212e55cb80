"""Writes the page: everything it needs is in it, it asks nothing of any network, and the browser is told to see to that.

Whatever names come with the dataset are data: the template escapes them, and the script sets them as text only.
"""

import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from storage import AttributionStore
from storage.file.catalog import REPORT_NAME
from storage.file.disk.durable import replacing
from tasks.night.class_means import ClassMean, class_means
from tasks.night.contract_facts import NEED_NOT_SUM, is_independent, model_facts
from tasks.report.charts import Chart, calibration_chart, curve_chart, histogram, log_histogram
from tasks.report.confusion import confusion_of
from tasks.report.mean_pictures import draw_mean
from tasks.report.night_facts import began, duration_of, facts_of, figures_of, load_snippet, stages_of, verdict_of
from tasks.report.page_template import render_page
from tasks.report.picture_strips import RowPictures, draw_rows, shown_size
from tasks.report.ranking import REASONS, rank_rows
from tasks.report.row_columns import page_data
from tasks.report.sections.recorded_worth import is_wanted, read_worth
from tasks.report.sections.strategy_cards import strategy_section
from tasks.report.sections.worth_section import worth_section

if TYPE_CHECKING:
    from tasks.night.evaluation import Evaluation

__all__ = ["at_a_glance", "ranked_rows", "report_context", "write_report"]

PICTURE_BYTES = 3_200_000  # of the 5 MB that the page of 10,000 rows may have
AT_A_GLANCE = 10


def write_report(
    store: AttributionStore,
    night: Mapping[str, Any],
    evaluation: "Evaluation",
    history: Mapping[str, Sequence[float]],
    path: Path | None = None,
    means: Sequence[ClassMean] | None = None,
) -> Path:
    """Writes the night's page, whole or not at all, and returns its path, by default beside the store.

    night: its record, as night.json has it; empty if it was never finished. evaluation: of the model on the test split.
    history: loss, accuracy, val_loss and val_accuracy by epoch; empty if unknown. means: by default computed here.
    """
    path = path or Path(store.path).parent / REPORT_NAME
    means = class_means(store) if means is None else means
    pictures = draw_rows(store, ranked_rows(store), PICTURE_BYTES)
    context = report_context(store, night, evaluation, history) | {
        "live": None,
        "means": [draw_mean(mean, store.class_names[mean.label]) for mean in means],
        "glance": at_a_glance(store, pictures),
        "n_pictures": len(pictures),
        "reasons": _count_reasons(pictures),
        "data": page_data(store, pictures),
    }
    html = render_page("report.html", context, size=context["size"])
    with replacing(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return path


def ranked_rows(store: AttributionStore) -> Iterator[tuple[int, str]]:
    """Every row once, with why it is drawn: the spotlight first, then the most telling."""
    configuration: Any = store.attributes["configuration"]
    spotlight = configuration.get("gallery", {}).get("spotlight", ())
    return rank_rows(store.table(), spotlight, seed=zlib.crc32(str(store.attributes["run_id"]).encode()))


def report_context(
    store: AttributionStore,
    night: Mapping[str, Any],
    evaluation: "Evaluation",
    history: Mapping[str, Sequence[float]],
) -> dict[str, Any]:
    """What the page says of a night, but for the pictures of its rows and classes and the numbers of its rows."""
    table, names = store.table(), store.class_names
    configuration: Any = store.attributes["configuration"]
    width, height = shown_size(store.image_shape)
    found, unreadable = read_worth(store)
    return {
        "names": names,
        "about": store.attributes,
        "n_rows": len(table),
        "methods": store.methods,
        "has_maps": any(method.is_map for method in store.methods),
        "model": model_facts(store.contract),
        "began": began(store),
        "verdict": verdict_of(night),
        "audit": str(night.get("audit", "unknown")),
        "duration": duration_of(night),
        "figures": figures_of(store, table, night, evaluation),
        "facts": facts_of(store, night, evaluation),
        "stages": stages_of(night),
        "snippet": load_snippet(store),
        "curves": [curve_chart(history, name) for name in ("accuracy", "loss") if history.get(name)],
        "epochs": len(history.get("loss", ())),
        "confusion": confusion_of(store.labels, store.predictions, names),
        "classes": evaluation.classes,
        "evaluation": evaluation,
        "calibration": calibration_chart(
            store.confidences.astype(np.float64),
            table["correct"].to_numpy(),
            evaluation.expected_calibration_error,
            note=NEED_NOT_SUM if is_independent(store.contract) else "",
        ),
        "certificates": _certificate_charts(table, configuration),
        "score": configuration.get("explanation", {}).get("score", "score"),
        "worth": worth_section(store, found, unreadable) if is_wanted(store) else None,
        "strategies": strategy_section(store, found),
        "n_present": len(np.unique(store.labels)),
        "reduced": (width, height) != store.image_shape[1::-1],
        "size": (width, height),
    }


def _certificate_charts(table: pd.DataFrame, configuration: Mapping[str, Any]) -> list[Chart]:
    settings = configuration.get("integrated_gradients", {})
    # Of a logit the tolerance is relative, and so a line for each row.
    absolute = configuration.get("explanation", {}).get("score") == "probability"
    gap, error = settings.get("gap_tolerance"), settings.get("error_tolerance")
    gaps, errors, spent = (table[name].to_numpy() for name in ("gap", "quadrature_error", "n_gradients"))
    return [
        histogram(
            gaps,
            title="Completeness gap",
            x_label="gap (units of the score)",
            summary=f"Gaps from {gaps.min():+.3g} to {gaps.max():+.3g}; 95 % of them are within ±"
            f"{np.percentile(np.abs(gaps), 95):.3g}.".replace("-", "−"),
            limits=(-gap, gap) if gap and absolute else (),
        ),
        histogram(
            errors,
            title="Quadrature error",
            x_label="relative change when every other node is left out",
            summary=f"Median {np.median(errors):.3g}, 95th percentile {np.percentile(errors, 95):.3g}, "
            f"largest {errors.max():.3g}.",
            limits=(error,) if error else (),
            zero=True,
        ),
        log_histogram(
            spent,
            title="Gradients spent",
            x_label="gradients an image (each step doubles)",
            summary=f"Mean {spent.mean():.1f}, median {np.median(spent):.0f}, at most {spent.max():,} gradients an image.",
        ),
    ]


def at_a_glance(store: AttributionStore, pictures: Sequence[RowPictures]) -> list[tuple[str, bool, RowPictures]]:
    """The first picture of each of the first classes: the true class, whether it is right, and the pictures."""
    labels = store.values("label", [entry.row for entry in pictures]).tolist()
    first = dict(reversed(list(zip(labels, pictures, strict=True))))
    shown = sorted(first.items())[:AT_A_GLANCE]
    return [(store.class_names[label], bool(store.values("correct", entry.row)[0]), entry) for label, entry in shown]


def _count_reasons(pictures: Sequence[RowPictures]) -> list[tuple[str, int]]:
    counts = Counter(entry.why for entry in pictures)
    return [(why, counts[why]) for why in REASONS if counts[why]]
