"""The flows `explain` and `housekeeping` against a real Prefect server, judged by what they leave under the root."""

import shutil
from pathlib import Path
from typing import Any

import keras
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
from prefect.client.schemas.objects import State

from flows.explain import explain
from flows.housekeeping import housekeeping
from flows.parameters import resumed_parameters
from small_night import small_night
from storage import Catalog, open_store, pruning, read_nights, verify_store
from storage.nights.night_entries import pin
from tasks.datasets import Dataset
from tasks.models.registry import ModelError, ModelRecord, digest_file
from tasks.running_night import NightResult

pytestmark = pytest.mark.usefixtures("prefect_server")
NIGHTLY = "20260101T020000Z-000000"


@pytest.fixture(scope="module")
def registry_model(small_model: ModelRecord, tmp_path_factory: pytest.TempPathFactory) -> ModelRecord:
    """The small network in a root's registry, with its record beside it."""
    folder = tmp_path_factory.mktemp("explained") / "data" / "models"
    folder.mkdir(parents=True)
    path = Path(shutil.copy(small_model.path, folder / "theirs.keras"))
    record = small_model.model_copy(update={"path": path, "name": "theirs", "created_utc": "2026-01-01T00:00:00+00:00"})
    path.with_suffix(".json").write_text(record.model_dump_json())
    return record


def parameters(root: Path, digits: Dataset, model: str, **run: Any) -> dict[str, Any]:
    return small_night(root, model, digits.directory, run={"rows": "0:12"} | run)


@pytest.fixture(scope="module")
def explained(registry_model: ModelRecord, digits: Dataset, prefect_server: str) -> NightResult:
    """A registered model explained by its name, in a root where a nightly run is the latest."""
    root = registry_model.path.parents[1]
    nightly = Catalog(root).night_dir(NIGHTLY)
    nightly.mkdir(parents=True)
    (nightly / "attributions.h5").write_text("sealed long ago")
    (nightly / "night.json").write_text('{"n_rows": 12, "accuracy": 0.5}')
    Catalog(root).point_latest(nightly)
    return explain(**parameters(root, digits, "theirs"))


def test_a_registered_model_is_explained_by_its_name(explained: NightResult, registry_model: ModelRecord) -> None:
    with open_store(explained.store) as store:
        assert store.attributes["model_sha256"] == registry_model.sha256
        assert store.row_numbers.tolist() == list(range(12))
        assert store.attributes["flow_run_id"] == explained.flow_run_id
    assert verify_store(explained.store) == ()


def test_a_model_with_layers_of_its_own_is_explained_with_their_code(
    digits: Dataset, tmp_path: Path, prefect_server: str
) -> None:
    code = tmp_path / "my_layers.py"
    code.write_text(
        "import keras\n\nclass Halved(keras.layers.Layer):\n    def call(self, inputs):\n        return inputs / 2\n"
    )
    names: dict[str, Any] = {"__name__": "elsewhere"}
    exec(code.read_text(), names)
    images = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(3, 3, strides=4)(names["Halved"]()(images))
    x = keras.layers.Dense(10, activation="softmax")(keras.layers.Flatten()(x))
    keras.Model(images, x).save(tmp_path / "theirs.keras")
    given = parameters(tmp_path / "data", digits, str(tmp_path / "theirs.keras"), rows="0:2")
    with pytest.raises(ModelError, match="is of the class Halved, which is not Keras's own; set model.code"):
        explain(**given)
    given["model"] = given["model"] | {"code": code}
    with open_store(explain(**given).store) as store:
        configuration: Any = store.attributes["configuration"]
        assert configuration["model"]["code"] == configuration["resolved"]["model_code"] == str(code)
        assert configuration["resolved"]["model_code_sha256"] == digest_file(code)


def test_latest_stays_with_the_nightly_run(explained: NightResult) -> None:
    root = explained.store.parents[2]
    latest = Catalog(root).latest()
    assert latest is not None and latest.name == NIGHTLY
    states = {night.id: (night.state, night.is_latest) for night in read_nights(Catalog(root))}
    assert states == {explained.night_id: ("sealed", False), NIGHTLY: ("sealed", True)}


