"""A warning that comes when a night is sealed, promoted and published already; and that goes again, once it was seen to."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect.logging import get_run_logger

from storage import open_store
from storage.file.catalog import REPORT_NAME
from storage.file.disk.durable import replacing
from storage.nights.night_records import NIGHT_RECORD
from storage.nights.training_record import read_history
from tasks.night.evaluation import measure
from tasks.night.outage import note_result
from tasks.night.result import NightResult, NightWarning, verdict_text
from tasks.report import write_report

__all__ = ["add_late_warning", "without_late_warning"]


def add_late_warning(result: NightResult, warning: NightWarning) -> NightResult:
    """The night with one more warning, in its night.json, too."""
    get_run_logger().warning(warning.message)
    warned = result.with_warning(warning)
    warned.write(warned.store.parent)
    note_result(warned)
    return warned


@contextmanager
def without_late_warning(folder: Path, kind: str, start: str) -> Iterator[None]:
    """A night whose night.json and report.html have lost the warnings of a kind, for the block sees to what they tell of.

    start: how the message of such a warning begins. If the block fails both files are what they were.
    """
    record, report = folder / NIGHT_RECORD, folder / REPORT_NAME
    before = {path: path.read_bytes() for path in (record, report) if path.is_file()}
    if f'"{kind}"'.encode() not in before.get(record, b""):
        yield
        return
    result = NightResult.model_validate_json(before[record])
    left = tuple(each for each in result.warnings if not (each.kind == kind and each.message.startswith(start)))
    if left == result.warnings:
        yield
        return
    settled = result.model_copy(update={"warnings": left, "verdict": verdict_text(left)})
    try:
        settled.write(folder)
        if report in before:
            _write_report_again(folder, settled)
        yield
    except BaseException:
        for path, data in before.items():
            with replacing(path) as temporary:
                temporary.write_bytes(data)
        raise


def _write_report_again(folder: Path, result: NightResult) -> None:
    """As `nightlens report` does."""
    with open_store(folder) as store:
        evaluation = measure(store.probabilities, store.labels, tuple(store.class_names), seed=0)
        write_report(store, result.model_dump(mode="json"), evaluation, read_history(store))
