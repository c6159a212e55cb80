"""A model's contract: models as people bring them are fed and read as their owner does it, or refused with the layer's name."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tasks.config import DatasetConfig, FeedConfig
from tasks.config.model_section import ModelInput
from tasks.contract import Contract, establish
from tasks.datasets import Dataset, prepare, read_rows
from tasks.models.registry import ModelError, load_model, read_record
from tasks.numerics.network.scores import image_shape, score_model
from trial_inputs import FUNCTIONS, NO_FUNCTIONS, RECIPES, Trial

TrialOf = Callable[[str], Trial]
KINDS = {
    "probabilities": "probability", "logits": "logits", "independent": "independent", "sigmoid": "sigmoid", "logit": "logit"
}  # fmt: skip


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Trial], Dataset]:
    """The dataset of a trial as a night prepares it for the trial's model."""
    root = tmp_path_factory.mktemp("trial-data")

    def prepare_for(trial: Trial) -> Dataset:
        return prepare(DatasetConfig(source=str(trial.dataset)), root, image_shape(load_model(trial.model)))

    return prepare_for


def agree(trial: Trial, dataset: Dataset, wanted: ModelInput = "auto", **settings: str) -> Contract:
    settings = {"score": "probability", "layer": "auto"} | settings
    return establish(load_model(trial.model), read_record(trial.model), dataset, wanted, **settings)


def kinds(contract: Contract) -> set[str]:
    return {warning.kind for warning in contract.warnings}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_model_is_fed_and_read_as_its_owner_does_it(name: str, trial_of: TrialOf, prepared: Callable) -> None:
    """Nothing is set. The probabilities of the test images are the owner's, to 1e-5, and so is the accuracy."""
    trial = trial_of(name)
    dataset = prepared(trial)
    contract = agree(trial, dataset)
    assert contract.output == KINDS[trial.recipe.outputs]
    pixels, labels = read_rows(dataset, "test", 0, dataset.n_test)
    images = pixels.astype(np.float32) / 255
    probabilities = np.asarray(score_model(load_model(trial.model), "probability", contract.reading)(images))
    half = name == "half_precision"  # its owner's outputs are rounded to 11 bits on their way, ours are not
    np.testing.assert_allclose(probabilities, trial.probabilities, atol=2e-3 if half else 1e-5)
    assert np.mean(probabilities.argmax(axis=1) == labels) == pytest.approx(trial.accuracy)
    checked = ["outputs", "the same images twice", "compiled and not", "the same images among others"]
    assert [check.name for check in contract.checks] == checked
    assert contract.trials[0].n_images == min(512, dataset.n_train)
    if contract.logits:
        logits = np.asarray(score_model(load_model(trial.model), "logit", contract.reading)(images))
        assert (logits.argmax(axis=1) == probabilities.argmax(axis=1)).all()


@pytest.mark.parametrize("name", NO_FUNCTIONS)
def test_a_model_that_is_no_function_of_one_image_is_refused(name: str, trial_of: TrialOf, prepared: Callable) -> None:
    trial = trial_of(name)
    with pytest.raises(ModelError) as refusal:
        agree(trial, prepared(trial))
    said = str(refusal.value)
    assert "is no function of one image" in said and "\n" not in said
    layer, why = {
        "mc_dropout": ("Dropout", "draws at random"),
        "batchnorm_training": ("BatchNormalization", "looks at the batch"),
        "noise_training": ("GaussianNoise", "draws at random"),
    }[name]
    assert f"({layer})" in said and why in said


@pytest.mark.parametrize("name", ["signed_outside", "caffe_outside", "raw_outside", "rescaling_inside"])
def test_a_wrong_setting_is_taken_and_warned_of(name: str, trial_of: TrialOf, prepared: Callable) -> None:
    trial = trial_of(name)
    contract = agree(trial, prepared(trial), "unit")
    assert (contract.feed_name, contract.chosen) == ("unit", "set by model.input")
    assert "input-range" in kinds(contract)
    said = next(w.message for w in contract.warnings if w.kind == "input-range")
    assert f"; {agree(trial, prepared(trial)).feed_name} fits far better (accuracy " in said


def test_numbers_set_by_hand_are_those_of_the_named_feed(trial_of: TrialOf, prepared: Callable) -> None:
    trial = trial_of("signed_outside")
    contract = agree(trial, prepared(trial), FeedConfig(mean=(0.5,), scale=(0.5,)))
    assert (contract.feed_name, contract.mean, contract.scale) == ("given", (0.5,), (0.5,))
    assert kinds(contract) == kinds(agree(trial, prepared(trial), "signed"))


