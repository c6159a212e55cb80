"""The registry hands out a model only if it is the one that was asked for; other people's models load, or say why not."""

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from contracts import unit_contract
from tasks import train
from tasks.config import ExplanationConfig, GradCamConfig, IntegratedGradientsConfig, ModelConfig
from tasks.contract.establish import check_fit
from tasks.datasets import Dataset
from tasks.models.registry import ModelError, ModelRecord, find_model, list_models, load_model, read_record, save_model
from tasks.parts.compute import compute_part
from tasks.parts.plan import make_plan
from tasks.train import obtain_model

MakeNetwork = Callable[..., keras.Model]
TRAINING: dict[str, float | int | bool] = {"epochs": 1, "batch_size": 8, "shift": 0.1, "flip": False, "seed": 0}


def register(model: keras.Model, folder: Path, name: str = "digits-cnn", **changed: object) -> ModelRecord:
    record = ModelRecord(
        name=name,
        path=folder,
        sha256="",
        dataset_name="digits",
        dataset_sha256="5e1f",
        training=TRAINING,
        history={"loss": [1.5], "accuracy": [0.5], "val_loss": [1.7], "val_accuracy": [0.4]},
        created_utc="2026-11-23T02:00:00+00:00",
    )
    return save_model(model, folder, record.model_copy(update=changed))


@pytest.fixture
def model(small_network: MakeNetwork) -> keras.Model:
    return small_network()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models"


# Saved, listed, found.


