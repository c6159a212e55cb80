"""Whoever wrote a model's file: the network in it is loaded as what it was, or one line says what it is and what to do.

The files under tests/data/keras2 are of Keras 2's own code, as outputs.npz is, which says what that code gives for them.
"""

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from places import DATA
from tasks.config import ExistingModelConfig, ModelConfig
from tasks.models import ModelError, digest_file, load_model
from tasks.models.registry import existing_model, read_record
from tasks.numerics.network.precision import in_precision, other_precisions
from tasks.parts.compute import compute_part
from tasks.parts.plan import Plan
from tasks.parts.recorded import RecordError
from tasks.recompute import recompute_rows
from tasks.seal import seal

KERAS2 = DATA / "keras2"
OUTPUTS = np.load(KERAS2 / "outputs.npz")
IMAGES = OUTPUTS["images"]
REFUSED = ("lambda.h5", "custom.h5", "custom.keras", "unknown.h5", "weights.h5")
LOADED = [name for name in OUTPUTS.files if name not in ("images", *REFUSED)]
TOLERANCE = {"mixed.h5": 1e-3}  # computed by Keras 2 in half precision

MINE = """
import keras

@keras.saving.register_keras_serializable("mine")
class Squeeze(keras.layers.Layer):
    def call(self, inputs):
        return inputs * 2 - 1

def bent(x):
    return keras.ops.where(x > 0, x, 0.3 * x)

class Net(keras.Model):
    def __init__(self, width=3, **options):
        super().__init__(**options)
        self.width = width
        self.features = keras.layers.Conv2D(width, 3)
        self.verdict = keras.layers.Dense(4, activation="softmax")

    def call(self, images):
        return self.verdict(keras.ops.mean(self.features(images), axis=(1, 2)))

    def get_config(self):
        return super().get_config() | {"width": self.width}
"""


def outputs_of(model: keras.Model, images: np.ndarray = IMAGES) -> np.ndarray:
    is_named = not isinstance(model, keras.Sequential) and isinstance(model.input, dict)
    given = model({"image": images} if is_named else images, training=False)
    if isinstance(given, list):
        return np.concatenate(given, axis=1)
    return np.asarray(given["probs"] if isinstance(given, dict) else given)


def refusal(path: Path, code: Path | None = None) -> str:
    """The message for a model that cannot be loaded: one line, without what libraries print of their objects."""
    with pytest.raises(ModelError) as caught:
        load_model(path, code)
    message = str(caught.value)
    assert "\n" not in message and "<class" not in message and "{'" not in message and "..." not in message
    return message


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "my_layers.py"
    path.write_text(MINE)
    return path


@pytest.fixture(autouse=True)
def nothing_registered() -> Any:
    """What a test's code registers is unknown to the next test."""
    known = dict(keras.saving.get_custom_objects())
    yield
    keras.saving.get_custom_objects().clear()
    keras.saving.get_custom_objects().update(known)


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


# SavedModel folders.


def convolution(shape: tuple[int, ...] = (8, 8, 3)) -> keras.Model:
    keras.utils.set_random_seed(4)
    images = keras.Input(shape)
    x = keras.layers.Conv2D(3, 3, activation="tanh")(images)
    return keras.Model(images, keras.layers.Dense(4, activation="softmax")(keras.layers.GlobalAveragePooling2D()(x)))


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


def two_outputs() -> keras.Model:
    images = keras.Input((8, 8, 3))
    flat = keras.layers.Flatten()(images)
    return keras.Model(images, {"label": keras.layers.Dense(4)(flat), "box": keras.layers.Dense(2)(flat)})


def two_inputs() -> keras.Model:
    left, right = keras.Input((8, 8, 3), name="left"), keras.Input((8, 8, 3), name="right")
    return keras.Model([left, right], keras.layers.Flatten()(left + right))


def of_bytes() -> keras.Model:
    images = keras.Input((8, 8, 3), dtype="uint8")
    return keras.Model(images, keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(images)))


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


# Layers and functions of one's own.


def with_own_layers(folder: Path, suffix: str, *, registered: bool) -> tuple[Path, np.ndarray]:
    """A model of layers that the code of `mine` defines, and what it gives; nothing of it stays registered."""
    names: dict[str, Any] = {"__name__": "elsewhere"}
    source = MINE if registered else MINE.replace('@keras.saving.register_keras_serializable("mine")', "")
    exec(source, names)
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(3, 3, activation=names["bent"])(names["Squeeze"](name="squeeze")(images))
    model = keras.Model(images, keras.layers.Dense(4)(keras.layers.Flatten()(x)))
    path = folder / f"theirs{suffix}"
    model.save(path)
    keras.saving.get_custom_objects().clear()
    return path, outputs_of(model)


