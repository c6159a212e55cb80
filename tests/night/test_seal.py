"""The tasks around the store: what a sealed night says of itself, and that `latest` moves only to a night with a store."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from storage import Catalog, StoreNotFound, open_store
from storage.file.catalog import STORE_NAME
from storage.file.rounding import has_significant_bits
from tasks import config as settings
from tasks.datasets import Dataset
from tasks.parts.compute import compute_part
from tasks.parts.plan import Plan
from tasks.running_night import Night, NightResult
from tasks.seal import promote, seal

MakePlan = Callable[..., Plan]
pytestmark = pytest.mark.usefixtures("no_run_logger")
CONFIGURATION = {
    "dataset": settings.DatasetConfig(),
    "model": settings.ModelConfig(seed=3),
    "run": settings.RunConfig(rows="0:20", root=Path("somewhere")),
}


@pytest.fixture
def plan(make_small_plan: MakePlan, small_plan: Plan, tmp_path: Path) -> Plan:
    """The small plan under a root of its own, with all parts there."""
    shutil.copytree(small_plan.root / "parts", tmp_path / "parts")
    return make_small_plan(tmp_path)


def sealed(plan: Plan, night_id: str = "20261123T020000Z-ab12cd") -> Path:
    return seal.fn(plan, night_id, "2026-11-23T02:00:00+00:00", "flow-run-7", CONFIGURATION)


def test_the_store_lies_in_the_nights_folder_and_holds_every_row(plan: Plan) -> None:
    path = sealed(plan)
    assert path == plan.root / "nights" / "20261123T020000Z-ab12cd" / STORE_NAME
    with open_store(path) as store:
        np.testing.assert_array_equal(store.row_numbers, np.arange(20))
        assert store.class_names == list("0123456789")


def test_the_store_says_where_it_comes_from(plan: Plan) -> None:
    with open_store(sealed(plan)) as store:
        about = store.attributes
    assert about["run_id"] == "20261123T020000Z-ab12cd"
    assert about["created_utc"] == "2026-11-23T02:00:00+00:00"
    assert about["flow_run_id"] == "flow-run-7"
    assert about["digest"] == plan.digest
    assert (about["dataset_name"], about["dataset_split"]) == ("digits", "test")
    assert about["dataset_sha256"] == plan.dataset.sha256
    assert (about["model_name"], about["model_sha256"]) == ("theirs", plan.model.sha256)
    assert about["software"]["tensorflow"]
    assert about["software"]["numpy"] == np.__version__


def test_the_store_holds_every_setting_and_what_became_of_the_automatic_ones(plan: Plan) -> None:
    with open_store(sealed(plan)) as store:
        stored = store.attributes["configuration"]
    for name, group in CONFIGURATION.items():
        assert type(group).model_validate(stored[name]) == group
    resolved = stored["resolved"]
    assert (resolved["grad_cam_layer"], resolved["part_rows"], resolved["training"]) == ("strokes", 8, {})
    assert resolved["transform"] == plan.dataset.transform
    assert (Path(resolved["root"]), Path(resolved["model_path"])) == (plan.root, plan.model.path)
    assert Dataset.model_validate(resolved["dataset"]) == plan.dataset


@pytest.mark.parametrize(("bits", "significant"), [(None, 24), (12, 13), (23, 24)])
def test_the_store_says_how_many_bits_it_keeps(
    make_small_plan: MakePlan, tmp_path: Path, bits: int | None, significant: int
) -> None:
    config = settings.IntegratedGradientsConfig(keep_mantissa_bits=bits)
    plan = make_small_plan(tmp_path, rows="0:2", integrated_gradients=config)
    compute_part(plan, 0, 2)
    with open_store(sealed(plan)) as store:
        assert store.attributes["significant_bits"] == significant
        kept = has_significant_bits(store.attributions(...), significant - 1)
        assert kept.all()


def test_a_missing_part_is_named_and_nothing_is_written(plan: Plan) -> None:
    plan.part(8, 16).unlink()
    with pytest.raises(StoreNotFound, match=r"rows-000008-000016\.h5: no such file"):
        sealed(plan)
    assert list((plan.root / "nights").glob("*/*")) == []


def result_of(store: Path) -> NightResult:
    night = Night(store.parent.name, "2026-11-23T02:00:00+00:00", "flow-run-7")
    return night.result(store, accuracy=0.5, audit="passed", warnings=())


def test_latest_moves_to_the_promoted_night(plan: Plan) -> None:
    first, second = "20261122T020000Z-000001", "20261123T020000Z-000002"
    for night, before in ((first, None), (second, first)):
        result = result_of(sealed(plan, night))
        assert Catalog(plan.root).latest_name() == before
        promote.fn(plan, result)
        assert NightResult.model_validate_json((plan.root / "latest" / "night.json").read_text()) == result
        assert Catalog(plan.root).latest() == plan.root / "nights" / night
        with open_store(plan.root / "latest") as store:
            assert store.attributes["run_id"] == night


def test_a_night_without_a_store_is_not_promoted(plan: Plan) -> None:
    result = result_of(sealed(plan))
    promote.fn(plan, result)
    (plan.root / "nights" / "20261124T020000Z-ffffff").mkdir()
    with pytest.raises(StoreNotFound, match="ffffff has no attributions.h5; seal the night before"):
        promote.fn(plan, result.model_copy(update={"night_id": "20261124T020000Z-ffffff"}))
    assert Catalog(plan.root).latest().name == "20261123T020000Z-ab12cd"
