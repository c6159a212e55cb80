"""Models in other precisions: rebuilt with the same weights, in float32 for what was saved otherwise, in bfloat16 on request."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from reference import N_CLASSES, SHAPE, random_images, randomise, small_cnn
from storage import open_store
from tasks.config import ExplanationConfig
from tasks.models.registry import ModelError, load_model
from tasks.numerics.explainer import Explainer, Settings
from tasks.numerics.network.precision import in_precision, other_precisions
from tasks.numerics.network.scores import score_model
from tasks.numerics.quadrature import Adaptive, Tolerances
from tasks.parts.compute import compute_part
from tasks.parts.plan import Plan
from tasks.parts.precision_error import describe_precision, measure_precision_error
from tasks.seal import seal

IMAGES, TARGETS = random_images(9, 1), np.arange(9) % N_CLASSES
OTHERS = ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16", "float64"]
EPSILON = {"mixed_float16": 1e-2, "float16": 1e-2, "mixed_bfloat16": 5e-2, "bfloat16": 5e-2, "float64": 1e-5}


def under(policy: str, make: Callable[[], keras.Model]) -> keras.Model:
    """What `make` makes where the policy is the default, as somebody else's program would."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        return make()
    finally:
        keras.config.set_dtype_policy(before)


def sequential() -> keras.Model:
    layers = [
        keras.layers.Conv2D(3, 3, name="conv"),
        keras.layers.Flatten(),
        keras.layers.Dense(4, activation="softmax"),
    ]
    model = keras.Sequential([keras.Input(SHAPE), *layers])
    randomise(model, 1)
    return model


def nested() -> keras.Model:
    images = keras.Input(SHAPE)
    return keras.Model(images, sequential()(images))


def with_operations() -> keras.Model:
    logits = small_cnn(0, ending="logits")
    return keras.Model(logits.inputs[0], keras.ops.softmax(keras.ops.multiply(logits.outputs[0], 1.0)))


def with_a_list() -> keras.Model:
    model = small_cnn(0)
    return keras.Model([model.inputs[0]], model.outputs[0])


MAKERS = {
    "functional": lambda: small_cnn(0),
    "sequential": sequential,
    "nested": nested,
    "operations": with_operations,
    "list": with_a_list,
}


@pytest.mark.parametrize("policy", OTHERS)
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_what_was_saved_in_another_precision_is_explained_in_float32(policy, make, tmp_path):
    theirs, path = under(policy, make), tmp_path / "theirs.keras"
    theirs.save(path)
    ours = load_model(path)
    assert other_precisions(theirs) and not other_precisions(ours)
    answer = score_model(ours, "probability")(IMAGES)
    assert answer.dtype == tf.float32
    np.testing.assert_allclose(answer, tf.cast(theirs(IMAGES), tf.float32), atol=EPSILON[policy])
    for mine, weight in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, weight.astype(np.float32))


def test_a_float32_model_is_loaded_as_it_is(tmp_path):
    small_cnn(0).save(tmp_path / "plain.keras")
    loaded = load_model(tmp_path / "plain.keras")
    assert other_precisions(loaded) == []
    np.testing.assert_array_equal(loaded(IMAGES), small_cnn(0)(IMAGES))


def casting() -> keras.Model:
    images = keras.Input(SHAPE)
    x = keras.ops.cast(keras.layers.Flatten()(images), "float16")
    return keras.Model(images, keras.layers.Dense(4, dtype="float16", name="last")(x))


def test_a_cast_on_the_way_is_to_float32_then(tmp_path):
    casting().save(tmp_path / "casting.keras")
    model = load_model(tmp_path / "casting.keras")
    kernel, bias = (weight.numpy().astype(np.float64) for weight in model.get_layer("last").weights)
    np.testing.assert_allclose(model(IMAGES), IMAGES.reshape(9, -1) @ kernel + bias, atol=1e-5)
    assert in_precision(model, "bfloat16")(IMAGES).dtype == tf.float32


@keras.saving.register_keras_serializable("tests")
class Insisting(keras.layers.Layer):
    """Gives float16, whatever its policy is."""

    def call(self, inputs):
        return keras.ops.cast(inputs, "float16")

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, dtype="float16")


def test_a_model_that_insists_on_its_precision_is_refused(tmp_path):
    images = keras.Input(SHAPE)
    logits = keras.layers.Dense(4)(keras.layers.Flatten()(images))
    keras.Model(images, Insisting()(logits)).save(tmp_path / "insisting.keras")
    expected = (
        r"insisting.keras: expected a model that computes in float32, got float16, and the model cannot be rebuilt in "
    )
    with pytest.raises(
        ModelError, match=expected + "float32: .* asks for float16 itself; save it with the dtype policy"
    ):
        load_model(tmp_path / "insisting.keras")


