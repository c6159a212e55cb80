"""The stores of earlier nights that a night can be compared with."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path

from prefect.logging import get_run_logger
from pydantic import ValidationError

from storage import AttributionStore, Catalog, StoreError, open_store
from tasks.night.alert import promoted_before
from tasks.worth.assessment import recorded_assessment
from tasks.worth.drift.drift_floor import ClassChange
from tasks.worth.drift.store_drift import OtherImages, common_rows, same_settings

__all__ = ["earlier_changes", "last_comparable"]

MOST_NIGHTS = 60


@contextmanager
def last_comparable(root: Path, night_id: str, store: AttributionStore) -> Iterator[AttributionStore | None]:
    """The store of the last promoted night before this one that explained the same images, score and baseline; None without
    one that can be read.
    """
    catalog = Catalog(root)
    with ExitStack() as opened:
        found = None
        for night in islice(promoted_before(catalog, night_id), MOST_NIGHTS):
            before = _opened(catalog, night.night_id, store)
            if before is not None:
                found = opened.enter_context(before)
                break
        yield found


def _opened(catalog: Catalog, night_id: str, store: AttributionStore) -> AttributionStore | None:
    """The store of a night, if it can be compared; else it is closed again."""
    try:
        before = open_store(catalog.night_dir(night_id))
    except StoreError as error:
        get_run_logger().warning("nothing is compared with night %s: %s", night_id, error)
        return None
    try:
        common_rows(before, store)
        if same_settings(before, store):
            return before
    except OtherImages:
        pass
    except StoreError as error:
        get_run_logger().warning("nothing is compared with night %s: %s", night_id, error)
    before.close()
    return None


def earlier_changes(root: Path, night_id: str, store: AttributionStore) -> list[Mapping[int, ClassChange]]:
    """Of earlier nights on the same dataset with the same settings, each that had another model than the night before it and
    was no alarm.
    """
    catalog, found = Catalog(root), list[Mapping[int, ClassChange]]()
    for night in islice(promoted_before(catalog, night_id), MOST_NIGHTS):
        if "reasons-changed" in night.warned_of or night.dataset_sha256 != store.attributes["dataset_sha256"]:
            continue
        try:
            with open_store(catalog.night_dir(night.night_id)) as before:
                drift = recorded_assessment(before).drift
                if drift is not None and same_settings(before, store):
                    found.append(drift.changes)
        except (StoreError, ValidationError) as error:
            get_run_logger().warning(
                "what changed in night %s cannot be read: %s", night.night_id, str(error).splitlines()[0]
            )
    return found
