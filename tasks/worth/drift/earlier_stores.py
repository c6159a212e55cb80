"""The stores of earlier nights that a night can be compared with."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path

from prefect.logging import get_run_logger

from storage import AttributionStore, Catalog, StoreError, open_store
from tasks.night.alert import promoted_before
from tasks.worth.assessment import recorded_assessment
from tasks.worth.drift.drift_floor import ClassChange
from tasks.worth.drift.store_drift import OtherImages, common_rows

__all__ = ["earlier_changes", "last_comparable"]

MOST_NIGHTS = 60


@contextmanager
def last_comparable(root: Path, night_id: str, store: AttributionStore) -> Iterator[AttributionStore | None]:
    """The store of the last promoted night before this one on the same images; None without one that can be read."""
    catalog = Catalog(root)
    with ExitStack() as opened:
        for night in islice(promoted_before(catalog, night_id), MOST_NIGHTS):
            try:
                before = opened.enter_context(open_store(catalog.night_dir(night.night_id)))
                common_rows(before, store)
            except StoreError as error:
                get_run_logger().warning("nothing is compared with night %s: %s", night.night_id, error)
            except OtherImages:
                continue
            else:
                yield before
                return
        yield None


def earlier_changes(root: Path, night_id: str, store: AttributionStore) -> list[Mapping[int, ClassChange]]:
    """Of earlier nights on the same images, each that had another model than the night before it and was no alarm."""
    catalog, found = Catalog(root), list[Mapping[int, ClassChange]]()
    for night in islice(promoted_before(catalog, night_id), MOST_NIGHTS):
        if "reasons-changed" in night.warned_of:
            continue
        try:
            with open_store(catalog.night_dir(night.night_id)) as before:
                drift = recorded_assessment(before).drift
                if drift is not None:
                    common_rows(before, store)
                    found.append(drift.changes)
        except (StoreError, OtherImages):
            continue
    return found