def test_a_saved_model_is_found_and_loads_with_the_same_weights(model: keras.Model, folder: Path) -> None:
    saved = register(model, folder)
    found = find_model(folder, dataset_sha256="5e1f", training=TRAINING)
    assert found == saved
    assert found.epochs == 1
    assert sorted(path.name for path in folder.iterdir()) == ["digits-cnn.json", "digits-cnn.keras"]
    for ours, theirs in zip(load_model(found.path).get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_models_are_listed_newest_first_and_the_newest_is_found(model: keras.Model, folder: Path) -> None:
    for day in (21, 23, 22):
        register(model, folder, f"night-{day}", created_utc=f"2026-11-{day}T02:00:00+00:00")
    assert [record.name for record in list_models(folder)] == ["night-23", "night-22", "night-21"]
    found = find_model(folder, dataset_sha256="5e1f", training=TRAINING)
    assert found is not None
    assert found.name == "night-23"


def test_an_empty_registry_has_no_model(folder: Path) -> None:
    assert list_models(folder) == []
    assert find_model(folder, dataset_sha256="5e1f", training=TRAINING) is None


def test_a_moved_registry_still_serves_its_models(model: keras.Model, folder: Path, tmp_path: Path) -> None:
    register(model, folder)
    moved = folder.rename(tmp_path / "moved")
    found = find_model(moved, dataset_sha256="5e1f", training=TRAINING)
    assert found is not None
    assert found.path == moved / "digits-cnn.keras"


@pytest.mark.parametrize(
    "wanted",
    [
        {"dataset_sha256": "f00d"},
        *({"training": TRAINING | {k: v}} for k, v in [("epochs", 2), ("seed", 1), ("flip", True)]),
    ],
    ids=["dataset", "epochs", "seed", "flip"],
)
def test_a_model_of_another_dataset_or_training_is_not_reused(model: keras.Model, folder: Path, wanted: dict) -> None:
    register(model, folder)
    assert find_model(folder, **{"dataset_sha256": "5e1f", "training": TRAINING} | wanted) is None


@pytest.mark.parametrize("damage", ["changed", "truncated", "gone"])
def test_a_model_whose_file_is_not_as_written_is_not_reused(model: keras.Model, folder: Path, damage: str) -> None:
    path, older = register(model, folder).path, register(model, folder, "older", created_utc="2026-11-01")
    content = path.read_bytes()
    path.write_bytes({"changed": content + b"!", "truncated": content[:-9], "gone": b""}[damage])
    if damage == "gone":
        path.unlink()
    assert find_model(folder, dataset_sha256="5e1f", training=TRAINING) == older


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "Invalid JSON"),
        (b"[]", "Input should be an object"),
        (b'{"name": "x"}', "path: Field required"),
        (b"\xff\xfe", "Invalid JSON"),
        (b"", "Invalid JSON"),
        (
            b'{"name": "x", "path": ".", "sha256": "", "history": {"loss": [null]}}',
            "history.loss.0: Input should be a valid number",
        ),
        (b'{"name": "x", "path": ".", "sha256": 7}', "sha256: Input should be a valid string"),
        (None, "Is a directory"),
    ],
    ids=["truncated", "list", "keys", "bytes", "empty", "diverged", "type", "unreadable"],
)
def test_a_record_that_cannot_be_read_is_passed_over_with_a_warning(
    model: keras.Model, folder: Path, content: bytes | None, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    good, record = register(model, folder, "good"), register(model, folder, "spoilt").path.with_suffix(".json")
    record.unlink()
    record.mkdir() if content is None else record.write_bytes(content)
    warnings: list[str] = []
    assert [found.name for found in list_models(folder, warnings.append)] == ["good"]
    (warning,) = warnings
    assert warning.startswith(f"{record}: not a model record that can be read ({said}") and "delete it" in warning
    assert find_model(folder, dataset_sha256="5e1f", training=TRAINING) == good
    assert caplog.messages == warnings


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_without_permission_are_passed_over(
    model: keras.Model, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good, closed = register(model, folder, "good", created_utc="2026-11-01"), register(model, folder, "closed")
    closed.path.chmod(0)
    assert find_model(folder, dataset_sha256="5e1f", training=TRAINING) == good
    assert caplog.messages == [f"{closed.path} cannot be read (Permission denied), passed over"]
    closed.path.with_suffix(".json").chmod(0)
    assert find_model(folder, dataset_sha256="5e1f", training=TRAINING) == good


def test_a_crash_while_saving_leaves_no_model(
    model: keras.Model, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model, "save", full)
    with pytest.raises(OSError, match="No space left"):
        register(model, folder)
    assert list(folder.iterdir()) == []


# Given by path.


def test_the_record_of_a_registered_model_is_read_with_it(model: keras.Model, folder: Path) -> None:
    saved = register(model, folder)
    assert read_record(saved.path) == saved


def test_a_model_from_elsewhere_has_a_name_and_a_digest_only(model: keras.Model, tmp_path: Path) -> None:
    model.save(tmp_path / "theirs.keras")
    record = read_record(tmp_path / "theirs.keras")
    assert (record.name, record.path, record.epochs) == ("theirs", tmp_path / "theirs.keras", 0)
    assert len(record.sha256) == 64


@pytest.mark.parametrize(
    "content",
    [b"[1, 2]", b"not json", b"\xff\xfe", b'{"sha256": null}', b'"text"', b"null"],
    ids=["list", "no-json", "bytes", "null", "text", "none"],
)
def test_a_json_file_of_theirs_beside_a_model_is_no_record(model: keras.Model, tmp_path: Path, content: bytes) -> None:
    """Many people keep a model.json with the architecture beside their model; it is none of ours."""
    model.save(tmp_path / "theirs.keras")
    (tmp_path / "theirs.json").write_bytes(content)
    assert read_record(tmp_path / "theirs.keras").training == {}


def test_a_record_of_other_weights_is_not_taken_for_the_models(model: keras.Model, folder: Path) -> None:
    saved = register(model, folder)
    keras.Model(model.inputs, model.outputs[0] * 1).save(saved.path)
    assert read_record(saved.path).training == {}


def test_a_missing_model_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"no model file at .*gone.keras; expected auto, train, or the path of a .keras"
    ):
        read_record(tmp_path / "gone.keras")


# Loaded, and explained.


def sequential(shape: tuple[int, int, int] = (32, 32, 3)) -> keras.Model:
    layers = keras.layers
    stack = [keras.Input(shape), layers.Conv2D(6, 3, strides=2, activation="relu", name="c1")]
    stack += [layers.Conv2D(6, 3, strides=2, name="c2"), layers.Flatten(), layers.Dense(10), layers.Softmax()]
    return keras.Sequential(stack)


@pytest.mark.filterwarnings("ignore:.*legacy.*")
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("kind", ["functional", "sequential"])
def test_other_peoples_models_load_and_are_explained(
    small_network: MakeNetwork, digits: Dataset, tmp_path: Path, kind: str, suffix: str
) -> None:
    keras.utils.set_random_seed(3)
    theirs = small_network() if kind == "functional" else sequential()
    path = tmp_path / f"theirs{suffix}"
    theirs.save(path)
    record, was_there = obtain_model(ModelConfig(source=str(path)), digits, tmp_path / "models")
    assert was_there
    explanation = ExplanationConfig(part_rows=4, batch_size=16)
    contract = unit_contract(record, digits)
    ig = IntegratedGradientsConfig(n_max=64)
    plan = make_plan(tmp_path, digits, record, contract, explanation, ig, GradCamConfig(), "0:4")
    assert plan.layer == ("strokes" if kind == "functional" else "c2")
    report = compute_part(plan, 0, 4)
    assert plan.part(0, 4).is_file()
    assert report.n_gradients >= 4 * 8


@pytest.mark.filterwarnings("ignore:.*legacy.*")
def test_the_registrys_own_model_loads_as_legacy_h5_with_the_same_outputs(
    digits_model: ModelRecord, tmp_path: Path
) -> None:
    model = load_model(digits_model.path)
    model.save(tmp_path / "old.h5")
    images = np.random.default_rng(0).random((3, 32, 32, 3), np.float32)
    again = load_model(tmp_path / "old.h5")
    np.testing.assert_allclose(again.predict(images, verbose=0), model.predict(images, verbose=0), atol=1e-6)


# Refused.


def without_input() -> keras.Model:
    return keras.Sequential([keras.layers.Conv2D(2, 3), keras.layers.Flatten(), keras.layers.Dense(10)])


HDF5_HEAD = b"\x89HDF\r\n\x1a\n\0\0"


def with_lambda() -> keras.Model:
    images = keras.Input((32, 32, 3))
    x = keras.layers.Lambda(lambda tensor: tensor * 2, name="lambda")(images)
    return keras.Model(images, keras.layers.Dense(10, activation="softmax")(keras.layers.Flatten()(x)))


def test_a_model_with_code_of_its_own_is_refused_by_safe_mode(tmp_path: Path) -> None:
    with_lambda().save(tmp_path / "code.keras")
    refusal = (
        r"code.keras: not a Keras model that can be loaded \(layer 'lambda' is a Lambda, whose code is in the file"
    )
    with pytest.raises(ModelError, match=refusal):
        load_model(tmp_path / "code.keras")


def test_a_model_without_input_shape_is_refused(tmp_path: Path) -> None:
    without_input().save(tmp_path / "open.keras")
    with pytest.raises(ModelError, match="open.keras: the model has no input shape; call it once on an image"):
        load_model(tmp_path / "open.keras")


@pytest.mark.parametrize(
    ("suffix", "content", "said"),
    [
        (".keras", b"", "expected a .keras file, which is a zip archive, got an empty file"),
        (".keras", b"not a model", "expected a .keras file, which is a zip archive, got something else"),
        (".keras", HDF5_HEAD, r"not a Keras model that can be loaded \(an HDF5 file that is damaged"),
        (".h5", b"", r"not a Keras model that can be loaded \(expected an HDF5 file, got an empty file"),
        (".h5", b"not a model", r"not a Keras model that can be loaded \(expected an HDF5 file, got something else"),
        (".h5", HDF5_HEAD, r"not a Keras model that can be loaded \(an HDF5 file that is damaged"),
    ],
    ids=[f"{kind}-{suffix}" for suffix in (".keras", ".h5") for kind in ("empty", "text", "hdf5-head")],
)
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, suffix: str, content: bytes, said: str) -> None:
    path = tmp_path / f"night{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=rf"night{suffix}: {said}.*; save"):
        load_model(path)


