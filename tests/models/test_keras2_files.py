"""Whoever wrote a model's file: the network in it is loaded as what it was, or one line says what it is and what to do.

The files under tests/data/keras2 are of Keras 2's own code, as outputs.npz is, which says what that code gives for them.
"""

import io
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from model_files import KERAS2, LOADED, OUTPUTS, TOLERANCE, outputs_of, refusal
from tasks.models import ModelError, load_model
from tasks.numerics.network.precision import in_precision, other_precisions

# What Keras 2 wrote.


@pytest.mark.parametrize("name", LOADED)
def test_a_file_of_keras_2_gives_what_keras_2_gives(name: str) -> None:
    model = load_model(KERAS2 / name)
    assert other_precisions(model) == []
    np.testing.assert_allclose(outputs_of(model), OUTPUTS[name], atol=TOLERANCE.get(name, 1e-5))


def test_the_fixtures_tell_one_network_from_another() -> None:
    """Else outputs that agree would say nothing about where the weights went."""
    for name in LOADED:
        assert OUTPUTS[name].std(axis=1).min() > 1e-3, name


def test_arithmetic_at_the_input_is_a_rescaling_and_the_rest_calls_tensorflow() -> None:
    kinds = {
        name: [(type(layer).__name__, getattr(layer, "scale", None)) for layer in load_model(KERAS2 / name).layers[1:4]]
        for name in ("tf_mode.h5", "caffe_mode.h5", "torch_mode.h5")
    }
    assert kinds["tf_mode.h5"][:2] == [("Rescaling", pytest.approx(1 / 127.5)), ("Rescaling", 1.0)]
    assert kinds["caffe_mode.h5"][:2] == [("TensorFlowCall", None), ("Rescaling", 1.0)]
    assert [kind for kind, _ in kinds["torch_mode.h5"]] == ["Rescaling"] * 3


@pytest.mark.parametrize("name", ["operations.h5", "twins.keras", "caffe_mode.h5", "layers.h5"])
def test_what_was_made_of_a_file_of_keras_2_is_a_model_like_any_other(name: str, tmp_path: Path) -> None:
    """It can be saved and loaded, and rebuilt in another precision."""
    model = load_model(KERAS2 / name)
    model.save(tmp_path / "again.keras")
    np.testing.assert_array_equal(outputs_of(load_model(tmp_path / "again.keras")), outputs_of(model))
    np.testing.assert_allclose(outputs_of(in_precision(model, "bfloat16")), outputs_of(model), atol=0.05)


def changed_h5(name: str, folder: Path, change: Callable[[h5py.File], None]) -> Path:
    path = Path(shutil.copy(KERAS2 / name, folder / name))
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def test_weights_of_renamed_layers_find_their_place_by_order(tmp_path: Path) -> None:
    """Many rename layers by layer._name; the weights keep the names that they were made with."""

    def rename(file: h5py.File) -> None:
        text = file.attrs["model_config"]
        for k in range(3):
            text = text.replace(f'"conv{k}"', f'"renamed{k}"').replace(f'"bn{k}"', f'"normalized{k}"')
        file.attrs["model_config"] = text

    path = changed_h5("nested.h5", tmp_path, rename)
    assert [layer.name for layer in load_model(path).get_layer("backbone").layers[1:3]] == ["renamed0", "normalized0"]
    np.testing.assert_allclose(outputs_of(load_model(path)), OUTPUTS["nested.h5"], atol=1e-5)


def without_a_layer(file: h5py.File) -> None:
    group = file["model_weights"]
    group.attrs["layer_names"] = [name for name in group.attrs["layer_names"] if name != "dense"]


def with_other_weights(file: h5py.File) -> None:
    del file["model_weights/dense/dense/kernel:0"]
    file["model_weights/dense/dense/kernel:0"] = np.zeros((2, 4))


