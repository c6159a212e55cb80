"""A night that grows slower: what is compared with what, and from when on it is a warning."""

import json
from pathlib import Path
from typing import Any

import pytest

from example_store import ATTRIBUTES
from reported_night import CONFIGURATION, N_ROWS, seal_example
from storage import Catalog
from tasks.config import AlertConfig
from tasks.night.alert import earlier_paces
from tasks.night.pace import find_slowness, measure_pace
from tasks.night.result import NightResult, Pace
from tasks.parts.compute import PartReport
from tasks.running_night import Night

SECONDS = {"ingest": 500.0, "train": 900.0, "evaluate": 4.0, "explain": 90.0, "assess": 300.0, "seal": 6.0}
ABOUT = ATTRIBUTES | {
    "configuration": CONFIGURATION | {"model": {"source": "auto"}, "run": {"runner": "threads", "n_workers": 2}}
}


def measured(about: dict[str, Any] | None = None, *, n_rows: int = 1000, n_computed: int = 1000) -> Pace | None:
    return measure_pace(ABOUT | (about or {}), SECONDS, n_rows=n_rows, n_computed=n_computed)


def paces(*seconds: float, n_rows: int = 1000) -> list[Pace]:
    return [Pace(work="same", n_rows=n_rows, seconds_per_row=each) for each in seconds]


def warned(tonight: float, earlier: list[float], *, n_rows: int = 1000, **alert: float) -> list[str]:
    pace = Pace(work="same", n_rows=n_rows, seconds_per_row=tonight)
    return [found.message for found in find_slowness(pace, paces(*earlier), AlertConfig(**alert))]


def test_only_what_goes_over_all_rows_every_night_counts() -> None:
    pace = measured()
    assert pace is not None
    assert pace.seconds_per_row == pytest.approx(0.1)


def test_a_night_that_found_parts_of_another_has_no_pace() -> None:
    assert measured(n_computed=999) is None
    assert measure_pace(ABOUT, {"explain": 90.0}, n_rows=1000, n_computed=1000) is None


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({}, True),
        ({"model_sha256": "another", "git_commit": "another", "created_utc": "2026-11-24T02:00:00Z"}, True),
        ({"dataset_sha256": "another"}, False),
        ({"dataset_split": "train"}, False),
        ({"device": "NVIDIA H200"}, False),
        ({"precision": "tf32"}, False),
        ({"configuration": CONFIGURATION | {"model": {"source": "mine.keras"}}}, False),
        ({"configuration": ABOUT["configuration"] | {"run": {"runner": "threads", "n_workers": 4}}}, False),
        ({"configuration": ABOUT["configuration"] | {"integrated_gradients": {"n_max": 1024}}}, False),
    ],
    ids=["same", "trained anew", "images", "split", "device", "precision", "model", "workers", "settings"],
)
def test_the_work_is_what_was_asked_for_and_where(changed: dict[str, Any], same: bool) -> None:
    tonight, before = measured(changed), measured()
    assert tonight and before
    assert (tonight.work == before.work) is same


def test_other_rows_are_other_work() -> None:
    fewer, all_rows = measured(n_rows=999, n_computed=999), measured()
    assert fewer and all_rows
    assert fewer.work != all_rows.work


@pytest.mark.parametrize(
    ("tonight", "earlier", "alert", "expected"),
    [
        (0.16, [0.1] * 10, {}, True),
        (0.15, [0.1] * 10, {}, False),
        (0.16, [0.1] * 4, {}, False),
        (0.16, [0.1] * 5, {}, True),
        (0.16, [0.2, 0.1, 0.2, 0.1, 0.1], {}, True),
        (0.16, [0.2, 0.1, 0.2, 0.2, 0.1], {}, False),
        (0.16, [0.1] * 10, {"duration": 1.7}, False),
        (9.0, [0.1] * 10, {"duration": 0}, False),
        (0.029, [0.001] * 10, {}, False),
    ],
    ids=[
        *("slower", "by half", "too few", "enough", "median", "slow before, too", "allowed", "never"),
        "half a minute at least",
    ],
)
def test_from_when_on_it_is_a_warning(tonight: float, earlier: list[float], alert: dict, expected: bool) -> None:
    assert bool(warned(tonight, earlier, **alert)) is expected


def test_the_warning_is_a_sentence_with_both_numbers() -> None:
    (said,) = warned(0.1634, [0.1, 0.1, 0.1, 0.05, 0.2])
    assert said == (
        "a row took 0.163 s to evaluate, explain and seal, where the last 5 such nights took 0.1 s in the median"
    )


def test_a_night_without_a_pace_is_not_compared() -> None:
    assert list(find_slowness(None, paces(*[0.1] * 10), AlertConfig())) == []


# On the disk.


def sealed(root: Path, night_id: str) -> Path:
    folder = Catalog(root).night_dir(night_id)
    folder.mkdir(parents=True)
    return seal_example(folder, configuration=ABOUT["configuration"])


def result_of(store: Path, explain_s: float, *, reused: bool = False, **how: Any) -> NightResult:
    night = Night(store.parent.name, "2026-11-23T02:00:00+00:00", "")
    night.stage_seconds = SECONDS | {"explain": explain_s}
    parts = [PartReport(start=0, stop=8, reused=reused), PartReport(start=8, stop=N_ROWS, reused=False)]
    return night.result(store, accuracy=0.5, audit="passed", warnings=(), parts=parts, **how)


def kinds(result: NightResult) -> list[str]:
    return [warning.kind for warning in result.warnings]


@pytest.mark.usefixtures("no_run_logger")
def test_a_night_is_compared_with_the_last_ten_that_had_its_work(tmp_path: Path) -> None:
    """Older ones, ones that found parts, ones on demand and ones of other work among them would make it quick."""
    first = sealed(tmp_path, "20261101T020000Z-000000")
    result = result_of(first, 90.0)
    assert result.pace and result.pace.seconds_per_row == pytest.approx(100 / N_ROWS)
    assert "duration" not in kinds(result)

    def record(day: int, explain_s: float, **changed: Any) -> None:
        folder = Catalog(tmp_path).night_dir(f"202611{day:02}T020000Z-000000")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "attributions.h5").touch()
        about = json.loads(result_of(first, explain_s).model_dump_json()) | {"night_id": folder.name} | changed
        (folder / "night.json").write_text(json.dumps(about))

    other = result.pace.model_copy(update={"work": "other", "seconds_per_row": 9.0}).model_dump()
    for day in range(2, 6):
        record(day, 900.0)
    for day in range(6, 16):
        record(day, 90.0)
    record(16, 900.0, moves_latest=False)
    for day in range(17, 23):
        record(day, 900.0, pace=None)
        record(day + 6, 900.0, pace=other)
    work, tonight = result.pace.work, "20261129T020000Z-000000"
    found = earlier_paces(Catalog(tmp_path), tonight, work)
    assert [pace.seconds_per_row for pace in found] == [pytest.approx(100 / N_ROWS)] * 10
    store = sealed(tmp_path, tonight)
    slow = result_of(store, 190.0)
    assert kinds(slow)[-1] == "duration"
    (warning,) = (warning for warning in slow.warnings if warning.kind == "duration")
    assert (warning.value, warning.threshold) == (pytest.approx(2.0), 1.5)
    assert warning.message in slow.verdict
    assert "duration" not in kinds(result_of(store, 130.0))
    assert "duration" not in kinds(result_of(store, 190.0, reused=True))
    assert result_of(store, 190.0, reused=True).pace is None
    assert "duration" not in kinds(result_of(store, 190.0, moves_latest=False))
