"""Exported folders: what the model gives, with its gradients, or one line that says why not."""

import shutil
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from model_files import IMAGES, KERAS2, OUTPUTS, convolution, of_bytes, outputs_of, refusal, two_inputs, two_outputs
from tasks.models import digest_file, load_model
from tasks.models.registry import existing_model, read_record
from tasks.numerics.network.precision import in_precision


@pytest.mark.parametrize("name", ["exported", "exported.keras", "exported.v2.h5"])
def test_an_exported_folder_gives_what_the_model_gives_and_its_gradients(name: str, tmp_path: Path) -> None:
    model = convolution()
    model.export(tmp_path / name, verbose=False)
    loaded, images = load_model(tmp_path / name), tf.constant(IMAGES / 255)
    assert (loaded.input_shape, loaded.output_shape) == ((None, 8, 8, 3), (None, 4))
    gradients = []
    for each in (model, loaded):
        with tf.GradientTape() as tape:
            tape.watch(images)
            score = each(images)[:, 1]
        gradients.append(tape.gradient(score, images).numpy())
        np.testing.assert_allclose(score, model(images)[:, 1], atol=1e-6)
    assert np.abs(gradients[0]).max() > 1e-3
    np.testing.assert_allclose(gradients[1], gradients[0], atol=1e-7)


def test_a_folder_of_keras_2_called_keras_loads(tmp_path: Path) -> None:
    shutil.copytree(KERAS2 / "saved_model", tmp_path / "named.keras")
    np.testing.assert_allclose(outputs_of(load_model(tmp_path / "named.keras")), OUTPUTS["saved_model"], atol=1e-5)


def test_a_folder_with_another_single_signature_loads(tmp_path: Path) -> None:
    model = convolution()
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("classify", model.call, input_signature=[tf.TensorSpec((None, 8, 8, 3), tf.float32)])
    archive.write_out(tmp_path / "exported", verbose=False)
    np.testing.assert_allclose(outputs_of(load_model(tmp_path / "exported")), outputs_of(model), atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            two_outputs,
            "expected a function with one output, got serving_default with box, label; export the classifier",
        ),
        (
            two_inputs,
            "expected a function of one image, got serving_default of left, right; export the classifier",
        ),
        (of_bytes, "serving_default takes uint8, through which no gradient passes; export the classifier"),
    ],
    ids=["outputs", "inputs", "uint8"],
)
def test_a_folder_with_another_function_is_refused(make: Callable, message: str, tmp_path: Path) -> None:
    make().export(tmp_path / "exported", verbose=False)
    assert message in refusal(tmp_path / "exported")


def test_a_folder_without_signature_is_refused(tmp_path: Path) -> None:
    tf.saved_model.save(tf.Module(), tmp_path / "bare")
    assert "expected a SavedModel with the signature serving_default, got no signature" in refusal(tmp_path / "bare")


def test_a_damaged_folder_is_refused(tmp_path: Path) -> None:
    shutil.copytree(KERAS2 / "saved_model", tmp_path / "half")
    (tmp_path / "half" / "saved_model.pb").write_bytes((KERAS2 / "saved_model" / "saved_model.pb").read_bytes()[:999])
    assert "half: not a SavedModel that can be loaded" in refusal(tmp_path / "half")


def test_a_folder_has_a_record_and_a_digest_of_all_that_is_in_it(tmp_path: Path) -> None:
    path = Path(shutil.copytree(KERAS2 / "saved_model", tmp_path / "saved_model"))
    record = read_record(path)
    assert (record.name, record.path, record.sha256) == ("saved_model", path, digest_file(path))
    assert digest_file(Path(shutil.copytree(path, tmp_path / "copy"))) == record.sha256
    assert existing_model(str(path), tmp_path / "models") == path
    variables = path / "variables" / "variables.data-00000-of-00001"
    variables.write_bytes(variables.read_bytes()[:-1] + b"x")
    assert digest_file(path) != record.sha256
    shutil.move(tmp_path / "copy" / "variables", tmp_path / "copy" / "renamed")
    assert digest_file(tmp_path / "copy") != record.sha256


def test_a_folder_cannot_be_rebuilt_in_another_precision_and_the_layer_is_named() -> None:
    model = load_model(KERAS2 / "saved_model")
    with pytest.raises(
        ValueError,
        match=r"rebuilt in bfloat16: layer 'tfsm_layer\w*' \(TFSMLayer\) cannot be made again from its config\w+$",
    ):
        in_precision(model, "bfloat16")