def with_a_layer_too_many(file: h5py.File) -> None:
    text = file.attrs["model_config"]
    file.attrs["model_config"] = text.replace('"name": "dense"', '"name": "other"').replace(
        '["dense", 0', '["other", 0'
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_a_layer, r"no weights for layer 'dense'; the file is incomplete"),
        (with_other_weights, r"layer 'dense' do not fit: expected kernel of shape \(3, 4\), got \(2, 4\)"),
        (with_a_layer_too_many, "the weights of layer 'dense' have no layer in the model"),
    ],
    ids=["missing", "shape", "unknown"],
)
def test_weights_that_do_not_fit_are_refused_never_guessed(change: Callable, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        load_model(changed_h5("tf_mode.h5", tmp_path, change))


def repacked(name: str, folder: Path, change: Callable[[h5py.File], None]) -> Path:
    """A .keras file with its weights changed."""
    with zipfile.ZipFile(KERAS2 / name) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    weights = io.BytesIO(members["model.weights.h5"])
    with h5py.File(weights, "r+") as file:
        change(file)
    path = folder / name
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in (members | {"model.weights.h5": weights.getvalue()}).items():
            archive.writestr(member, content)
    return path


def test_a_file_of_keras_2_13_loads_whose_weights_are_kept_otherwise(tmp_path: Path) -> None:
    def rename(group: h5py.Group) -> None:
        for name, inside in list(group.items()):
            if isinstance(inside, h5py.Group):
                rename(inside)
                if name == "layers":
                    group.move(name, "_layer_checkpoint_dependencies")

    path = repacked("nested.keras", tmp_path, rename)
    np.testing.assert_allclose(outputs_of(load_model(path)), OUTPUTS["nested.keras"], atol=1e-5)


def test_a_weight_of_a_keras_file_that_has_no_place_is_refused(tmp_path: Path) -> None:
    path = repacked("nested.keras", tmp_path, lambda file: file.create_dataset("layers/other/vars/0", data=np.ones(3)))
    assert "the file's 21 weights are not those of the model, 20 (written by Keras 2" in refusal(path)


def test_an_argument_that_keras_3_cannot_compute_is_named(tmp_path: Path) -> None:
    def group(file: h5py.File) -> None:
        file.attrs["model_config"] = file.attrs["model_config"].replace(
            '"depth_multiplier": 1', '"depth_multiplier": 1, "time_major": true'
        )

    message = refusal(changed_h5("teachable.h5", tmp_path, group))
    assert "layer 'depthwise_conv2d' (DepthwiseConv2D) has time_major=True, which Keras 3 cannot compute" in message


def test_a_function_that_is_not_known_is_named_with_the_way_to_convert() -> None:
    assert (
        "unknown.h5: layer 'tf.math.bessel_i0' calls math.bessel_i0 of TensorFlow, which is not one of the functions that "
        "are known to mean the same in Keras 3 (written by Keras 2.21.0); convert it with Keras 2, which "
        "`pip install tf_keras` installs: tf_keras.models.load_model(FILE, compile=False).export(FOLDER), and give the folder"
    ) in refusal(KERAS2 / "unknown.h5")


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        (
            {"keras_version": "1.2.2"},
            "written by Keras 1.2.2 on tensorflow; expected Keras 2 on TensorFlow, or Keras 3",
        ),
        ({"backend": "theano"}, "written by Keras 2.1.6 on theano; expected Keras 2 on TensorFlow, or Keras 3"),
    ],
    ids=["keras-1", "theano"],
)
def test_a_file_that_is_older_still_says_what_wrote_it(attributes: dict, message: str, tmp_path: Path) -> None:
    assert message in refusal(changed_h5("old.h5", tmp_path, lambda file: file.attrs.update(attributes)))


# Under other names, and not packed.


@pytest.mark.parametrize(
    ("name", "other"), [("tf_mode.h5", "model.keras"), ("tf_mode.keras", "model.h5")], ids=["hdf5", "archive"]
)
def test_a_file_is_what_its_content_is(name: str, other: str, tmp_path: Path) -> None:
    shutil.copy(KERAS2 / name, tmp_path / other)
    np.testing.assert_allclose(outputs_of(load_model(tmp_path / other)), OUTPUTS[name], atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*legacy.*")
@pytest.mark.parametrize(("suffix", "other"), [(".h5", ".keras"), (".keras", ".hdf5")], ids=["hdf5", "archive"])
def test_so_is_one_of_keras_3(
    small_network: Callable[..., keras.Model], suffix: str, other: str, tmp_path: Path
) -> None:
    model = small_network(shape=(8, 8, 3))
    model.save(tmp_path / f"model{suffix}")
    renamed = (tmp_path / f"model{suffix}").rename(tmp_path / f"other{other}")
    np.testing.assert_array_equal(outputs_of(load_model(renamed)), outputs_of(model))


@pytest.mark.parametrize("version", [2, 3])
def test_an_unpacked_keras_file_loads(small_network: Callable[..., keras.Model], version: int, tmp_path: Path) -> None:
    model = load_model(KERAS2 / "tf_mode.keras") if version == 2 else small_network(shape=(8, 8, 3))
    path = KERAS2 / "tf_mode.keras"
    if version == 3:
        path = tmp_path / "model.keras"
        model.save(path)
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "unpacked")
    np.testing.assert_array_equal(outputs_of(load_model(tmp_path / "unpacked")), outputs_of(model))
