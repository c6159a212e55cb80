"""Nights whose model changed: beside a floor of reference networks, in the store, on a page, by `nightlens compare`."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command import nightlens
from flows.floor import floor
from flows.nightly import NightResult, nightly
from marked_squares import CLASSES, save_squares
from night_record import recorded
from small_night import small_night
from storage import AttributionStore, open_store, verify_store
from tasks.config import DatasetConfig, DriftConfig, ModelConfig, RunConfig
from tasks.models.registry import list_models
from tasks.worth.assessment import recorded_assessment
from tasks.worth.drift.night_drift import NO_FLOOR

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]
SEEDS = (1000, 1001, 1002)
RECIPE = {"epochs": 6, "batch_size": 4, "shift": 0.0, "flip": False}


class Nights:
    """A root with a floor, and nights of a seed, of another, of that again, and of the first network as a given model."""

    def __init__(self, folder: Path):
        self.root, self.dataset = folder / "data", save_squares(folder)
        self.floor = floor(
            drift=DriftConfig(reference_seeds=len(SEEDS)),
            dataset=DatasetConfig(source=str(self.dataset)),
            model=ModelConfig(**RECIPE, seed=0),
            run=RunConfig(root=self.root),
        )
        self.trained = {record.training["seed"] for record in list_models(self.root / "models", print)}
        self.before = self.night(seed=0)
        self.after = self.night(seed=1)
        self.again = self.night(seed=1)
        with open_store(self.before.store) as store:
            configuration: Any = store.attributes["configuration"]
        self.apart = self.night(seed=0, run={"move_latest": False})
        given = Path(shutil.copy(configuration["resolved"]["model_path"], folder / "given.keras"))
        self.given = self.night(source=str(given))

    def night(self, run: dict[str, Any] | None = None, **model: Any) -> NightResult:
        settings = {"worth": {"level": "full", "rows": 16}, "explanation": {"part_rows": 64}}
        settings["run"] = {"rows": None} | (run or {})
        own = model if "source" in model else {"source": "auto", **RECIPE, **model}
        return nightly(**small_night(self.root, "auto", self.dataset, model=own, **settings))


@pytest.fixture(scope="module")
def nights(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Nights:
    return Nights(tmp_path_factory.mktemp("drift-nights"))


@pytest.fixture
def after(nights: Nights) -> Iterator[AttributionStore]:
    with open_store(nights.after.store) as store:
        yield store


def test_the_floor_trains_networks_of_other_seeds_and_compares_each_two(nights: Nights) -> None:
    assert nights.floor.seeds == SEEDS
    assert nights.trained == {0, *SEEDS}
    assert {pair.seeds for pair in nights.floor.pairs} == {(1000, 1001), (1000, 1002), (1001, 1002)}
    assert nights.floor.n_rows == 240
    assert nights.floor.shares
    assert all(0 < share <= 1 for share in nights.floor.shares.values())


def test_a_night_with_a_new_model_is_compared_beside_the_floor(nights: Nights, after: AttributionStore) -> None:
    drift = recorded_assessment(after).drift
    assert drift is not None
    assert drift.compared_with == nights.before.night_id
    assert drift.floor.shares == nights.floor.shares
    assert drift.floor.left_out == nights.floor.left_out
    limit = max(1.5, drift.floor.left_out or 0)
    warned = {warning.kind for warning in nights.after.warnings}
    assert ("reasons-changed" in warned) == any(ratio > limit for ratio in drift.ratios.values())


def test_its_store_has_each_rows_prediction_before_and_how_alike_the_reasons_are(
    nights: Nights, after: AttributionStore
) -> None:
    assert verify_store(nights.after.store) == ()
    with open_store(nights.before.store) as before:
        names = [before.class_names[number] for number in before.predictions]
        assert after.table()["prediction_before"].tolist() == names
        row = int(after.row_numbers[7])
        heats = [
            store.attributions([row], "predicted")[0].sum(axis=-1).reshape(8, 4, 8, 4).sum(axis=(1, 3))
            for store in (before, after)
        ]
        norms = [np.linalg.norm(heat) for heat in heats]
        cosine = float((heats[0] * heats[1]).sum() / np.prod(norms)) if np.prod(norms) else 0.0
    assert after.table()["likeness"][row] == pytest.approx(cosine, abs=1e-5)
    assert after.column("drift/mean_share").shape == (len(CLASSES), 8, 8)


def test_the_page_drift_is_there_when_the_model_changed_and_not_otherwise(nights: Nights) -> None:
    pages = {
        name: {artifact.key: artifact.data for artifact in recorded(night.flow_run_id, n_tasks=1)[2]}
        for name, night in (("before", nights.before), ("after", nights.after), ("again", nights.again))
    }
    assert [name for name in pages if "drift" in pages[name]] == ["after"]
    assert nights.before.night_id in pages["after"]["drift"]
    assert "times the floor" in pages["after"]["drift"]


def test_an_unchanged_model_and_a_night_on_demand_are_not_compared(nights: Nights) -> None:
    for night in (nights.before, nights.again, nights.apart):
        with open_store(night.store) as store:
            assert recorded_assessment(store).drift is None
            assert not store.has_drift


def test_a_given_model_has_no_recipe_and_so_no_floor_yet(nights: Nights) -> None:
    with open_store(nights.given.store) as store:
        drift = recorded_assessment(store).drift
    assert drift is not None
    assert drift.compared_with == nights.again.night_id
    assert NO_FLOOR in drift.floor.about
    assert "1 so far" in drift.floor.about
    assert drift.ratios == {}


def test_compare_shows_changes_as_multiples_of_the_floor(nights: Nights, tmp_path: Path) -> None:
    done = nightlens("compare", str(nights.before.store), str(nights.after.store), "--to", str(tmp_path / "d.html"))
    assert done.returncode == 0, done.stderr
    assert "3 networks that differ in their seed alone" in done.stdout
    assert "x floor" in done.stdout
    assert "times the floor" in (tmp_path / "d.html").read_text()
