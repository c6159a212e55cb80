"""Random rows computed again from what a store records: a right store passes, an altered row is found by its number.

The altered stores are altered consistently, so that nothing but the model can tell.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from storage import open_store, verify_store
from storage.nights.packing import pack_night
from storage.nights.unpacking import unpack_night
from tasks.config import (
    DatasetConfig,
    ExplanationConfig,
    GradCamConfig,
    IntegratedGradientsConfig,
)
from tasks.models.registry import load_model
from tasks.parts.compute import compute_part
from tasks.parts.methods.comparison import relative_change
from tasks.parts.plan import Plan
from tasks.parts.recorded import RecordError, recorded_plan
from tasks.recompute import own_images, recompute_rows
from tasks.seal import seal

MakePlan = Callable[..., Plan]
ALL = 20
IG = "integrated_gradients"
pytestmark = pytest.mark.usefixtures("no_run_logger")


def sealed(plan: Plan) -> Path:
    configuration = {
        "dataset": DatasetConfig(),
        "explanation": plan.explanation,
        IG: plan.integrated_gradients,
        "grad_cam": plan.grad_cam,
    }
    return seal.fn(plan, "20261123T020000Z-ab12cd", "2026-11-23T02:00:00+00:00", "", configuration)


@pytest.fixture
def store(make_small_plan: MakePlan, small_plan: Plan, tmp_path: Path) -> Path:
    """The small plan's rows 0 to 19, sealed under a root of their own."""
    shutil.copytree(small_plan.root / "parts", tmp_path / "parts")
    path = sealed(make_small_plan(tmp_path))
    path.chmod(0o644)
    return path


def alter(store: Path, change: Callable[[h5py.File], Any]) -> None:
    with h5py.File(store, "a") as file:
        change(file)
    digest = hashlib.sha256(store.read_bytes()).hexdigest()
    store.with_name(f"{store.name}.sha256").write_text(f"{digest}  {store.name}\n")


def set_configuration(store: Path, change: Callable[[dict], Any]) -> None:
    def rewrite(file: h5py.File) -> None:
        configuration = json.loads(file.attrs["configuration"])
        change(configuration)
        text = json.dumps(configuration).encode()
        file.attrs["configuration"] = np.array(text, h5py.string_dtype("utf-8", len(text)))

    alter(store, rewrite)


def test_a_right_store_passes(store: Path) -> None:
    assert verify_store(store) == ()
    rows, findings = recompute_rows(store, ALL)
    assert findings == ()
    np.testing.assert_array_equal(rows, np.arange(20))


def attribution(group: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[h5py.File, int], None]:
    """A row's attribution, and the gap that it then has; the forger sees to it that converged stays true."""

    def forge(file: h5py.File, position: int) -> None:
        values = change(file[f"{group}/attribution"][position])
        file[f"{group}/attribution"][position] = values
        difference = float(file[f"{group}/score"][position]) - float(file[f"{group}/score_baseline"][position])
        file[f"{group}/gap"][position] = values.sum(dtype=np.float64) - difference

    return forge


def score(file: h5py.File, position: int) -> None:
    for name, sign in (("score", 1), ("gap", -1)):
        file[f"{IG}/{name}"][position] = float(file[f"{IG}/{name}"][position]) + sign * 0.01


def cam(file: h5py.File, position: int) -> None:
    file["grad_cam/map"][position] = file["grad_cam/map"][position][::-1]


def brighten(file: h5py.File, position: int) -> None:
    file["image"][position, 3, 4, 1] ^= 1


