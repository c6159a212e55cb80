"""Nights that measure what their explanations are worth: what they store, say, keep and do not measure twice."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from example_store import chunk_offset, flip_byte
from flows.nightly import NightResult, nightly
from marked_squares import CLASSES, PLACES, SIDE, save_squares, square_network
from night_root import left_behind
from small_night import small_night
from storage import AttributionStore, Catalog, open_store, verify_store
from storage.nights.night_entries import begin_run, read_night
from storage.nights.night_records import read_run
from tasks.night.progress import Progress, listening
from tasks.worth.assessment import recorded_assessment
from tasks.worth.controls_table import CONTROLS, METRICS
from tasks.worth.known.kept_results import FOLDER

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]
NEVER = {"shortcut": 1, "uninformative": 0, "sanity": 1, "canary": 0}
ALWAYS = {"shortcut": 0, "uninformative": 1e9, "sanity": 0, "canary": 1}
WORTH_KINDS = {"shortcut", "uninformative", "sanity", "known-answer"}


class Nights:
    """A root with nights of marked squares, one after the other: of a model, again with other alerts, and of another model."""

    def __init__(self, folder: Path):
        self.root, self.dataset = folder / "data", save_squares(folder)
        self.models = [folder / f"{name}.keras" for name in ("ours", "other")]
        for path, strength in zip(self.models, (1.0, 0.7), strict=True):
            square_network(strength).save(path)
        self.reports = list[Progress]()
        self.kept = [self._kept()]
        with listening(self.reports.append):
            self.first = self.night(self.models[0])
        self.kept.append(self._kept())
        self.again = self.night(self.models[0], alert=NEVER)
        self.kept.append(self._kept())
        self.other = self.night(self.models[1], alert=ALWAYS)
        self.kept.append(self._kept())

    def night(self, model: Path, **changed: Any) -> NightResult:
        settings = {"worth": {"level": "full"}, "explanation": {"part_rows": 64}, "run": {"rows": None}} | changed
        return nightly(**small_night(self.root, model, self.dataset, **settings))

    def _kept(self) -> dict[str, tuple[int, int]]:
        files = (self.root / FOLDER).glob("*")
        return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


@pytest.fixture(scope="module")
def nights(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Nights:
    return Nights(tmp_path_factory.mktemp("worth-nights"))


@pytest.fixture
def opened(nights: Nights) -> Iterator[Callable[[NightResult], AttributionStore]]:
    stores = list[AttributionStore]()

    def open_one(result: NightResult) -> AttributionStore:
        stores.append(open_store(result.store))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


def kinds(result: NightResult) -> set[str]:
    return {warning.kind for warning in result.warnings} & WORTH_KINDS


# What is stored.


def test_all_that_was_measured_is_in_the_store_and_no_number_is_nan(nights: Nights, opened) -> None:
    assert verify_store(nights.first.store) == ()
    store = opened(nights.first)
    json.dumps(store.attributes["worth"], allow_nan=False)
    found = recorded_assessment(store)
    titles = [method.title for method in store.methods]
    assert [each.name for each in found.controls.judged] == [*titles, *CONTROLS]
    assert all(set(each.metrics) == set(METRICS) for each in found.controls.judged)
    assert found.controls.n_rows == 128
    assert found.sanity.n_rows == 50
    assert found.graft.error < 1e-6
    assert found.canary.accuracy[0] >= 0.95
    assert found.canary.contrast("Integrated Gradients") > 0.5
    assert found.drift is None
    assert nights.first.worth == found.relevance_gains


def test_the_mark_is_a_strategy_of_its_class_and_makes_the_class_alone(nights: Nights, opened) -> None:
    store = opened(nights.first)
    table = store.clusters()
    of_class = table[table["class"] == 1]
    assert len(of_class) == 2
    rows = np.arange(len(store))
    with_mark = rows[(rows % len(CLASSES) == 1) & (rows // 3 % 2 == 0)]
    (name,) = (name for name in of_class["name"] if set(store.rows(cluster=name)) == set(with_mark))
    line = of_class[of_class["name"] == name].iloc[0]
    assert line["transplant_score"] == 1
    assert line["transplant_control"] < 0.1
    assert line["region_share"] <= 0.05
    number = table.index[table["name"] == name][0]
    region = store.column("clusters/region")[number]
    mark = np.zeros((SIDE, SIDE), bool)
    mark[PLACES["mark"]] = True
    assert (region & mark).sum() == mark.sum()
    notes = recorded_assessment(store).strategies.notes
    assert set(notes) == set(range(3)) - set(table["class"])


@pytest.mark.parametrize("level", ["none", "rows"])
def test_a_lower_level_measures_only_what_rows_have(nights: Nights, opened, level: str) -> None:
    reports = list[Progress]()
    with listening(reports.append):
        result = nights.night(nights.models[0], worth={"level": level}, run={"rows": "0:20"})
    store = opened(result)
    assert store.attributes["worth"] == {}
    assert not store.has_clusters
    assert np.isfinite(store.table()["relevance_gain"]).all()
    assert result.relevance_gain == pytest.approx(store.table()["relevance_gain"].mean())
    assert result.worth == {}
    assert kinds(result) == set()
    assert {report.unit for report in reports if report.stage == "assess"} == {"steps"}


def test_progress_of_all_that_is_measured_goes_up_to_all_of_it(nights: Nights) -> None:
    by_note: dict[str, list[int]] = {}
    for report in nights.reports:
        if report.stage == "assess" and report.unit == "%":
            assert report.total == 100
            by_note.setdefault(report.note, []).append(report.done)
    assert list(by_note) == ["controls", "reading attributions", "strategies", "random networks", "canary networks"]
    for note, shares in by_note.items():
        assert shares == sorted(shares), note
        assert shares[-1] == 100, note


# What is not measured twice.


def test_known_answers_are_measured_once_a_model_and_canaries_once_for_all(nights: Nights) -> None:
    none, first, again, other = nights.kept
    assert none == {}
    assert sorted(name.partition("-")[0] for name in first) == ["canary", "graft", "sanity"]
    assert again == first
    added = {name: file for name, file in other.items() if name not in first}
    assert {name: file for name, file in other.items() if name in first} == first
    assert sorted(name.partition("-")[0] for name in added) == ["graft", "sanity"]


def test_what_was_measured_before_is_recorded_again(nights: Nights, opened) -> None:
    first, again, other = (recorded_assessment(opened(night)) for night in (nights.first, nights.again, nights.other))
    assert (again.sanity, again.graft, again.canary) == (first.sanity, first.graft, first.canary)
    assert again.controls == first.controls
    assert other.canary == first.canary
    assert other.sanity != first.sanity


def test_another_sample_is_measured_anew(nights: Nights, opened) -> None:
    """The random networks explain rows of the sample: another sample, other rows."""
    result = nights.night(nights.models[0], worth={"level": "full", "rows": 30})
    found = recorded_assessment(opened(result))
    assert found.controls.n_rows == 30
    assert found.sanity.n_rows == 30


def test_a_night_that_died_after_it_was_sealed_is_not_assessed_again(nights: Nights) -> None:
    catalog, night = Catalog(nights.root), nights.again.night_id
    folder = catalog.night_dir(night)
    run = read_run(folder)
    begin_run(catalog, night, parameters=run["parameters"], plan=run["plan"])
    (folder / "night.json").unlink()
    assert read_night(catalog, night).can_resume
    before, reports = left_behind(nights.root), list[Progress]()
    with listening(reports.append):
        result = nights.night(nights.models[0], alert=NEVER, run={"rows": None, "resume": night})
    assert result.night_id == night
    assert {report.unit for report in reports if report.stage == "assess"} == {"steps"}
    assert result.worth == nights.first.worth
    after = left_behind(nights.root)
    store = f"nights/{night}/attributions.h5"
    assert after[store] == before[store]


# What is to be looked at.


def test_a_shortcut_is_warned_of_by_default_and_nothing_else(nights: Nights) -> None:
    assert kinds(nights.first) == {"shortcut"}
    (warning,) = (warning for warning in nights.first.warnings if warning.kind == "shortcut")
    assert (warning.value, warning.threshold) == (1, 0.5)
    assert "100% of images that are called something else become" in warning.message
    assert warning.message in nights.first.verdict


def test_thresholds_decide_what_is_warned_of(nights: Nights) -> None:
    assert kinds(nights.again) == set()
    assert kinds(nights.other) == WORTH_KINDS
    assert {w.threshold for w in nights.other.warnings if w.kind == "known-answer"} == {1}


@pytest.mark.parametrize("dataset", ["clusters/mean_heat", "integrated_gradients/attribution"])
def test_a_damaged_night_before_fails_nothing_and_is_said(
    nights: Nights, caplog: pytest.LogCaptureFixture, dataset: str
) -> None:
    last = Catalog(nights.root).list_nights()[-1] / "attributions.h5"
    with open_store(last) as store:
        other = nights.models[store.attributes["model_name"] == nights.models[0].stem]
    flip_byte(last, chunk_offset(last, dataset, 0))
    result = nights.night(other)
    assert kinds(result) <= {"shortcut"}
    assert f"night {last.parent.name}" in caplog.text


# What is too little, or too plain.


@pytest.mark.parametrize("n", [1, 8])
def test_a_night_of_a_few_rows_says_what_is_too_few(nights: Nights, opened, n: int) -> None:
    result = nights.night(nights.models[0], run={"rows": f"0:{n}"})
    store = opened(result)
    json.dumps(store.attributes["worth"], allow_nan=False)
    found = recorded_assessment(store)
    assert found.controls.n_rows == n
    assert not store.has_clusters
    assert found.strategies.notes == {
        number: f"too few rows: {n_rows}, 50 are needed" if n_rows else "no row is called it"
        for number, n_rows in enumerate(np.bincount(store.predictions, minlength=len(CLASSES)))
    }
    gain = found.controls.judged[0].metrics["relevance_gain"]
    assert (gain.mean is None) == (n == 1)
    assert gain.note == ("too few rows: defined in 1 of 1, 8 are needed" if n == 1 else "")
    assert (found.sanity.medians == ()) == (n == 1)
    assert "shortcut" not in kinds(result)


def test_a_night_of_black_images_says_what_is_not_defined(tmp_path: Path) -> None:
    """Images that are the baseline: attributions are zero, all rows are called one class, and the others are called by none."""
    images = np.zeros((60, SIDE, SIDE, 1), np.uint8)
    labels = np.arange(60) % len(CLASSES)
    np.savez(tmp_path / "black.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    square_network().save(tmp_path / "model.keras")
    settings = {"worth": {"level": "full"}, "run": {"rows": None}, "gallery": {"draw": True}}
    result = nightly(**small_night(tmp_path / "data", tmp_path / "model.keras", tmp_path / "black.npz", **settings))
    assert kinds(result) == {"uninformative"}
    with open_store(result.store) as store:
        json.dumps(store.attributes["worth"], allow_nan=False)
        found = recorded_assessment(store)
        assert set(store.predictions) == {0}
        assert not store.has_clusters
    assert found.strategies.notes == {0: "too few of its rows have attributions other than 0"} | dict.fromkeys(
        (1, 2), "no row is called it"
    )
    assert found.sanity.note == "too few rows: defined in 0 of 50, 8 are needed"
    by_name = {each.name: each for each in found.controls.judged}
    assert {each.metrics["mu_fidelity"].note for each in by_name.values()} == {"not defined in any of 60 rows"}
    assert {each.metrics["relevance_gain"].mean for each in by_name.values()} == {0}
