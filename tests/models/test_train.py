"""Training: reproducible, recorded, by the notebook's recipe, and refused where it diverges."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from prefect.logging import disable_run_logger

from tasks import train as training
from tasks.config import DatasetConfig, ModelConfig
from tasks.datasets import Dataset, prepare, read_rows, stream
from tasks.models.registry import ModelError, ModelRecord, list_models, load_model
from tasks.night.progress import Progress, listening
from tasks.numerics.network.cnn import build_cnn, training_batches
from tasks.train import train_model, training_settings

pytestmark = pytest.mark.usefixtures("no_run_logger")


@pytest.fixture(scope="module")
def tiny(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """64 real digits to train on and 32 to test, at 16x16, in a Keras-layout .npz."""
    folder = tmp_path_factory.mktemp("tiny")
    arrays = {}
    for split, n in (("train", 64), ("test", 32)):
        images, arrays[f"y_{split}"] = read_rows(digits, split, 0, n)
        arrays[f"x_{split}"] = images[:, ::2, ::2]
    np.savez(folder / "tiny.npz", **arrays)
    return prepare(DatasetConfig(source=str(folder / "tiny.npz"), transform="none"), folder)


def train(dataset: Dataset, folder: Path, **changed: object) -> ModelRecord:
    config = ModelConfig.model_validate({"epochs": 2, "batch_size": 16} | changed)
    return train_model(training_settings(config, dataset), dataset, folder)


def weights(record: ModelRecord) -> list[np.ndarray]:
    return load_model(record.path).get_weights()


@pytest.fixture(scope="module")
def trained(tiny: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelRecord, list[Progress]]:
    """The network after two epochs with seed 4, and what the training reported."""
    heard: list[Progress] = []
    with disable_run_logger(), listening(heard.append):
        return train(tiny, tmp_path_factory.mktemp("trained"), seed=4), heard


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    trained: tuple[ModelRecord, list[Progress]], tiny: Dataset, tmp_path: Path
) -> None:
    first, again, other = trained[0], train(tiny, tmp_path, seed=4), train(tiny, tmp_path, seed=5, epochs=1)
    for ours, theirs in zip(weights(first), weights(again), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert first.history == again.history
    assert not np.array_equal(weights(first)[0], weights(other)[0])
    assert len(list_models(tmp_path)) == 2  # none is overwritten


def test_progress_counts_images_to_the_end(trained: tuple[ModelRecord, list[Progress]]) -> None:
    _, heard = trained
    assert {step.stage for step in heard} == {"train"}
    assert [step.done for step in heard] == sorted(step.done for step in heard)
    assert (heard[-1].done, heard[-1].total, heard[-1].unit) == (128, 128, "images")
    assert "validation" in heard[-1].note


def test_what_was_trained_is_recorded(digits_model: ModelRecord, digits: Dataset) -> None:
    assert digits_model.epochs == 2
    assert digits_model.name.startswith("digits-cnn-2-epochs-")
    assert digits_model.path.name == f"{digits_model.name}.keras"
    assert digits_model.dataset_sha256 == digits.sha256
    assert digits_model.n_parameters == 2_397_226
    assert digits_model.training == {"epochs": 2, "batch_size": 32, "shift": 0.1, "flip": False, "seed": 0}
    assert set(digits_model.history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert all(len(values) == 2 and np.isfinite(values).all() for values in digits_model.history.values())
    assert digits_model.history["loss"][1] < digits_model.history["loss"][0]
    assert digits_model.history["accuracy"][1] > 0.8


@pytest.mark.parametrize(
    ("name", "config", "expected"),
    [
        ("digits", {}, {"epochs": 15, "flip": False}),
        ("mnist", {}, {"epochs": 15, "flip": False}),
        ("svhn_cropped", {}, {"epochs": 15, "flip": False}),
        ("emnist/letters", {}, {"epochs": 15, "flip": False}),
        ("cifar10", {}, {"epochs": 15, "flip": True}),
        ("cifar10_corrupted/fog_1", {}, {"epochs": 15, "flip": True}),
        ("digits", {"flip": True, "epochs": 3}, {"epochs": 3, "flip": True}),
        ("cifar10", {"flip": False}, {"epochs": 15, "flip": False}),
    ],
    ids=["digits", "mnist", "svhn", "with-a-config", "cifar10", "corrupted", "digits-as-told", "cifar10-as-told"],
)
def test_defaults_of_a_dataset(digits: Dataset, name: str, config: dict, expected: dict) -> None:
    settings = training_settings(ModelConfig(**config), digits.model_copy(update={"name": name}))
    assert {key: settings[key] for key in expected} == expected
    assert settings["batch_size"] == 32
    assert settings["shift"] == 0.1


@pytest.mark.parametrize("flip", [False, True], ids=["no-flip", "flip"])
def test_augmentation_mirrors_only_where_it_is_told_to(flip: bool) -> None:
    """Without a shift every image comes out as it is, or mirrored about half of the time."""
    images = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 3), np.uint8)
    stream = tf.data.Dataset.from_tensor_slices((images, np.arange(64)))
    batches = training_batches(stream, n=64, shape=(8, 8, 3), batch_size=16, shift=0.0, flip=flip, seed=1)
    n_mirrored = 0
    for batch, rows in batches.as_numpy_iterator():
        for image, row in zip(batch, rows, strict=True):
            mirrored = not np.allclose(image, images[row] / 255, atol=1e-5)
            np.testing.assert_allclose(image, (images[row, :, ::-1] if mirrored else images[row]) / 255, atol=1e-5)
            n_mirrored += mirrored
    assert 16 < n_mirrored < 48 if flip else n_mirrored == 0


def test_settings_reach_the_batches(tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    def refuse(images: tf.data.Dataset, **settings: object) -> None:
        asked.update(settings)
        raise InterruptedError("not needed")

    monkeypatch.setattr(training, "training_batches", refuse)
    with pytest.raises(InterruptedError, match="not needed"):
        train(tiny, tmp_path, shift=0.2, seed=9, flip=False, batch_size=8)
    assert asked == {"n": 64, "shape": (16, 16, 3), "batch_size": 8, "shift": 0.2, "flip": False, "seed": 9}


def infinite(labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    return keras.losses.sparse_categorical_crossentropy(labels, outputs) + np.inf


def infinite_in_validation(labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """Of larger batches than those of the training."""
    losses = keras.losses.sparse_categorical_crossentropy(labels, outputs)
    return losses + tf.where(tf.shape(outputs)[0] > 16, np.inf, 0.0)


@pytest.mark.parametrize("epochs", [1, 3], ids=["in-the-last-epoch", "before"])
@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (None, r"\w+ is nan"),
        (infinite, "loss is inf"),
        (infinite_in_validation, "val_loss is inf"),
    ],
    ids=["nan", "infinite", "infinite-in-validation"],
)
def test_a_training_that_diverges_is_refused_and_leaves_nothing(
    tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: int, loss: Any, said: str
) -> None:
    def build(shape: tuple[int, int, int], n_classes: int) -> keras.Model:
        model = build_cnn(shape, n_classes)
        if loss is None:
            model.optimizer.learning_rate = 1e30
        else:
            model.compile(model.optimizer, loss, metrics=["accuracy"])
        return model

    monkeypatch.setattr(training, "build_cnn", build)
    with pytest.raises(
        ModelError, match=rf"training on tiny diverged \({said} in epoch 1 of {epochs}\); try another seed"
    ):
        train(tiny, tmp_path, epochs=epochs)
    assert list(tmp_path.iterdir()) == []


def test_no_setting_of_the_training_is_left_out_of_the_record() -> None:
    """Each field of ModelConfig decides the weights, but for where the model comes from and how it is fed."""
    decisive = ModelConfig.model_fields.keys() - {"source", "code", "input"}
    dataset = Dataset.model_construct(name="cifar10")
    base = training_settings(ModelConfig(), dataset)
    assert base.keys() == decisive
    changed = {"epochs": 3, "batch_size": 64, "shift": 0.0, "flip": False, "seed": 1}
    for name, value in changed.items():
        assert training_settings(ModelConfig.model_validate({name: value}), dataset) != base


@pytest.mark.usefixtures("no_run_logger")
def test_a_dataset_with_a_config_gives_a_model_a_plain_name(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "EPOCHS", 1)
    dataset = digits.model_copy(update={"name": "emnist/letters", "n_train": 64})
    monkeypatch.setattr(training, "stream", lambda prepared, split: stream(prepared, split).take(64))
    record = train_model(training_settings(ModelConfig(), dataset), dataset, tmp_path / "models")
    assert record.path.parent == tmp_path / "models"
    assert record.name.startswith("emnist-letters-cnn-1-epochs-")
    assert record.dataset_name == "emnist/letters"
