"""The whole flow on real digits against a real Prefect server, with the notebook's network, judged by what it left behind."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flows.nightly import nightly
from night_record import recorded
from night_root import left_behind
from storage import Catalog, open_store
from tasks import train
from tasks.datasets import Dataset, read_rows
from tasks.models import loading
from tasks.models.registry import load_model
from tasks.night.progress import Progress, listening
from tasks.numerics.references import missing_references
from tasks.parts import compute
from tasks.running_night import NightResult

pytestmark = pytest.mark.usefixtures("prefect_server")
ARTIFACT_BYTES = 500_000
KEYS = {
    *("dataset", "training", "model", "evaluation", "confusion", "explanations", "audit", "night"),
    *(
        "gallery-integrated-gradients",
        "gallery-grad-cam",
        "gallery-misclassified",
        "class-means",
        "worth",
        "strategies",
    ),
}
TRAINED_NIGHT = {
    "model": {"epochs": 1},
    "audit": {"n_rows": 2},
    "gallery": {"spotlight": [3, 40, 2864], "per_class": 0},
    "explanation": {"part_rows": 32},
}


class Seen:
    """A night with the notebook's network: its root, its result, what it reported, and how often it read a model's file."""

    def __init__(self, root: Path):
        self.root, self.reports = root, list[Progress]()
        n_before = loading._load.cache_info().misses
        with listening(self.reports.append):
            self.result: NightResult = nightly(**TRAINED_NIGHT, run={"root": root, "rows": "0:64"})
        self.n_loads = loading._load.cache_info().misses - n_before


@pytest.fixture(scope="module")
def night(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    return Seen(tmp_path_factory.mktemp("nightly") / "data")


@pytest.fixture
def store(night: Seen) -> Iterator:
    with open_store(night.root / "latest") as opened:
        yield opened


# The first night.


@pytest.mark.slow
def test_the_model_is_read_from_its_file_once(night: Seen) -> None:
    assert night.n_loads == 1


@pytest.mark.slow
def test_every_row_is_there_once_with_the_datasets_image_and_label(store, digits: Dataset) -> None:
    np.testing.assert_array_equal(store.row_numbers, np.arange(64))
    images, labels = read_rows(digits, "test", 0, 64)
    np.testing.assert_array_equal(store.image[:], images)
    np.testing.assert_array_equal(store.labels, labels)


def test_predictions_are_the_registered_models(store, night: Seen) -> None:
    (path,) = (night.root / "models").glob("*.keras")
    model = load_model(path)
    np.testing.assert_allclose(
        store.probabilities, model.predict(store.image[:].astype(np.float32) / 255, verbose=0), atol=1e-5
    )
    np.testing.assert_array_equal(store.predictions, store.probabilities.argmax(axis=1))
    assert 0 < store.rows(correct=False).size < 64


@pytest.mark.parametrize("target", ["true", "predicted"])
def test_attributions_are_finite_and_their_gap_is_the_recorded_one(store, target) -> None:
    attributions = store.attributions(store.row_numbers, target)
    assert np.isfinite(attributions).all()
    assert np.abs(attributions).max(axis=(1, 2, 3)).min() > 0
    certificate = store.certificate(target)
    difference = certificate["score"].astype(float) - certificate["score_baseline"]
    gap = attributions.sum(axis=(1, 2, 3), dtype=np.float64) - difference
    np.testing.assert_allclose(certificate["gap"], gap, atol=1e-5)
    within = np.abs(gap) <= 0.05 * np.maximum(1, np.abs(difference)) + 1e-5
    assert (within | ~certificate["converged"]).all()
    assert certificate["converged"].mean() > 0.9
    classes = store.labels if target == "true" else store.predictions
    np.testing.assert_allclose(certificate["score"], store.probabilities[np.arange(64), classes], atol=1e-5)


def test_misclassified_rows_have_predicted_groups_of_their_own(store) -> None:
    wrong = store.rows(correct=False)
    np.testing.assert_array_equal(store.column("predicted_row"), wrong)
    true, predicted = (store.attributions(wrong, target) for target in ("true", "predicted"))
    assert (np.abs(true - predicted).max(axis=(1, 2, 3)) > 0).all()


def test_maps_are_finite_and_never_negative_and_their_maximum_is_recorded(store) -> None:
    maps = store.maps(store.row_numbers)
    assert np.isfinite(maps).all()
    assert (maps >= 0).all()
    np.testing.assert_array_equal(store.table()["cam_max"], maps.max(axis=(1, 2)))


def test_latest_is_the_night_and_its_checksum_is_right(night: Seen) -> None:
    folder = Catalog(night.root).latest()
    assert folder == night.result.store.parent == night.root / "nights" / night.result.night_id
    sha256, name = (folder / "attributions.h5.sha256").read_text().split()
    assert name == "attributions.h5"
    assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == sha256
    assert not night.result.store.stat().st_mode & 0o222


def test_the_record_of_the_night_is_what_the_flow_returned_and_true(night: Seen, store) -> None:
    record = json.loads((night.result.store.parent / "night.json").read_text())
    assert NightResult.model_validate(record) == night.result
    values = store.table()
    assert record["n_rows"] == 64
    assert record["converged_share"] == pytest.approx(values["converged"].mean())
    assert record["worst_gap"] == pytest.approx(values["gap"].abs().max())
    assert record["n_zero_maps"] == (values["cam_max"] == 0).sum()
    lacking = ", ".join(missing_references())
    assert record["audit"] == (f"not audited: {lacking} not installed (extra 'reference')" if lacking else "passed")
    assert {"ingest", "train", "evaluate", "explain", "seal", "audit"} <= set(record["stage_seconds"])
    paced = sum(record["stage_seconds"][name] for name in ("evaluate", "explain", "seal"))
    assert (record["pace"]["n_rows"], record["pace"]["seconds_per_row"]) == (64, pytest.approx(paced / 64))


def test_pictures_of_the_chosen_rows_are_there(night: Seen) -> None:
    pictures = {path.name: path for path in night.result.gallery.glob("*.png")}
    rows = {f"row-0000{row}-{method}.png" for row in ("03", "40") for method in ("integrated-gradients", "grad-cam")}
    assert rows | {"confusion.png", "training-curves.png"} <= set(pictures)
    assert not any("2864" in name for name in pictures)
    for path in pictures.values():
        with Image.open(path) as picture:
            assert len(np.unique(np.asarray(picture))) > 10, f"{path.name} is blank"


def test_the_page_of_the_night_is_beside_its_store(night: Seen) -> None:
    page = night.result.store.with_name("report.html").read_text(encoding="utf-8")
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    assert (data["n_rows"], data["store"]) == (64, str(night.result.store))
    assert {3, 40} <= {entry["row"] for entry in data["pictures"] if data["reasons"][entry["why"]] == "spotlight"}
    assert night.result.verdict.partition(":")[0] in page
    assert "Accuracy by epoch" in page


def test_the_server_has_the_whole_run(night: Seen) -> None:
    state, tasks, _ = recorded(night.result.flow_run_id, n_tasks=11)
    assert state.is_completed()
    names = Counter(task.name.rsplit("-", 1)[0] if not task.name.startswith("rows") else "part" for task in tasks)
    expected = ("ingest", "train", "contract", "evaluate", "assess", "seal", "audit", "promote", "publish")
    assert names == {**dict.fromkeys(expected, 1), "part": 2}
    assert {task.name for task in tasks if task.name.startswith("rows")} == {"rows-0-to-32", "rows-32-to-64"}
    assert all(task.state.is_completed() for task in tasks)


def test_every_artifact_has_its_key_and_is_small_enough_for_the_ui(night: Seen) -> None:
    _, _, artifacts = recorded(night.result.flow_run_id, n_tasks=11)
    assert Counter(artifact.key for artifact in artifacts) == dict.fromkeys(KEYS, 1)
    for artifact in artifacts:
        size = len(str(artifact.data).encode()) + len(str(artifact.description).encode())
        assert size < ARTIFACT_BYTES, artifact.key
        assert "Look" in str(artifact.description), artifact.key
    by_key = {artifact.key: artifact for artifact in artifacts}
    assert by_key["explanations"].data == 100
    for key in KEYS - {"explanations"}:
        assert "data:image/png;base64," in str(by_key[key].data), key
        assert "![thumbnail](data:image" in str(by_key[key].description), key


def test_the_terminal_hears_of_every_stage_in_order(night: Seen) -> None:
    stages = list(dict.fromkeys(step.stage for step in night.reports))
    assert stages == [
        "ingest",
        "train",
        "contract",
        "evaluate",
        "explain",
        "assess",
        "seal",
        "audit",
        "promote",
        "publish",
    ]
    parts = [(step.done, step.total, step.images) for step in night.reports if step.unit == "parts"]
    assert parts[-1] == (2, 2, 64)
    assert any(step.stage == "train" and step.unit == "images" for step in night.reports)


@pytest.mark.slow
def test_the_same_night_again_computes_nothing_and_holds_the_same(night: Seen, store, monkeypatch) -> None:
    before = left_behind(night.root)
    monkeypatch.setattr(compute, "explain_rows", lambda *_, **__: pytest.fail("a part was computed again"))
    monkeypatch.setattr(train, "train_model", lambda *_: pytest.fail("the model was trained again"))
    again = nightly(**TRAINED_NIGHT, run={"root": night.root, "rows": "0:64", "n_workers": 1})
    assert again.night_id != night.result.night_id
    assert again.pace is None
    assert Catalog(night.root).latest() == again.store.parent
    after = left_behind(night.root)
    for name, inode in before.items():
        if name.startswith(("parts", "models", f"nights/{night.result.night_id}")):
            assert after[name] == inode
    assert {name for name in after if name.startswith(("parts", "models"))} <= set(before)
    with open_store(again.store) as other:
        np.testing.assert_array_equal(other.attributions(other.row_numbers), store.attributions(store.row_numbers))
        np.testing.assert_array_equal(other.maps(other.row_numbers), store.maps(store.row_numbers))
        assert other.table().equals(store.table())
        assert other.attributes["digest"] == store.attributes["digest"]