def test_a_network_trained_here_is_fed_unit_by_construction(digits_model, digits: Dataset) -> None:
    contract = establish(load_model(digits_model.path), digits_model, digits, "auto", score="probability", layer="auto")
    assert (contract.feed_name, contract.chosen) == ("unit", "by construction: nightlens trained it")
    assert (contract.layer, contract.warnings) == ("Conv2D_Block3_Layer1", ())


def test_a_network_that_knows_nothing_is_a_guess_and_warned_of(small_model, digits: Dataset) -> None:
    contract = establish(load_model(small_model.path), small_model, digits, "auto", score="probability", layer="auto")
    assert contract.feed_name == "unit"
    assert contract.chosen == "auto: a guess, no feed explains the labels, so the plain one is taken"
    assert kinds(contract) == {"input-range"}


@pytest.mark.parametrize("name", ["plain", "raw_outside"])
def test_classes_in_another_order_are_found_and_so_is_the_feed(name: str, trial_of: TrialOf, tmp_path: Path) -> None:
    trial = trial_of(name)
    arrays = dict(np.load(trial.dataset))
    n_classes = int(arrays["y_train"].max()) + 1
    order = np.roll(np.arange(n_classes), 1)
    moved = tmp_path / "moved.npz"
    np.savez(moved, **{k: order[v] if k.startswith("y") else v for k, v in arrays.items()})
    shape = image_shape(load_model(trial.model))
    contract = agree(trial, prepare(DatasetConfig(source=str(moved)), tmp_path, shape))
    assert contract.feed_name == {"plain": "unit", "raw_outside": "raw"}[name]
    warning = next(w for w in contract.warnings if w.kind == "class-order")
    names = ", ".join(str(k) for k in order)
    assert f"if the model's outputs were the classes [{names}] in this order" in warning.message
    fixed = prepare(DatasetConfig(source=str(moved), class_order=tuple(str(k) for k in order)), tmp_path, shape)
    assert "class-order" not in kinds(agree(trial, fixed))


def test_a_score_that_cannot_be_had_is_refused(trial_of: TrialOf, prepared: Callable, tmp_path: Path) -> None:
    import keras

    trial = trial_of("plain")
    whole = load_model(trial.model)
    half = keras.layers.Rescaling(0.5)(whole.outputs[0])
    keras.Model(whole.inputs[0], keras.layers.Add(name="sum")([half, half])).save(tmp_path / "sum.keras")
    theirs = Trial(**{**vars(trial), "model": tmp_path / "sum.keras"})
    contract = agree(theirs, prepared(theirs))
    assert contract.logits == ""
    with pytest.raises(
        ModelError, match=r"its logits cannot be reached: its last layer 'sum' .*; explain the probability"
    ):
        agree(theirs, prepared(theirs), score="logit")


def test_a_model_of_two_classes_is_refused_on_ten(trial_of: TrialOf, prepared: Callable) -> None:
    binary = next(name for name, recipe in RECIPES.items() if recipe.outputs == "sigmoid")
    two = Trial(**{**vars(trial_of("plain")), "model": trial_of(binary).model})
    n = prepared(trial_of("plain")).n_classes
    with pytest.raises(ModelError, match=f"knows 2 classes, the dataset has {n}"):
        agree(two, prepared(trial_of("plain")))


def test_what_tensorflow_computes_otherwise_when_compiled_is_refused(
    trial_of: TrialOf, prepared: Callable, tmp_path: Path
) -> None:
    """A convolution channels-first with a bias: on a processor TensorFlow's layout optimizer adds the bias along another axis."""
    import keras

    from trial_networks import channels_first

    keras.utils.set_random_seed(0)
    model = channels_first(biased=True)
    model.get_layer("c0").bias.assign(np.linspace(-1, 1, 8))
    model.save(tmp_path / "first.keras")
    theirs = Trial(**{**vars(trial_of("plain")), "model": tmp_path / "first.keras"})
    images = np.random.default_rng(0).random((4, 16, 16, 3), np.float32)
    if np.abs(np.asarray(model(images)) - model.predict(images, verbose=0)).max() < 1e-4:
        pytest.skip("this TensorFlow computes the model as it says, compiled or not")
    with pytest.raises(
        ModelError, match=r"computes it otherwise when it compiles it.*\(layers c0, .*\); save the model with"
    ):
        agree(theirs, prepared(theirs))


# What a stranger brought


def bright(layer, name: str = "theirs"):
    """A network of ten classes behind one layer, for images of 16x16x3; it need not know anything."""
    import keras

    keras.utils.set_random_seed(0)
    entry = keras.Input((16, 16, 3))
    x = keras.layers.Flatten()(keras.layers.Conv2D(4, 3, strides=2)(layer(entry)))
    return keras.Model(entry, keras.layers.Dense(10, activation="softmax")(x), name=name)