@pytest.mark.parametrize(
    ("forge", "where"),
    [
        pytest.param(attribution(IG, lambda a: np.roll(a, 1, axis=1)), f"{IG}/attribution", id="shifted"),
        pytest.param(attribution(IG, lambda a: a * np.float32(1.002)), f"{IG}/attribution", id="scaled"),
        pytest.param(
            attribution(f"{IG}/predicted", lambda a: np.roll(a, 1, axis=1)), f"{IG}/predicted/attribution", id="other"
        ),
        pytest.param(score, f"{IG}/score", id="score"),
        pytest.param(cam, "grad_cam/map", id="map"),
        pytest.param(brighten, "image", id="a bit of the image"),
    ],
)
def test_what_was_altered_consistently_is_found_by_its_row(store: Path, forge, where: str) -> None:
    with h5py.File(store) as file:
        predicted = file["predicted_row"][:]
    position = 3
    row = int(predicted[position]) if "predicted" in where else position
    alter(store, lambda file: forge(file, position))
    assert verify_store(store) == ()
    _, findings = recompute_rows(store, ALL)
    # Worth is of what is stored for the predicted class, and so is another one, too.
    worth = [f"quality/{name}" for name in ("keep_half", "drop_half", "relevance_gain")] if "predicted" in where else []
    assert [(f.check, f.where, f.rows) for f in findings] == [("recomputed", name, (row,)) for name in (where, *worth)]


@pytest.mark.parametrize(
    "changed",
    [
        {"integrated_gradients": IntegratedGradientsConfig(keep_mantissa_bits=8)},
        {"integrated_gradients": IntegratedGradientsConfig(rule="gausslegendre", baseline="mean")},
        {"explanation": ExplanationConfig(score="logit", part_rows=4, batch_size=32)},
        {"grad_cam": GradCamConfig(layer="edges")},
    ],
    ids=["rounded", "mean baseline", "logit", "layer"],
)
def test_every_setting_is_the_recorded_one(make_small_plan: MakePlan, tmp_path: Path, changed: dict) -> None:
    plan = make_small_plan(tmp_path, rows="4:8", **changed)
    for start, stop in plan.ranges():
        compute_part(plan, start, stop)
    store = sealed(plan)
    assert verify_store(store) == ()
    rows, findings = recompute_rows(store, ALL)
    assert findings == () and rows.tolist() == [4, 5, 6, 7]
    with open_store(store) as opened:
        assert recorded_plan(opened).settings() == plan.settings()


def test_the_seed_chooses_the_rows(store: Path) -> None:
    chosen = [recompute_rows(store, 3, seed=seed)[0].tolist() for seed in (1, 1, 2, None, None)]
    assert chosen[0] == chosen[1] != chosen[2]
    assert chosen[3] == chosen[4]
    assert all(len(set(rows)) == 3 and rows == sorted(rows) for rows in chosen)


def test_a_model_that_moved_is_found_by_its_sha256(store: Path, small_plan: Plan, tmp_path: Path) -> None:
    set_configuration(store, lambda c: c["resolved"].update(model_path="/nowhere/theirs.keras"))
    with pytest.raises(RecordError, match="neither at /nowhere/theirs.keras nor in .*; give its file with --model"):
        recompute_rows(store, 1)
    assert recompute_rows(store, 1, model=small_plan.model.path)[1] == ()
    (tmp_path / "models").mkdir()
    shutil.copy(small_plan.model.path, tmp_path / "models" / "renamed.keras")
    assert recompute_rows(store, 1)[1] == ()


def test_another_model_is_refused(store: Path, small_network: Callable, tmp_path: Path) -> None:
    small_network(seed=1).save(tmp_path / "other.keras")
    load_model(tmp_path / "other.keras")
    with pytest.raises(RecordError, match="other.keras: expected the model with the sha256"):
        recompute_rows(store, 1, model=tmp_path / "other.keras")
    with pytest.raises(RecordError, match="no model file at"):
        recompute_rows(store, 1, model=tmp_path / "none.keras")


def test_a_dataset_is_prepared_again_under_another_root(store: Path, tmp_path: Path) -> None:
    _, findings = recompute_rows(store, 2, root=tmp_path / "moved")
    assert findings == ()
    assert (tmp_path / "moved" / "datasets").is_dir()


def test_another_dataset_is_refused(store: Path) -> None:
    alter(store, lambda file: file.attrs.__setitem__("dataset_sha256", np.bytes_("f00d")))
    with pytest.raises(RecordError, match="with the sha256 f00d, got"):
        recompute_rows(store, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c[IG].update(rule_of_thumb=1), f"setting {IG}.rule_of_thumb is not one of this nightlens"),
        (lambda c: c[IG].update(n_max="many"), f"setting {IG}.n_max is not one"),
        (lambda c: c.pop("resolved"), "does not record where its model and dataset are"),
    ],
    ids=["unknown", "wrong", "nothing recorded"],
)
def test_a_store_of_another_nightlens_is_refused_in_a_line(store: Path, change: Callable, message: str) -> None:
    set_configuration(store, change)
    with pytest.raises(RecordError, match=message) as refusal:
        recompute_rows(store, 1)
    assert "\n" not in str(refusal.value)