def test_a_truncated_model_is_refused(model: keras.Model, tmp_path: Path) -> None:
    path = tmp_path / "half.keras"
    model.save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ModelError, match="half.keras: expected a .keras file, which is a zip archive"):
        load_model(path)


def test_a_model_archive_without_weights_is_refused(model: keras.Model, tmp_path: Path) -> None:
    model.save(tmp_path / "whole.keras")
    with zipfile.ZipFile(tmp_path / "whole.keras") as whole, zipfile.ZipFile(tmp_path / "bare.keras", "w") as bare:
        bare.writestr("config.json", whole.read("config.json"))
        bare.writestr("metadata.json", whole.read("metadata.json"))
    with pytest.raises(ModelError, match="bare.keras: not a Keras model"):
        load_model(tmp_path / "bare.keras")


@pytest.mark.parametrize("name", ["model.pb", "model.weights", "model"])
def test_another_kind_of_file_is_refused_by_its_suffix(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ModelError, match="expected a .keras or .h5 model file, got"):
        load_model(tmp_path / name)


@pytest.mark.parametrize("value", [np.nan, np.inf], ids=str)
def test_weights_that_are_not_finite_are_named(model: keras.Model, tmp_path: Path, value: float) -> None:
    kernel = model.get_layer("strokes").kernel
    kernel.assign(np.where(np.arange(kernel.numpy().size).reshape(kernel.shape) == 5, value, kernel.numpy()))
    model.save(tmp_path / "sick.keras")
    with pytest.raises(ModelError, match="sick.keras: weight 'strokes/kernel' has values that are not finite"):
        load_model(tmp_path / "sick.keras")


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"shape": (28, 28, 1)}, r": the model takes inputs of shape \(28, 28, 1\), the images have \(32, 32, 3\)"),
        ({"n_classes": 100}, " knows 100 classes, the dataset has 10"),
    ],
    ids=["shape", "classes"],
)
def test_a_model_that_does_not_fit_the_dataset_is_refused(
    small_network: MakeNetwork, small_model: ModelRecord, digits: Dataset, network: dict, message: str
) -> None:
    check_fit(small_network(), small_model, digits)
    with pytest.raises(ModelError, match=f"model theirs{message}; choose another model"):
        check_fit(small_network(**network), small_model, digits)


def test_auto_reuses_and_train_does_not(
    digits_model: ModelRecord, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(digits_model.path.parent, tmp_path / "models")
    trained: list[dict] = []
    monkeypatch.setattr(train, "train_model", lambda settings, *_: trained.append(settings) or digits_model)
    same = {"epochs": digits_model.epochs, "seed": 0}
    record, was_there = obtain_model(ModelConfig(**same), digits, tmp_path / "models")
    assert (record.sha256, was_there, trained) == (digits_model.sha256, True, [])
    assert record.path.parent == tmp_path / "models"
    for config in (ModelConfig(source="train", **same), ModelConfig(epochs=9), ModelConfig(**same | {"seed": 1})):
        assert obtain_model(config, digits, tmp_path / "models")[1] is False
    assert [(settings["epochs"], settings["seed"]) for settings in trained] == [(2, 0), (9, 0), (2, 1)]


def test_the_record_on_disk_is_plain_json(digits_model: ModelRecord) -> None:
    record = json.loads(digits_model.path.with_suffix(".json").read_text())
    assert record["training"]["epochs"] == digits_model.epochs
    assert record["n_parameters"] == 2_397_226