def given(model, tmp_path: Path, trial: Trial) -> Trial:
    model.save(tmp_path / "theirs.keras")
    return Trial(**{**vars(trial), "model": tmp_path / "theirs.keras"})


def test_a_model_without_a_gradient_is_refused(trial_of: TrialOf, prepared: Callable, tmp_path: Path) -> None:
    import keras

    theirs = given(
        bright(lambda x: keras.ops.cast(keras.ops.cast(x * 9, "int32"), "float32")), tmp_path, trial_of("plain")
    )
    with pytest.raises(
        ModelError, match="no gradient passes from its outputs to the image: a layer of it rounds, casts"
    ):
        agree(theirs, prepared(theirs))


def test_a_model_that_is_not_finite_at_black_is_refused(trial_of: TrialOf, prepared: Callable, tmp_path: Path) -> None:
    import keras

    theirs = given(bright(keras.ops.sqrt), tmp_path, trial_of("plain"))
    with pytest.raises(
        ModelError, match=r"not finite at black, .*; set integrated_gradients.baseline to white, mean or blur"
    ):
        agree(theirs, prepared(theirs))


def test_a_model_of_a_fixed_batch_is_refused(trial_of: TrialOf, prepared: Callable, tmp_path: Path) -> None:
    import keras

    entry = keras.Input(batch_shape=(4, 16, 16, 3))
    model = keras.Model(entry, keras.layers.Dense(10, activation="softmax")(keras.ops.reshape(entry, (4, -1))))
    theirs = given(model, tmp_path, trial_of("plain"))
    with pytest.raises(ModelError, match="expected a model of batches of any size, got one made for batches of 4"):
        agree(theirs, prepared(trial_of("plain")))


def test_damaged_weights_are_refused_before_they_are_read(trial_of: TrialOf, tmp_path: Path) -> None:
    content = bytearray(trial_of("plain").model.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = bytes(255 - byte for byte in content[middle : middle + 400])
    (tmp_path / "bad.keras").write_bytes(content)
    with pytest.raises(
        ModelError, match=r"bad.keras: damaged, model.weights.h5 in it has another checksum than it should"
    ):
        load_model(tmp_path / "bad.keras")


@pytest.mark.parametrize("range_", ["double", "inverted", "unheard of"])
def test_a_range_that_is_rare_or_not_tried_is_a_warning(
    range_: str, trial_of: TrialOf, prepared: Callable, tmp_path: Path
) -> None:
    """The network of `plain` behind the inverse of what its owner feeds it."""
    import keras

    undo = {"double": (0.5, 0.0), "inverted": (-1.0, 1.0), "unheard of": (0.3, 0.25)}[range_]
    entry = keras.Input((16, 16, 3))
    whole = load_model(trial_of("plain").model)
    keras.utils.set_random_seed(0)
    dense = keras.layers.Conv2D(3, 1, use_bias=True, trainable=False)
    x = dense(entry)
    dense.set_weights([np.eye(3, dtype=np.float32)[None, None] * undo[0], np.full(3, undo[1], np.float32)])
    theirs = given(keras.Model(entry, whole(x)), tmp_path, trial_of("plain"))
    contract = agree(theirs, prepared(theirs))
    assert "input-range" in kinds(contract)
    said = " ".join(warning.message for warning in contract.warnings)
    if range_ == "unheard of":
        assert contract.feed_name == "signed"
        assert re.search(r"signed \(accuracy .*\) explains 512 labels best, but standardised .* nearly as well", said)
    else:
        assert contract.feed_name == range_
        assert f"the model seems to be fed the rare input range {range_}" in said


def test_a_layer_that_counts_its_calls_is_refused(trial_of: TrialOf, prepared: Callable, tmp_path: Path) -> None:
    """The drift of one call is within rounding; over a night it would not be."""
    code = tmp_path / "counting.py"
    code.write_text(
        "import keras\n\n\n"
        "class Counting(keras.layers.Layer):\n"
        "    def build(self, shape):\n"
        "        self.calls = self.add_weight(shape=(), initializer='zeros', trainable=False, name='calls')\n\n"
        "    def call(self, x):\n"
        "        self.calls.assign_add(1.0)\n"
        "        return x * (1 + 1e-6 * self.calls)\n"
    )
    namespace: dict = {}
    exec(compile(code.read_text(), str(code), "exec"), namespace)
    bright(namespace["Counting"]()).save(tmp_path / "theirs.keras")
    theirs, dataset = read_record(tmp_path / "theirs.keras", code), prepared(trial_of("plain"))
    with pytest.raises(ModelError, match=r"it changes its variable '.*calls' when it is called"):
        establish(load_model(theirs.path, code), theirs, dataset, "auto", score="probability", layer="auto")