def test_relative_change_is_symmetric_and_zero_for_zeros() -> None:
    one, other = np.array([[3.0, 4.0], [0, 0], [0, 0], [1, 0]]), np.array([[3.0, 4.5], [0, 0], [5, 0], [-1, 0]])
    expected = [0.5 / np.hypot(3, 4.5), 0, 1, 2]
    np.testing.assert_allclose(relative_change(one, other), expected)
    np.testing.assert_allclose(relative_change(other, one), expected)


# A night that was packed on another machine.


@pytest.fixture
def packed(make_small_plan: MakePlan, small_plan: Plan, tmp_path: Path) -> Path:
    """The same rows with a dataset and a model of their own, packed; then their root is gone, and all that they came from."""
    first = tmp_path / "first"
    directory = first / "datasets" / "prepared"
    shutil.copytree(small_plan.dataset.directory, directory)
    sample = shutil.copy(small_plan.dataset.sample, first / "datasets" / "kept.sample.npz")
    model = shutil.copy(small_plan.model.path, first / "datasets" / "theirs.keras")
    shutil.copytree(small_plan.root / "parts", first / "parts")
    plan = make_small_plan(
        first,
        dataset=small_plan.dataset.model_copy(update={"directory": directory, "sample": Path(sample)}),
        model=small_plan.model.model_copy(update={"path": Path(model)}),
    )
    assert plan.digest == small_plan.digest, "the same parts"
    store = sealed(plan)
    (store.parent / "night.json").write_text(json.dumps({"n_rows": ALL, "accuracy": 0.5}))
    pack_night(store, tmp_path / "night.zip")
    pack_night(store, tmp_path / "without-images.zip", without=["images"])
    shutil.rmtree(first)
    return tmp_path / "night.zip"


def test_a_packed_night_recomputes_rows_where_neither_its_root_nor_its_dataset_is(packed: Path, tmp_path: Path) -> None:
    store = unpack_night(packed, tmp_path / "second").folder / "attributions.h5"
    assert verify_store(store) == ()
    rows, findings = recompute_rows(store, ALL)
    assert findings == () and len(rows) == ALL
    assert "the dataset digits is not on this machine" in own_images(store)
    store.chmod(0o644)
    position = 3
    alter(store, lambda file: attribution(IG, lambda a: a * np.float32(1.002))(file, position))
    _, findings = recompute_rows(store, ALL)
    assert [(f.check, f.where, f.rows) for f in findings] == [("recomputed", f"{IG}/attribution", (position,))]


def test_with_the_dataset_at_hand_its_images_are_compared(packed: Path, tmp_path: Path, few_root: Path) -> None:
    store = unpack_night(packed, tmp_path / "second").folder / "attributions.h5"
    store.chmod(0o644)
    alter(store, lambda file: brighten(file, 5))
    model = tmp_path / "second" / "models" / "theirs.keras"
    _, findings = recompute_rows(store, ALL, root=few_root, model=model)
    assert ("recomputed", "image", (5,)) in [(f.check, f.where, f.rows) for f in findings]


@pytest.fixture
def few_root(tmp_path: Path) -> Path:
    """A root where the embedded digits are prepared anew."""
    return tmp_path / "third"


def test_without_images_rows_are_computed_again_where_the_dataset_is(
    packed: Path, tmp_path: Path, few_root: Path
) -> None:
    store = unpack_night(packed.with_name("without-images.zip"), tmp_path / "second").folder / "attributions.h5"
    with pytest.raises(RecordError, match="packed without the sample of training images; give a root with the dataset"):
        recompute_rows(store, 4)
    model = tmp_path / "second" / "models" / "theirs.keras"
    rows, findings = recompute_rows(store, 4, root=few_root, model=model)
    assert findings == () and len(rows) == 4