@pytest.mark.filterwarnings("ignore:.*legacy.*")
@pytest.mark.parametrize("registered", [True, False], ids=["registered", "plain"])
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_own_layers_are_named_and_found_in_the_code(suffix: str, registered: bool, mine: Path, tmp_path: Path) -> None:
    path, expected = with_own_layers(tmp_path, suffix, registered=registered)
    name = "mine>Squeeze" if registered else "Squeeze"
    assert refusal(path).endswith(
        f"theirs{suffix}: layer 'squeeze' is of the class {name}, which is not Keras's own; set model.code to the Python "
        "file that defines it, which is then executed"
    )
    np.testing.assert_array_equal(outputs_of(load_model(path, mine)), expected)


@pytest.mark.parametrize("name", ["custom.h5", "custom.keras"])
def test_own_layers_of_keras_2_are_too(name: str, mine: Path) -> None:
    assert "layer 'squeeze' is of the class mine>Squeeze" in refusal(KERAS2 / name)
    np.testing.assert_allclose(outputs_of(load_model(KERAS2 / name, mine)), OUTPUTS[name], atol=1e-5)


def test_an_own_function_is_named(mine: Path, tmp_path: Path) -> None:
    mine.write_text(MINE.replace("def bent", "def straight"))
    path, _ = with_own_layers(tmp_path, ".keras", registered=True)
    with pytest.raises(
        ModelError,
        match=r"my_layers.py: does not define the function bent of the activation of layer 'conv2d\w*' in theirs.keras; it "
        "defines Net, Squeeze, straight$",
    ):
        load_model(path, mine)


def test_own_layers_may_be_imported_from_beside_the_code(mine: Path, tmp_path: Path) -> None:
    beside = tmp_path / "package"
    beside.mkdir()
    mine.rename(beside / "layers_of_mine.py")
    (beside / "code.py").write_text("from layers_of_mine import Squeeze, bent\n")
    path, expected = with_own_layers(tmp_path, ".keras", registered=False)
    np.testing.assert_array_equal(outputs_of(load_model(path, beside / "code.py")), expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "import nothing_of_that_name",
            r", line 1: cannot be imported \(ModuleNotFoundError: No module named 'nothing",
        ),
        ("x = 1\ny = 1 / 0", r", line 2: cannot be imported \(ZeroDivisionError: division by zero\)"),
        ("def f(:", r", line 1: cannot be imported \(SyntaxError"),
        ("raise SystemExit(3)", r", line 1: cannot be imported \(SystemExit: 3\)"),
        ("", "does not define the class mine>Squeeze .*; it defines no class and no function"),
        (None, "model.code: expected a Python file, got .*my_layers.py, which is not there"),
    ],
    ids=["module", "error", "syntax", "exit", "empty", "gone"],
)
def test_code_that_is_of_no_use_is_one_line(content: str | None, message: str, mine: Path) -> None:
    mine.unlink() if content is None else mine.write_text(content)
    with pytest.raises(ModelError, match=message):
        load_model(KERAS2 / "custom.h5", mine)


def test_a_text_file_is_no_code(tmp_path: Path) -> None:
    (tmp_path / "layers.txt").write_text(MINE)
    with pytest.raises(ModelError, match="expected a Python file, whose name ends in .py, got .*layers.txt"):
        read_record(KERAS2 / "custom.h5", tmp_path / "layers.txt")


def test_the_code_is_part_of_the_record(mine: Path) -> None:
    record = read_record(KERAS2 / "custom.h5", mine)
    assert (record.code, record.code_sha256) == (mine, digest_file(mine))
    assert read_record(KERAS2 / "custom.h5").code_sha256 == ""


def test_a_model_that_is_no_graph_is_wrapped_in_one(mine: Path, tmp_path: Path) -> None:
    names: dict[str, Any] = {"__name__": "elsewhere"}
    exec(MINE, names)
    model = names["Net"]()
    expected = model(IMAGES / 255).numpy()
    model.save(tmp_path / "net.keras")
    assert "net.keras: the model is of the class Net, which is not Keras's own" in refusal(tmp_path / "net.keras")
    loaded = load_model(tmp_path / "net.keras", mine)
    assert (loaded.input_shape, loaded.output_shape) == ((None, 8, 8, 3), (None, 4))
    np.testing.assert_allclose(outputs_of(loaded, IMAGES / 255), expected, atol=1e-6)


OF_TENSORFLOW = (
    "softmax",
    "relu",
    "relu6",
    "silu",
    "leaky_relu",
    "gelu",
    "elu",
    "selu",
    "sigmoid",
    "tanh",
    "log_softmax",
)