def test_its_pages_belong_to_its_own_run(explained: NightResult) -> None:
    with get_client(sync_client=True) as client:
        of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[explained.flow_run_id]))  # type: ignore[list-item]
        keys = {artifact.key for artifact in client.read_artifacts(artifact_filter=of_run, limit=100)}
    assert {"night", "dataset", "gallery-grad-cam"} <= keys


def test_latest_moves_if_told_to_and_any_file_will_do(
    small_model: ModelRecord, digits: Dataset, tmp_path: Path
) -> None:
    result = explain(**parameters(tmp_path, digits, str(small_model.path), move_latest=True))
    latest = Catalog(tmp_path).latest()
    assert latest is not None and latest.name == result.night_id


def test_an_interrupted_explanation_goes_on_and_leaves_latest_alone(
    explained: NightResult, small_model: ModelRecord, digits: Dataset, tmp_path: Path
) -> None:
    """Its run.json, without the end that a kill leaves out, is what `run --resume` reads."""
    root = tmp_path / "data"
    night = Catalog(root).night_dir(explained.night_id)
    night.mkdir(parents=True)
    run = (explained.store.parent / "run.json").read_text()
    (night / "run.json").write_text(run.replace('"ended"', '"failure"'))
    resumed = resumed_parameters(root, explained.night_id)
    assert resumed["run"].move_latest is False and resumed["run"].resume == explained.night_id
    assert Path(resumed["model"].source).name == "theirs.keras"


def test_housekeeping_keeps_what_it_must_and_an_explanation_is_pruned_as_a_night(explained: NightResult) -> None:
    root = explained.store.parents[2]
    with pruning(Catalog(root), 1) as decided:
        assert [removal.path.name for removal in decided.removals if "night" in removal.why] == []
    pin(Catalog(root), NIGHTLY, pinned=True)
    housekeeping(prune={"root": root, "keep": 1})
    assert {night.id for night in read_nights(Catalog(root))} == {explained.night_id, NIGHTLY}
    assert (root / "models" / "theirs.keras").is_file()


def old_root(folder: Path) -> Path:
    """Two sealed nights, the older one of them not the latest."""
    for name in (NIGHTLY, NIGHTLY.replace("0101", "0102")):
        night = Catalog(folder).night_dir(name)
        night.mkdir(parents=True)
        (night / "attributions.h5").write_text("sealed long ago")
        (night / "night.json").write_text('{"n_rows": 12, "accuracy": 0.5}')
        Catalog(folder).point_latest(night)
    return folder


def test_a_dry_run_of_housekeeping_only_says(tmp_path: Path) -> None:
    root = old_root(tmp_path)
    housekeeping(prune={"root": root, "keep": 1, "dry_run": True})
    assert len(read_nights(Catalog(root))) == 2
    housekeeping(prune={"root": root, "keep": 1})
    assert [night.is_latest for night in read_nights(Catalog(root))] == [True]
    with get_client(sync_client=True) as client:
        pages = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["housekeeping"])))
    told = [page.data for page in pages]
    assert any("1 would be removed" in str(page) for page in told)
    assert any("1 removed" in str(page) and NIGHTLY in str(page) for page in told)


@pytest.mark.parametrize(
    ("model", "said"),
    [("nobodys", r"no model 'nobodys' in .*nightlens models"), ("gone.keras", "no model file at gone.keras")],
)
def test_a_model_that_is_not_there_is_named_before_anything_is_written(
    model: str, said: str, digits: Dataset, tmp_path: Path
) -> None:
    state: State = explain(**parameters(tmp_path, digits, model), return_state=True)
    assert state.is_failed()
    with pytest.raises(ValueError, match=said):
        state.result()
    assert not (tmp_path / "nights").exists()


def test_housekeeping_without_a_root_fails_and_says_so(tmp_path: Path) -> None:
    state: State = housekeeping(prune={"root": tmp_path / "nowhere"}, return_state=True)
    assert state.is_failed() and "no such folder to prune" in str(state.message)
