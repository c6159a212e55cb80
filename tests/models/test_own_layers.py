"""Layers and functions of somebody's own: named where they are missing, found in the code that is given, and part of a night."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from model_files import IMAGES, KERAS2, MINE, OUTPUTS, outputs_of, refusal
from tasks.config import ExistingModelConfig, ModelConfig
from tasks.models import ModelError, digest_file, load_model
from tasks.models.registry import read_record
from tasks.parts.compute import compute_part
from tasks.parts.plan import Plan
from tasks.parts.recorded import RecordError
from tasks.recompute import recompute_rows
from tasks.seal import seal

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