@pytest.mark.filterwarnings("ignore:.*legacy.*")
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("name", OF_TENSORFLOW)
def test_an_activation_of_tensorflow_needs_no_code(name: str, suffix: str, tmp_path: Path) -> None:
    images = keras.Input((8, 8, 3))
    model = keras.Model(images, keras.layers.Dense(4, activation=getattr(tf.nn, name))(keras.layers.Flatten()(images)))
    model.save(tmp_path / f"theirs{suffix}")
    loaded = load_model(tmp_path / f"theirs{suffix}")
    np.testing.assert_allclose(outputs_of(loaded, IMAGES / 255), outputs_of(model, IMAGES / 255), atol=1e-6)


# Code in the file.


@pytest.mark.filterwarnings("ignore:.*legacy.*")
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_lambda_is_named_and_its_code_never_executed(suffix: str, tmp_path: Path) -> None:
    trace = str(tmp_path / "executed")
    images = keras.Input((8, 8, 3))
    model = keras.Model(images, keras.layers.Lambda(lambda x: [Path(trace).touch(), x][1], name="twice")(images))
    model.save(tmp_path / f"theirs{suffix}")
    Path(trace).unlink()
    message = refusal(tmp_path / f"theirs{suffix}")
    assert (
        "layer 'twice' is a Lambda, whose code is in the file and is never executed); put a layer class of" in message
    )
    assert "load_model(FILE, compile=False, safe_mode=False).export(FOLDER)" in message
    assert not Path(trace).exists()


def test_a_lambda_of_keras_2_is_too() -> None:
    assert "lambda.h5: not a Keras model that can be loaded (layer 'double' is a Lambda" in refusal(
        KERAS2 / "lambda.h5"
    )


def test_a_lambda_can_be_exported_where_it_is_trusted(tmp_path: Path) -> None:
    """The way that the message names."""
    images = keras.Input((8, 8, 3))
    model = keras.Model(images, keras.layers.Flatten()(keras.layers.Lambda(lambda x: x * 2 - 1)(images)))
    model.save(tmp_path / "theirs.keras")
    trusted = keras.models.load_model(tmp_path / "theirs.keras", compile=False, safe_mode=False)
    trusted.export(tmp_path / "folder", verbose=False)
    np.testing.assert_allclose(outputs_of(load_model(tmp_path / "folder")), outputs_of(model), rtol=1e-6)


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


def test_the_code_is_a_setting_of_both_flows(mine: Path) -> None:
    assert (
        ModelConfig(source="x.keras", code=mine).code == ExistingModelConfig(source="x.keras", code=mine).code == mine
    )


@pytest.fixture
def own_plan(make_small_plan: Callable[..., Plan], mine: Path, tmp_path: Path) -> Callable[[], Plan]:
    """Makes the plan of a model that needs `mine`, with the code as it is then."""
    names: dict[str, Any] = {"__name__": "elsewhere"}
    exec(MINE, names)
    images = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(3, 3, strides=4)(names["Squeeze"]()(images))
    x = keras.layers.Dense(10, activation="softmax")(keras.layers.Flatten()(x))
    keras.Model(images, x).save(tmp_path / "theirs.keras")
    keras.saving.get_custom_objects().clear()
    return lambda: make_small_plan(tmp_path, model=read_record(tmp_path / "theirs.keras", mine), rows="0:4")


def test_other_code_is_another_night(own_plan: Callable[[], Plan], mine: Path) -> None:
    before = own_plan().digest
    assert own_plan().digest == before
    mine.write_text(MINE.replace("* 2 - 1", "* 3 - 1"))
    assert own_plan().digest != before


@pytest.mark.usefixtures("no_run_logger")
def test_a_store_never_names_the_code_that_is_executed_to_check_it(
    own_plan: Callable[[], Plan], mine: Path, tmp_path: Path
) -> None:
    """Somebody else's store could name any file; who checks it names the code, and it must be the same."""
    plan = own_plan()
    compute_part(plan, 0, 4)
    path = seal.fn(plan, "20261123T020000Z-ab12cd", "2026-11-23T02:00:00Z", "", {})
    with pytest.raises(
        RecordError, match="the model needs the code of .*my_layers.py, which is executed; name that file with"
    ):
        recompute_rows(path, 2, seed=0)
    assert recompute_rows(path, 2, seed=0, code=mine)[1] == ()
    moved = Path(shutil.move(mine, tmp_path / "moved.py"))
    assert recompute_rows(path, 2, seed=0, code=moved)[1] == ()
    moved.write_text(MINE.replace("* 2 - 1", "* 3 - 1"))
    with pytest.raises(RecordError, match="moved.py: expected code with the sha256 .*, got"):
        recompute_rows(path, 2, seed=0, code=moved)


@pytest.mark.usefixtures("no_run_logger")
def test_code_for_a_store_that_needs_none_is_refused(small_plan: Plan, mine: Path) -> None:
    path = seal.fn(small_plan, "20261123T020001Z-ab12cd", "2026-11-23T02:00:00Z", "", {})
    with pytest.raises(RecordError, match="my_layers.py: expected no code for this model, got"):
        recompute_rows(path, 2, seed=0, code=mine)
