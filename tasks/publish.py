"""Publish: the pictures of the night, its galleries and its summary page, after the store is sealed and audited."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from prefect import task
from prefect.logging import get_run_logger

from storage import AttributionStore, open_store
from storage.durable import make_folder, replacing
from storage.pictures import row_figures
from tasks.config import GalleryConfig
from tasks.evaluate import Evaluation
from tasks.events import emit_sealed
from tasks.figures import confusion_figure, curves_figure
from tasks.pages.class_means import class_means_page
from tasks.pages.galleries import grad_cam_page, integrated_gradients_page, misclassified_page
from tasks.pages.night import night_page
from tasks.pictures import choose_rows, summary
from tasks.plan import Plan
from tasks.progress import Progress, report
from tasks.report import write_report
from tasks.result import NightResult

__all__ = ["publish"]

DPI = 110
PAGE_COLUMNS = 5


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
    """Writes the night's pictures and report.html, uploads its last pages, `night` among them, and tells automations.

    Raises OSError if the pictures cannot be written, saying that the night itself is safe.
    """
    with open_store(result.store) as store:
        rows = choose_rows(store.table(), gallery)
        try:
            if gallery.draw:
                _write_pictures(store, plan, evaluation, rows, make_folder(result.gallery))
                write_report(store, result.model_dump(mode="json"), evaluation, plan.model.history)
        except OSError as error:
            raise OSError(
                error.errno,
                f"night {result.night_id} is sealed, but its pictures cannot be written to "
                f"{result.gallery} ({error.strerror}); mend that and run `nightlens run --resume`",
            ) from error
        integrated_gradients_page(store, rows).publish()
        grad_cam_page(store, rows).publish()
        misclassified_page(store, gallery.mistakes).publish()
        class_means_page(store).publish()
        night_page(plan, result, partial(summary, store, rows, PAGE_COLUMNS)).publish()
    emit_sealed(result)


def _write_pictures(
    store: AttributionStore, plan: Plan, evaluation: Evaluation, rows: dict[int, str], folder: Path
) -> None:
    total = 2 * len(rows) + 2 + bool(plan.model.history)
    for done, (name, figure) in enumerate(_figures(store, plan, evaluation, rows), start=1):
        with replacing(folder / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png", dpi=DPI)
        report(Progress(stage="publish", done=done, total=total, unit="pictures"))
    get_run_logger().info("%d pictures in %s", total, folder)