class Stubborn(keras.layers.Layer):
    """Does not say how it is built again."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, inputs):
        return self.factor * inputs


def test_a_model_that_cannot_be_rebuilt_is_refused_with_the_reason():
    images = keras.Input(SHAPE)
    model = keras.Model(images, keras.layers.Dense(4)(keras.layers.Flatten()(Stubborn(2.0)(images))))
    with pytest.raises(ValueError, match=r"^the model cannot be rebuilt in bfloat16: .*"):
        in_precision(model, "bfloat16")


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_in_bfloat16_all_but_the_last_layer_computes_so(make):
    model = make()
    copy = in_precision(model, "bfloat16")
    computing = {layer.compute_dtype for layer in copy._flatten_layers() if layer.weights and not layer._layers}
    assert computing == {"float32", "bfloat16"} and copy.outputs[0].dtype == "float32"
    assert {weight.dtype for weight in copy.weights} == {"float32"}
    assert other_precisions(model) == []  # which stays as it was
    difference = np.abs(copy(IMAGES).numpy() - model(IMAGES).numpy()).max()
    assert 1e-5 < difference < 0.05


def test_only_gradients_are_computed_in_bfloat16():
    tolerances = Tolerances(gap=0.05, error=0.2)
    exact, coarse = (
        Explainer(
            small_cnn(8, sharpness=8),
            Settings(
                score="probability", rule=Adaptive(), tolerances=tolerances, layer="conv_2", batch_size=8,
                precision=precision,
            ),
        )
        for precision in ("float32", "bfloat16")
    )  # fmt: skip
    end, other = (each.endpoint(IMAGES, TARGETS) for each in (coarse, exact))
    for found, values in zip(end.arrays, other.arrays, strict=True):
        np.testing.assert_array_equal(found, values)
    zeros = np.zeros_like(IMAGES)
    ours, theirs = (each.integrated_gradients(IMAGES, zeros, TARGETS) for each in (coarse, exact))
    np.testing.assert_array_equal(ours.score, theirs.score)
    np.testing.assert_array_equal(ours.score_baseline, theirs.score_baseline)
    difference = ours.score.astype(np.float64) - ours.score_baseline
    gap = ours.attribution.sum((1, 2, 3), dtype=np.float64) - difference
    np.testing.assert_allclose(ours.gap, gap, atol=1e-6)  # of what is stored, from scores in float32
    off = np.linalg.norm((ours.attribution - theirs.attribution).reshape(9, -1), axis=1)
    off /= np.linalg.norm(theirs.attribution.reshape(9, -1), axis=1)
    assert 1e-4 < np.median(off) < 0.3


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.usefixtures("no_run_logger")
def test_a_night_records_its_precision_and_what_that_costs(
    make_small_plan: Callable[..., Plan], tmp_path: Path, precision: str
) -> None:
    explanation = ExplanationConfig.model_validate({"part_rows": 32, "batch_size": 64, "precision": precision})
    plan = make_small_plan(tmp_path, explanation=explanation)
    compute_part(plan, 0, 20)
    path = seal.fn(plan, "20261123T020000Z-ab12cd", "2026-11-23T02:00:00Z", "", {})
    with open_store(path) as store:
        about, stored = store.attributes, store.attributions(...)
    assert (about["batch_size"], about["precision"]) == (64, precision)
    if precision == "float32":
        assert about["precision_error"] == {}
        return
    measured: dict[str, Any] = json.loads(json.dumps(about["precision_error"]))
    assert measured["n_rows"] == 16 and 1e-4 < measured["median"] <= measured["max"] < 0.5
    again = measure_precision_error(plan)
    for found, expected in ((measured, again), *((measured[name], again[name]) for name in ("score", "probability"))):
        assert [found[name] for name in ("median", "max")] == pytest.approx(
            [expected[name] for name in ("median", "max")], rel=1e-3
        )
    # bfloat16 is of the gradients of the path alone.
    nothing = {"median": 0.0, "max": 0.0}
    assert measured["maps"] == {"grad_cam": nothing, "hires_cam": nothing}
    assert measured["score"] == measured["probability"] == nothing
    exact = make_small_plan(tmp_path, explanation=explanation.model_copy(update={"precision": "float32"}))
    compute_part(exact, 0, 20)
    with open_store(seal.fn(exact, "20261123T020001Z-ab12cd", "2026-11-23T02:00:01Z", "", {})) as store:
        reference = store.attributions(...)
    rows = np.unique(np.linspace(0, 19, 16).astype(int))
    off = np.linalg.norm((stored - reference).reshape(20, -1), axis=1) / np.linalg.norm(
        reference.reshape(20, -1), axis=1
    )
    assert np.median(off[rows]) == pytest.approx(measured["median"], rel=1e-3)
    assert off[rows].max() == pytest.approx(measured["max"], rel=1e-3)


def test_precision_in_words():
    assert describe_precision("float32", {}) == describe_precision("float32", None) == "float32"
    said = describe_precision("bfloat16", {"n_rows": 16, "median": 0.0912, "max": 0.2})
    assert said == ("bfloat16: attributions are 9.1% off those in float32 in the median, 20.0% at most, over 16 rows")
