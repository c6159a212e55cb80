"""Whatever file is given for a model: one of any inputs and outputs loads, and one line says of all else what it is."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from model_files import KERAS2, OUTPUTS, convolution, of_bytes, outputs_of, refusal, two_inputs, two_outputs
from tasks.models import ModelError, load_model
from tasks.models.registry import existing_model
from tasks.numerics.network.precision import other_precisions

# Models of other shapes: what is made of them is not for the file to say.


def of_any_size() -> keras.Model:
    images = keras.Input((None, None, 3))
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(images)))


def flat() -> keras.Model:
    return keras.Sequential([keras.Input((192,)), keras.layers.Dense(4)])


def without_channels() -> keras.Model:
    return keras.Sequential([keras.Input((8, 8)), keras.layers.Flatten(), keras.layers.Dense(4)])


def of_dicts() -> keras.Model:
    images = keras.Input((8, 8, 3), name="image")
    return keras.Model({"image": images}, {"probs": keras.layers.Dense(4)(keras.layers.Flatten()(images))})


@pytest.mark.parametrize("make", [of_any_size, flat, without_channels, of_dicts, of_bytes, two_inputs, two_outputs])
def test_models_of_any_inputs_and_outputs_load(make: Callable[[], keras.Model], tmp_path: Path) -> None:
    model = make()
    model.save(tmp_path / "theirs.keras")
    loaded = load_model(tmp_path / "theirs.keras")
    assert loaded.input_shape == model.input_shape
    assert loaded.output_shape == model.output_shape


@pytest.mark.parametrize("make", [of_any_size, of_dicts], ids=["size", "dicts"])
def test_they_do_in_half_precision(make: Callable[[], keras.Model], tmp_path: Path) -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        make().save(tmp_path / "theirs.keras")
    finally:
        keras.config.set_dtype_policy("float32")
    assert other_precisions(load_model(tmp_path / "theirs.keras")) == []


# Files that are no model.


def weights_of_keras_3(path: Path) -> None:
    convolution().save_weights(path)


def some_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("photos/1.jpg", b"x")


def some_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["images"] = np.zeros(3)


def cut(path: Path) -> None:
    convolution().save(path)
    path.write_bytes(path.read_bytes()[:-200])


def pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")


def web_page(path: Path) -> None:
    path.write_text("\n<!DOCTYPE html>\n<html><head><title>model.h5 at main</title></head></html>")


def config_of_nothing(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("config.json", "metadata.json", "model.weights.h5"):
            archive.writestr(name, "[1, 2]")


def a_layer(path: Path) -> None:
    convolution().save(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])["config"]["layers"][2]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (members | {"config.json": json.dumps(config).encode()}).items():
            archive.writestr(name, content)


def text(content: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(content) and None


NO_MODELS = {
    "model.weights.h5": (weights_of_keras_3, r"weights only, without the network they belong to; build the network in"),
    "empty.h5": (text(""), r"expected an HDF5 file, got an empty file\); save it again"),
    "empty.keras": (text(""), "expected a .keras file, which is a zip archive, got an empty file; save it with"),
    "text.h5": (text("hello"), r"expected an HDF5 file, got something else\); save it again"),
    "other.h5": (some_hdf5, r"an HDF5 file with images in it, without model_config\); save the model"),
    "half.keras": (cut, "expected a .keras file, which is a zip archive, got one that is cut off; save it with"),
    "photos.keras": (some_zip, r"a zip archive with photos/1.jpg in it, not with config.json and model.weights.h5"),
    "list.keras": (config_of_nothing, r"its configuration cannot be read\); save it again"),
    "layer.keras": (a_layer, "expected a model, got GlobalAveragePooling2D; save the model with model.save"),
    "pointer.keras": (pointer, "a pointer of Git LFS, not the model itself; run `git lfs pull` in its repository"),
    "page.h5": (web_page, "a web page, not a model; download the file itself"),
    "net.pt": (text("x"), r"expected a .keras or .h5 model file, got .pt, weights of PyTorch or of another program;"),
    "net.pth": (text("x"), "got .pth, weights of PyTorch"),
    "net.onnx": (text("x"), "got .onnx, an ONNX model; give the Keras model that it was made from"),
    "net.tflite": (text("    TFL3"), "got a TensorFlow Lite model; give the Keras model"),
    "saved_model.pb": (text("x"), "got .pb, one file of a SavedModel, or a frozen graph; give the folder that holds"),
    "model.json": (text("{}"), "got .json, a description without weights; save the whole model"),
    "net.pkl": (text("x"), "got .pkl, a pickle, which is never opened"),
    "net": (text("x"), "expected a .keras or .h5 model file, got no suffix; give a .keras or .h5 file, or the folder"),
}


@pytest.mark.parametrize("name", NO_MODELS)
def test_what_is_no_model_says_what_it_is_and_what_to_do(name: str, tmp_path: Path) -> None:
    write, message = NO_MODELS[name]
    write(tmp_path / name)
    with pytest.raises(ModelError, match=f"^{tmp_path / name}: .*{message}"):
        load_model(tmp_path / name)
    refusal(tmp_path / name)


def test_weights_of_keras_2_are_too_and_the_way_out_works(tmp_path: Path) -> None:
    message = refusal(KERAS2 / "weights.h5")
    assert "weights only" in message and "model.load_weights('weights.h5')" in message
    network = load_model(KERAS2 / "teachable.h5")
    network.load_weights(KERAS2 / "weights.h5")
    network.save(tmp_path / "model.keras")
    np.testing.assert_allclose(outputs_of(load_model(tmp_path / "model.keras")), OUTPUTS["weights.h5"], atol=1e-5)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "a folder without saved_model.pb, it is empty; give a .keras or .h5 file, or the folder of a SavedModel"),
        (["a.txt", "b.txt"], "a folder without saved_model.pb, it holds a.txt, b.txt; give"),
        (["best.keras", "notes.txt"], "a folder with best.keras in it; give one of them"),
        (["checkpoint", "w.index"], "a TensorFlow checkpoint, which holds weights only; build the network, load the"),
    ],
    ids=["empty", "other", "models", "checkpoint"],
)
def test_a_folder_that_is_no_model_says_what_it_holds(files: list[str], message: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).write_text("x")
    assert f"{tmp_path}: {message}" in refusal(tmp_path)


# Settings.


def test_models_are_found_by_name_or_path(small_network: Callable[..., keras.Model], tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match="no model 'mine' in .*, there is none yet; give a name .*, or the path of a .keras"
    ):
        existing_model("mine", tmp_path)
    with pytest.raises(
        ModelError, match="no model file at .*gone; expected auto, train, or the path of a .keras or .h5"
    ):
        existing_model(str(tmp_path / "gone"), tmp_path)
