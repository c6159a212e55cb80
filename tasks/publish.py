"""Publish: the pictures of the night, its galleries and its summary page, after the store is sealed and audited."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from prefect import task
from prefect.logging import get_run_logger

from storage import AttributionStore, open_store
from storage.catalog import REPORT_NAME
from storage.durable import make_folder, replacing
from storage.figures import attribution_strip, grad_cam_strip
from storage.pictures import row_figures
from tasks.artifacts import Page, escape
from tasks.config import GalleryConfig
from tasks.evaluate import Evaluation
from tasks.figures import confusion_figure, curves_figure
from tasks.night import NightResult
from tasks.pictures import choose_rows, summary
from tasks.plan import Plan
from tasks.progress import Progress, report
from tasks.report import write_report

__all__ = ["publish"]

DPI = 110
HOW_TO_READ = """
**Integrated Gradients** shares the score of the true class out among the input values: green pixels raise it compared with a
black (or the configured) baseline, red pixels lower it, and white ones do not matter. The sum over a picture is the score minus
the baseline's score, up to the row's *gap*. Colours are scaled picture by picture: compare patterns, not strengths, between rows.

**Grad-CAM** shows where the explained convolution layer speaks for the true class, on that layer's coarse grid, enlarged:
red is the row's own maximum and blue is nothing. It knows no red-for-against: what speaks against the class is cut off at
zero, and a row where nothing speaks for it has an *empty map*. The two methods answer different questions and may disagree.
""".strip()


def _figures(
    store: AttributionStore, plan: Plan, evaluation: Evaluation, rows: dict[int, str]
) -> Iterator[tuple[str, Figure]]:
    if plan.model.history:
        yield "training-curves", curves_figure(plan.model.history)
    yield "confusion", confusion_figure(np.array(evaluation.confusion), plan.dataset.class_names)
    yield "summary", summary(store, rows)
    for row in rows:
        for method, figure in row_figures(store, row).items():
            yield f"row-{row:06d}-{method}", figure


@task(name="publish")
def publish(plan: Plan, result: NightResult, evaluation: Evaluation, gallery: GalleryConfig) -> None:
    """Writes the night's pictures and its report.html, and uploads the galleries and the page `night`.

    Raises OSError if the pictures cannot be written, saying that the night itself is safe.
    """
    with open_store(result.store) as store:
        rows = choose_rows(store.table(), gallery)
        try:
            _write_pictures(store, plan, evaluation, rows, make_folder(result.gallery))
            write_report(store, result.model_dump(mode="json"), evaluation, plan.model.history)
        except OSError as error:
            raise OSError(
                error.errno,
                f"night {result.night_id} is sealed and the latest, but its pictures cannot be written to "
                f"{result.gallery} ({error.strerror}); mend that and run `nightlens run --resume`",
            ) from error
        _publish_gallery(store, rows, "integrated-gradients")
        _publish_gallery(store, rows, "grad-cam")
        picture = summary(store, rows)
    _publish_night(plan, result, picture)


def _write_pictures(
    store: AttributionStore, plan: Plan, evaluation: Evaluation, rows: dict[int, str], folder: Path
) -> None:
    total = 2 * len(rows) + 2 + bool(plan.model.history)
    for done, (name, figure) in enumerate(_figures(store, plan, evaluation, rows), start=1):
        with replacing(folder / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png", dpi=DPI)
        report(Progress(stage="publish", done=done, total=total, unit="pictures"))
    get_run_logger().info("%d pictures in %s", total, folder)


def _publish_gallery(store: AttributionStore, rows: dict[int, str], method: str) -> None:
    is_ig, table = method == "integrated-gradients", store.table()
    look_for = (
        "Image and signed Integrated Gradients. Look for green where a person would look too."
        if is_ig
        else "Image, Grad-CAM and overlay. Look for heat on the thing, not beside it."
    )
    page = Page(f"gallery-{method}", look_for)
    names, cells = store.class_names, []
    for row, why in rows.items():
        record = cast(pd.Series, table.loc[row])
        label, prediction = names[int(record["label"])], names[int(record["prediction"])]
        told = label if record["correct"] else f"{label}, taken for {prediction}"
        if is_ig:
            trust = f"gap {record['gap']:+.3f}, error {record['quadrature_error']:.3f}"
            trust += "" if record["converged"] else ", not converged"
            strip = attribution_strip(store.image[row], store.attributions([row])[0])
        else:
            trust = f"maximum {record['cam_max']:.2g}" if record["cam_max"] > 0 else "empty map"
            strip = grad_cam_strip(store.image[row], store.maps([row])[0])
        cells.append(([row, why, told, f"{record['confidence']:.1%}", trust], strip, f"row {row}, {told}"))
    page.gallery(["row", "why", "class", "confidence", "trust"], cells)
    page.text(HOW_TO_READ)
    page.publish()


def _publish_night(plan: Plan, result: NightResult, picture: Figure) -> None:
    page = Page("night", "The night in one page. Look at the verdict first.")
    page.heading(f"{result.verdict}")
    facts = {
        "dataset": f"{plan.dataset.name} {plan.dataset.version}",
        "model": plan.model.name,
        "accuracy": f"{result.accuracy:.4f}",
        "images explained": f"{result.n_rows:,} (rows {plan.start} to {plan.stop - 1})",
        "gradients an image": f"{result.gradients_per_image:.1f}",
        "converged": f"{result.converged_share:.2%}",
        "worst gap": f"{result.worst_gap:.4f}",
        "empty Grad-CAM maps": f"{result.n_zero_maps:,} ({result.n_zero_maps / result.n_rows:.1%})",
        "audit": result.audit,
        "seconds": ", ".join(f"{stage} {seconds:.0f}" for stage, seconds in result.stage_seconds.items()),
        "store": f"{result.store} ({result.store_bytes / 1e6:.1f} MB)",
        "pictures": result.gallery,
        "report": result.store.with_name(REPORT_NAME),
    }
    page.table([{"what": what, "value": value} for what, value in facts.items()])
    page.text("Load it:")
    page.code(
        f'from storage import open_store\n\nwith open_store("{result.store}") as store:\n    print(store.table())'
    )
    page.text(HOW_TO_READ)
    page.figure(picture, "Images, Integrated Gradients and Grad-CAM of some rows", thumbnail=True)
    page.text(f"Night {escape(result.night_id)}.")
    page.publish()
