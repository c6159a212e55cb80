"""Score models: the same probabilities and logits whatever a classifier ends with, and a plain no to what is no classifier."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from reference import N_CLASSES, SHAPE, Twin, random_images, randomise, small_cnn
from tasks.numerics.network.compiled import in_batches, padded
from tasks.numerics.network.feed import Feed
from tasks.numerics.network.outputs import kind_of
from tasks.numerics.network.scores import CompiledScores, Reading, network_of, score_model

ENDINGS = ["softmax", "softmax layer", "activation", "logits", "operation"]
SCORES = ["probability", "logit"]
IMAGES = random_images(5, 1)


def reading(ending: str) -> Reading:
    return Reading(kind="logits" if ending == "logits" else "probability")


def classifier(ending: str) -> keras.Model:
    """The same weights in every case; "operation" ends in keras.ops.softmax, which is no layer."""
    if ending != "operation":
        return small_cnn(3, ending=ending)
    logits = small_cnn(3, ending="logits")
    return keras.Model(logits.inputs[0], keras.ops.softmax(logits.outputs[0]))


def dense_model(activation: str, n_outputs: int, sharpness: float) -> keras.Model:
    """One Dense layer whose weights are the same for every activation."""
    last = keras.layers.Dense(n_outputs, activation=activation, name="last")
    model = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), last])
    randomise(model, 3)
    last.set_weights([weights * sharpness for weights in last.get_weights()])
    return model


def two_headed() -> keras.Model:
    images = keras.Input(SHAPE)
    flat = keras.layers.Flatten()(images)
    return keras.Model(images, [keras.layers.Dense(3)(flat), keras.layers.Dense(2)(flat)])


def two_eyed() -> keras.Model:
    left, right = keras.Input(SHAPE), keras.Input(SHAPE)
    both = keras.layers.Flatten()(keras.layers.Add()([left, right]))
    return keras.Model([left, right], keras.layers.Dense(3)(both))


def nested(inner: keras.Model) -> keras.Model:
    images = keras.Input(SHAPE)
    return keras.Model(images, inner(images))


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("score", SCORES)
def test_every_ending_gives_the_same_score(ending, score):
    twin = Twin(small_cnn(3), score)
    expected = np.stack([twin.scores(image) for image in IMAGES])
    np.testing.assert_allclose(
        score_model(classifier(ending), score, reading(ending))(IMAGES), expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_softmax_of_the_logits_is_the_probability(ending):
    model = classifier(ending)
    probabilities, logits = (score_model(model, score, reading(ending))(IMAGES).numpy() for score in SCORES)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(tf.nn.softmax(logits), probabilities, atol=1e-6)
    assert logits.min() < 0


def test_a_score_model_of_a_score_model_is_the_same():
    once = score_model(classifier("logits"), "probability", reading("logits"))
    np.testing.assert_allclose(score_model(once, "probability")(IMAGES), once(IMAGES), atol=1e-6)


@pytest.mark.parametrize("ending", ENDINGS[:4])
@pytest.mark.parametrize("score", SCORES)
def test_a_sequential_model_has_the_scores_of_its_functional_twin(ending, score):
    functional = classifier(ending)
    sequential = keras.Sequential([keras.Input(SHAPE), *classifier(ending).layers[1:]])
    np.testing.assert_allclose(
        score_model(sequential, score, reading(ending))(IMAGES),
        score_model(functional, score, reading(ending))(IMAGES),
        atol=1e-6,
    )


@pytest.mark.parametrize("ending", ENDINGS[:3])
@pytest.mark.parametrize("wrapped", [False, True], ids=["as it is", "wrapped"])
def test_a_sequential_model_built_layer_by_layer(wrapped, ending):
    model = keras.Sequential([keras.Input(SHAPE)])
    for layer in classifier(ending).layers[1:]:
        model.add(layer)
    if wrapped:
        model = keras.Model(model.inputs[0], model.outputs[0])
    twin = Twin(small_cnn(3), "logit")
    np.testing.assert_allclose(score_model(model, "logit")(IMAGES)[0], twin.scores(IMAGES[0]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ending", ["softmax", "logits"])
def test_a_classifier_inside_another_model(ending):
    inner = classifier(ending)
    for score in SCORES:
        expected = score_model(inner, score, reading(ending))(IMAGES)
        np.testing.assert_allclose(score_model(nested(inner), score, reading(ending))(IMAGES), expected, atol=1e-6)


def test_logits_out_of_reach_are_refused():
    logits = classifier("logits")
    mixed = keras.layers.Add()([logits.outputs[0], keras.layers.Rescaling(0.5)(logits.outputs[0])])
    halves = keras.layers.Rescaling(0.5)(keras.layers.Softmax()(mixed))
    model = keras.Model(logits.inputs[0], keras.layers.Add(name="sum")([halves, halves]))
    with pytest.raises(
        ValueError, match=r"^the logits of this model cannot be reached: .*\('sum'\); explain the probability"
    ):
        score_model(model, "logit")


def test_a_dense_without_bias():
    model = keras.Sequential(
        [keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax", use_bias=False)]
    )
    np.testing.assert_allclose(tf.nn.softmax(score_model(model, "logit")(IMAGES)), model(IMAGES), atol=1e-6)


def test_the_model_itself_stays_as_it_was():
    model = classifier("softmax")
    before, names = model(IMAGES).numpy(), [layer.name for layer in model.layers]
    score_model(model, "logit")
    np.testing.assert_array_equal(model(IMAGES), before)
    assert [layer.name for layer in model.layers] == names


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (two_headed, r"expected a model with one output, got 2 outputs \(of dense.*, dense.*\)"),
        (two_eyed, r"expected a model with one image input, got 2 inputs"),
        (
            lambda: keras.Sequential(
                [keras.Input((None, None, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)]
            ),
            r"input of fixed shape \(row, y, x, channel\), got \(None, None, None, 3\)",
        ),
        (
            lambda: keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)]),
            r"input of fixed shape.*got \(None, 8\)",
        ),
        (
            lambda: keras.Sequential([keras.Input(SHAPE), keras.layers.Conv2D(3, 3)]),
            r"output of shape \(row, class\), got \(None, 8, 6, 3\)",
        ),
    ],
    ids=["two outputs", "two inputs", "any size", "no image", "a map"],
)
def test_what_is_no_classifier_is_refused(make, match):
    for score in SCORES:
        with pytest.raises(ValueError, match=match):
            score_model(make(), score)


# What outputs are


@pytest.mark.parametrize(
    ("activation", "n_outputs", "kind"),
    [
        ("softmax", 3, "probability"),
        ("sigmoid", 3, "independent"),
        ("linear", 3, "logits"),
        ("relu", 3, "logits"),
        ("tanh", 3, "logits"),
        ("log_softmax", 3, "logits"),
        ("sigmoid", 1, "sigmoid"),
        ("linear", 1, "logit"),
    ],
)
def test_outputs_are_what_they_are_on_images(activation, n_outputs, kind):
    """Probability and logit of every kind against NumPy, from the values before the activation."""
    model = dense_model(activation, n_outputs, sharpness=4)
    z = dense_model("linear", n_outputs, sharpness=4).predict(IMAGES, verbose=0).astype(np.float64)
    outputs = model.predict(IMAGES, verbose=0)
    assert kind_of(outputs) == kind
    sigmoid = lambda values: 1 / (1 + np.exp(-values))  # noqa: E731
    softmax = lambda values: np.exp(values) / np.exp(values).sum(1, keepdims=True)  # noqa: E731
    probability, logit = {
        "probability": lambda: (softmax(z), z),
        "independent": lambda: (sigmoid(z), z),
        "logits": lambda: (softmax(outputs.astype(np.float64)), outputs),
        "sigmoid": lambda: (np.hstack([1 - sigmoid(z), sigmoid(z)]), np.hstack([-z, z])),
        "logit": lambda: (np.hstack([1 - sigmoid(z), sigmoid(z)]), np.hstack([-z, z])),
    }[kind]()
    for score, expected in (("probability", probability), ("logit", logit)):
        result = score_model(model, score, Reading(kind=kind))(IMAGES)
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5, err_msg=score)


@pytest.mark.parametrize("after", ["reshape", "identity", "cast", "dropout"])
def test_logits_are_found_behind_what_comes_after_the_softmax(after):
    last = {
        "reshape": keras.layers.Reshape((N_CLASSES,)),
        "identity": keras.layers.Activation("linear"),
        "cast": lambda x: keras.ops.cast(x, "float32"),
        "dropout": keras.layers.Dropout(0.5),
    }[after]
    whole = classifier("softmax layer")
    model = keras.Model(whole.inputs[0], last(whole.outputs[0]))
    twin = Twin(small_cnn(3), "logit")
    np.testing.assert_allclose(score_model(model, "logit")(IMAGES)[0], twin.scores(IMAGES[0]), rtol=1e-4, atol=1e-5)


def test_a_convolution_as_the_last_layer():
    x = images = keras.Input(SHAPE)
    x = keras.layers.GlobalAveragePooling2D(keepdims=True)(keras.layers.Conv2D(6, 3)(x))
    model = keras.Model(images, keras.layers.Conv2D(3, 1, activation="softmax")(x))
    twin = keras.Model(images, keras.layers.Conv2D(3, 1)(x))
    twin.set_weights(model.get_weights())
    expected = twin(IMAGES).numpy().reshape(len(IMAGES), 3)
    np.testing.assert_allclose(score_model(model, "logit")(IMAGES), expected, atol=1e-6)


# Inputs of every layout, and names that are ours


@pytest.mark.parametrize("layout", ["any size", "channels first", "no channel axis", "flat", "integers", "a dict"])
def test_a_model_takes_images_in_its_own_layout(layout):
    shape = (6, 4, 1) if layout == "no channel axis" else (6, 4, 3)
    images = np.random.default_rng(0).random((5, *shape), np.float32)
    make, given = {
        "any size": (lambda: keras.Input((None, None, 3)), images),
        "channels first": (lambda: keras.Input((3, 6, 4)), images.transpose(0, 3, 1, 2)),
        "no channel axis": (lambda: keras.Input((6, 4)), images[..., 0]),
        "flat": (lambda: keras.Input((72,)), images),
        "integers": (lambda: keras.Input((6, 4, 3), dtype="uint8"), images),
        "a dict": (lambda: keras.Input((6, 4, 3), name="picture"), images),
    }[layout]
    keras.utils.set_random_seed(0)
    x = entry = make()
    x = keras.layers.Rescaling(2.0, offset=-1)(x)
    if layout == "any size":
        x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(x))
    last = keras.layers.Dense(3, activation="softmax")
    output = last(keras.layers.Flatten()(x))
    model = keras.Model({"picture": entry}, {"answer": output}) if layout == "a dict" else keras.Model(entry, output)
    if layout == "flat":
        given = given.reshape(5, 72)
    if layout == "integers":  # Keras would cast the images to 0 and 1
        expected = tf.nn.softmax(given.reshape(5, -1) @ last.kernel * 2 - tf.reduce_sum(last.kernel, 0) + last.bias)
    else:
        expected = model({"picture": given})["answer"] if layout == "a dict" else model(given)
    result = score_model(model, "probability", Reading(shape=shape))(images)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-6)


def test_no_name_of_ours_meets_a_name_of_the_model():
    names = iter(["image", "network", "score", "softmax", "matmul", "add", "multiply", "transpose", "cast"])
    x = images = keras.Input(SHAPE, name="images")
    x = keras.layers.Flatten(name=next(names))(x)
    for name in names:
        x = keras.layers.Dense(4, activation="softmax" if name == "cast" else "relu", name=name)(x)
    model = keras.Model(images, x, name="network")
    randomise(model, 0)
    feed = Feed("given", mean=(0.1, 0.2), scale=(0.5, 2.0))
    fed = (IMAGES - [0.1, 0.2]) / [0.5, 2.0]
    for score in SCORES:
        result = score_model(model, score, Reading(feed))(IMAGES)
        assert result.shape == (len(IMAGES), 4)
    np.testing.assert_allclose(score_model(model, "probability", Reading(feed))(IMAGES), model(fed), atol=1e-6)


def test_layers_that_act_in_training_only_are_off_whoever_calls():
    x = images = keras.Input((8, 8, 3))
    for layer in (
        keras.layers.RandomFlip(),
        keras.layers.GaussianNoise(0.5),
        keras.layers.Flatten(),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(4, activation="softmax"),
    ):
        x = layer(x)
    model, some = keras.Model(images, x), np.random.default_rng(0).random((4, 8, 8, 3), np.float32)
    assert np.abs(model(some) - model(some)).max() > 1e-3, (
        "Keras's layers for augmentation are on unless told otherwise"
    )
    frozen = score_model(model, "probability")
    for _ in range(3):
        np.testing.assert_array_equal(frozen(some), frozen(some, training=True))
    np.testing.assert_allclose(frozen(some), model.predict(some, verbose=0), atol=1e-6)


def test_a_layer_that_its_owner_called_with_training_stays_on():
    images = keras.Input(SHAPE)
    x = keras.layers.Dropout(0.5, name="drawn")(keras.layers.Flatten()(images), training=True)
    network = network_of(
        score_model(keras.Model(images, keras.layers.Dense(3, activation="softmax")(x)), "probability")
    )
    first, second = (network.trace(tf.constant(IMAGES)) for _ in range(2))
    assert np.abs(first.outputs[0] - second.outputs[0]).max() > 1e-3


def test_an_unknown_score_is_refused():
    with pytest.raises(ValueError, match="score must be 'probability' or 'logit', got 'odds'"):
        score_model(classifier("softmax"), "odds")


@pytest.mark.parametrize("n", [1, 3, 4, 9])
def test_compiled_scores_equal_eager_ones(n):
    model, images = score_model(classifier("softmax"), "probability"), random_images(n, n)
    scores = CompiledScores(model, 4)(images)
    assert scores.dtype == np.float32 and scores.shape == (n, N_CLASSES)
    np.testing.assert_allclose(scores, model(images), atol=1e-6)


def test_compiled_scores_of_nothing():
    assert CompiledScores(score_model(classifier("softmax"), "logit"), 4)(IMAGES[:0]).shape == (0, N_CLASSES)


def test_batches_cover_every_row_once_and_padding_repeats_the_last():
    assert in_batches(7, 3) == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert in_batches(6, 3) == [slice(0, 3), slice(3, 6)]
    assert in_batches(0, 3) == []
    np.testing.assert_array_equal(padded(np.array([[1], [2]]), 4), [[1], [2], [2], [2]])
    array = np.arange(4)
    assert padded(array, 4) is array
