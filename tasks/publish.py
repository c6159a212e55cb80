"""Publish: the pictures of the night, its galleries and, last, its summary page, after the store is sealed and audited."""

import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from prefect import task
from prefect.logging import get_run_logger

from storage import AttributionStore, Catalog, open_store
from storage.draw.figures import render
from storage.draw.row_pictures import row_pictures
from storage.file.disk.durable import make_folder, replacing
from tasks.config import GalleryConfig, WorthConfig
from tasks.evaluate import Evaluation
from tasks.night.alert import earlier_worth
from tasks.night.class_means import class_means
from tasks.night.events import emit_sealed
from tasks.night.progress import Progress, report
from tasks.night.result import NightResult
from tasks.pages.chosen_rows import choose_rows, summary
from tasks.pages.class_means_page import class_means_page
from tasks.pages.figures.page_figures import confusion_figure, curves_figure
from tasks.pages.gallery_pages import method_pages, misclassified_page
from tasks.pages.night_page import night_page
from tasks.pages.worth.drift_page import drift_page
from tasks.pages.worth.strategies_page import strategies_page
from tasks.pages.worth.worth_page import worth_page
from tasks.parts.plan import Plan
from tasks.report import write_report
from tasks.worth.assessment import recorded_assessment

__all__ = ["amend_report", "announce", "publish"]

DPI = 110
PAGE_COLUMNS = 5

Item = TypeVar("Item")


def _pictures(
    store: AttributionStore, plan: Plan, evaluation: Evaluation, rows: dict[int, str]
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    if plan.model.history:
        yield "training-curves", render(curves_figure(plan.model.history), DPI)
    yield "confusion", render(confusion_figure(np.array(evaluation.confusion), plan.dataset.class_names), DPI)
    yield "summary", render(summary(store, rows), DPI)
    for row, method, pixels in row_pictures(store, list(rows), DPI):
        yield f"row-{row:06d}-{method}", pixels


@task(name="publish")
def publish(
    plan: Plan,
    result: NightResult,
    evaluation: Evaluation,
    gallery: GalleryConfig,
    worth: WorthConfig = WorthConfig(),  # noqa: B008 (frozen)
) -> None:
    """Writes the night's pictures and report.html, and uploads all pages that are left but `night`.

    Raises OSError if the pictures cannot be written, saying that the night itself is safe.
    """
    with open_store(result.store) as store:
        rows, means = choose_rows(store.table(), gallery), class_means(store) if gallery.draw else []
        try:
            if gallery.draw:
                _write_pictures(store, plan, evaluation, rows, make_folder(result.gallery))
                write_report(store, result.model_dump(mode="json"), evaluation, plan.model.history, means=means)
        except OSError as error:
            raise OSError(
                error.errno,
                f"night {result.night_id} is sealed, but its pictures cannot be written to "
                f"{result.gallery} ({error.strerror}); mend that and run `nightlens run --resume`",
            ) from error
        for page in method_pages(store, rows):
            page.publish()
        misclassified_page(store, gallery.mistakes).publish()
        class_means_page(store, means).publish()
        if worth.level != "none":
            earlier = earlier_worth(Catalog(plan.root), result) if result.moves_latest else []
            found = recorded_assessment(store)
            worth_page(store, found, [*earlier, (result.night_id, result.worth)]).publish()
            strategies_page(store, found).publish()
            if found.drift:
                drift_page(store, found.drift, plan.root).publish()


def amend_report(
    plan: Plan, before: NightResult, now: NightResult, evaluation: Evaluation, gallery: GalleryConfig
) -> NightResult:
    """Writes report.html anew where a warning came since, and returns `now`; a log says where that cannot be done."""
    if gallery.draw and now.warnings != before.warnings:
        try:
            with open_store(now.store) as store:
                write_report(store, now.model_dump(mode="json"), evaluation, plan.model.history)
        except OSError as error:
            get_run_logger().warning(
                "report.html is without the last warning: it cannot be written (%s)", error.strerror
            )
    return now


def announce(plan: Plan, result: NightResult, gallery: GalleryConfig) -> None:
    """Uploads the page `night` and emits the night's event: last, for they say how it ended."""
    with open_store(result.store) as store:
        rows = choose_rows(store.table(), gallery)
        night_page(plan, result, partial(summary, store, rows, PAGE_COLUMNS)).publish()
    emit_sealed(result)


def _write_pictures(
    store: AttributionStore, plan: Plan, evaluation: Evaluation, rows: dict[int, str], folder: Path
) -> None:
    def write(picture: tuple[str, NDArray[np.uint8]]) -> None:
        name, pixels = picture
        with replacing(folder / f"{name}.png") as temporary:
            # By runs, as the large pixels of these pictures lie: half the time of the default at the same size.
            Image.fromarray(pixels).save(temporary, "png", dpi=(DPI, DPI), compress_type=zlib.Z_RLE)

    total = len(store.methods) * len(rows) + 2 + bool(plan.model.history)
    for done, _ in enumerate(_one_behind(write, _pictures(store, plan, evaluation, rows)), start=1):
        report(Progress(stage="publish", done=done, total=total, unit="pictures"))
    get_run_logger().info("%d pictures in %s", total, folder)


def _one_behind(work: Callable[[Item], None], items: Iterable[Item]) -> Iterator[None]:
    """Does the work on each item in a thread, while the next item is made; yields after each, and raises what it raises."""
    with ThreadPoolExecutor(1) as thread:
        last: Future[None] | None = None
        for item in items:
            if last:
                yield last.result()
            last = thread.submit(work, item)
        if last:
            yield last.result()
