"""Alert: what of a sealed night is to be looked at, by thresholds that are settings."""

import json
from collections.abc import Iterator, Sequence
from itertools import islice

import pandas as pd
from prefect.logging import get_run_logger
from pydantic import BaseModel, ConfigDict

from storage import METHODS, Catalog
from storage.file.schema import BY_PATH
from storage.nights.night_records import NIGHT_RECORD
from tasks.config import AlertConfig
from tasks.night.result import NightResult, NightWarning, Pace

__all__ = [
    "EarlierNight",
    "count_zero_maps",
    "earlier_night",
    "earlier_paces",
    "earlier_worth",
    "find_warnings",
    "promoted_before",
]

ROUNDING = 1e-9


class EarlierNight(BaseModel):
    """A night that was promoted before, as far as its record is compared."""

    model_config = ConfigDict(frozen=True)

    night_id: str
    accuracy: float
    dataset_sha256: str = ""
    dataset_split: str = ""
    warnings: tuple[NightWarning, ...] = ()
    worth: dict[str, float] = {}
    pace: Pace | None = None

    @property
    def warned_of(self) -> set[str]:
        """Kinds of its warnings."""
        return {warning.kind for warning in self.warnings}


def earlier_night(catalog: Catalog, night_id: str, *, dataset_sha256: str, dataset_split: str) -> EarlierNight | None:
    """The last promoted night before this one with the same images and split, if there is one.

    Several datasets may share a root, so it need not be the one that `latest` points to. A record that cannot be read
    is logged and passed over; one on demand, or from before records named their dataset, is passed over.
    """
    return next(_earlier(catalog, night_id, dataset_sha256, dataset_split), None)


def earlier_worth(catalog: Catalog, night: NightResult, most: int = 30) -> list[tuple[str, dict[str, float]]]:
    """Of such nights, at most so many, the oldest first: id, and relevance gain of each method and control by its name."""
    nights = islice(_earlier(catalog, night.night_id, night.dataset_sha256, night.dataset_split), most)
    return [(night.night_id, night.worth) for night in nights][::-1]


def earlier_paces(catalog: Catalog, night_id: str, work: str, most: int = 10) -> list[Pace]:
    """Of the promoted nights before this one that had the same work, the newest first."""
    paces = (night.pace for night in promoted_before(catalog, night_id))
    return list(islice((pace for pace in paces if pace and pace.work == work), most))


def _earlier(catalog: Catalog, night_id: str, dataset_sha256: str, dataset_split: str) -> Iterator[EarlierNight]:
    """The newest first."""
    for night in promoted_before(catalog, night_id):
        if (night.dataset_sha256, night.dataset_split) == (dataset_sha256, dataset_split):
            yield night


def promoted_before(catalog: Catalog, night_id: str) -> Iterator[EarlierNight]:
    """Every promoted night before this one, on whatever images, the newest first."""
    for folder in reversed(catalog.list_nights()):
        record = folder / NIGHT_RECORD
        if folder.name >= night_id or not record.is_file():
            continue
        try:
            about = json.loads(record.read_text(encoding="utf-8"))
            if about.get("moves_latest", True):
                yield EarlierNight.model_validate(about)
        except (OSError, ValueError, AttributeError) as error:
            get_run_logger().warning("%s cannot be compared with: %s", record, error)


def count_zero_maps(table: pd.DataFrame) -> dict[str, int]:
    """How many maps are empty, by the title of their method; none where there are no maps. table: AttributionStore.table()."""
    peaks = {method.title: table[BY_PATH[method.peak].name] for method in METHODS if method.is_map}
    return {title: int((peak == 0).sum()) for title, peak in peaks.items() if peak.notna().any()}


def find_warnings(
    table: pd.DataFrame,
    *,
    accuracy: float,
    earlier: EarlierNight | None,
    audit: str,
    remarks: Sequence[NightWarning],
    alert: AlertConfig,
) -> tuple[NightWarning, ...]:
    """What is to be looked at, in the order in which a person should.

    table: as of AttributionStore.table(). audit: the audit's verdict. remarks: what was found odd about dataset and model.
    """
    found = list(remarks)
    n_rows, n_open = len(table), int((table["converged"] == 0).sum())
    drop = earlier.accuracy - accuracy if earlier else 0.0
    if earlier and drop > alert.accuracy_drop + ROUNDING:
        fell = f"accuracy fell by {100 * drop:.1f} points, from {earlier.accuracy:.4f} in night {earlier.night_id}"
        found.append(NightWarning(kind="accuracy-drop", message=fell, value=drop, threshold=alert.accuracy_drop))
    if n_open > alert.unconverged * n_rows:
        message = f"{n_open} of {n_rows} rows did not converge"
        found.append(
            NightWarning(kind="unconverged", message=message, value=n_open / n_rows, threshold=alert.unconverged)
        )
    for title, n_zero in count_zero_maps(table).items():
        if n_zero > alert.zero_maps * n_rows:
            message = f"{n_zero} of {n_rows} {title} maps are empty"
            value = n_zero / n_rows
            found.append(NightWarning(kind="zero-maps", message=message, value=value, threshold=alert.zero_maps))
    if audit != "passed":
        found.append(NightWarning(kind="not-audited", message=audit))
    return tuple(found)
