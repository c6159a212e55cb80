"""Score models: the same probabilities and logits whatever a classifier ends with, and a plain no to what is no classifier."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from reference import N_CLASSES, SHAPE, Twin, random_images, small_cnn

from tasks.numerics.compiled import in_batches, padded
from tasks.numerics.scores import CompiledScores, score_model

ENDINGS = ["softmax", "softmax layer", "activation", "logits", "operation"]
SCORES = ["probability", "logit"]
IMAGES = random_images(5, 1)


def classifier(ending: str) -> keras.Model:
    """The same weights in every case; "operation" ends in keras.ops.softmax, which is no layer."""
    if ending != "operation":
        return small_cnn(3, ending=ending)
    logits = small_cnn(3, ending="logits")
    return keras.Model(logits.inputs[0], keras.ops.softmax(logits.outputs[0]))


def dense_model(activation) -> keras.Model:
    return keras.Sequential(
        [keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(3, activation=activation, name="last")]
    )


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
    np.testing.assert_allclose(score_model(classifier(ending), score)(IMAGES), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_softmax_of_the_logits_is_the_probability(ending):
    model = classifier(ending)
    probabilities, logits = (score_model(model, score)(IMAGES).numpy() for score in SCORES)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(tf.nn.softmax(logits), probabilities, atol=1e-6)
    assert logits.min() < 0


@pytest.mark.parametrize("score", SCORES)
def test_a_score_model_of_a_score_model_is_the_same(score):
    once = score_model(classifier("logits"), score)
    np.testing.assert_allclose(score_model(once, score)(IMAGES), once(IMAGES), atol=1e-6)


@pytest.mark.parametrize("ending", ENDINGS[:4])
@pytest.mark.parametrize("score", SCORES)
def test_a_sequential_model_has_the_scores_of_its_functional_twin(ending, score):
    functional = classifier(ending)
    sequential = keras.Sequential([keras.Input(SHAPE), *classifier(ending).layers[1:]])
    np.testing.assert_allclose(
        score_model(sequential, score)(IMAGES), score_model(functional, score)(IMAGES), atol=1e-6
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
    expected = score_model(inner, "probability")(IMAGES)
    np.testing.assert_allclose(score_model(nested(inner), "probability")(IMAGES), expected, atol=1e-6)


def test_logits_out_of_reach_are_refused():
    with pytest.raises(ValueError, match=r"logits before the softmax of layer .* \(Functional\) cannot be reached"):
        score_model(nested(classifier("softmax")), "logit")


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
        (lambda: dense_model("sigmoid"), "got activation 'sigmoid' in layer 'last'"),
        (lambda: dense_model("tanh"), "got activation 'tanh' in layer 'last'"),
        (lambda: nested(dense_model("sigmoid")), "got activation 'sigmoid' in layer 'last'"),
        (two_headed, r"got 1 input\(s\) and 2 output\(s\)"),
        (two_eyed, r"got 2 input\(s\) and 1 output\(s\)"),
        (
            lambda: keras.Sequential(
                [keras.Input((None, None, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)]
            ),
            r"input of fixed shape \(row, y, x, channel\), got \(None, None, None, 3\)",
        ),
        (lambda: keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)]), r"input of fixed shape.*got \(None, 8\)"),
        (
            lambda: keras.Sequential([keras.Input(SHAPE), keras.layers.Conv2D(3, 3)]),
            r"output of shape \(row, class\).*got \(None, 8, 6, 3\)",
        ),
        (
            lambda: keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(1)]),
            r"two classes or more, got \(None, 1\)",
        ),
    ],
    ids=["sigmoid", "tanh", "nested sigmoid", "two outputs", "two inputs", "any size", "no image", "a map", "one class"],
)  # fmt: skip
def test_what_is_no_classifier_is_refused(make, match):
    for score in SCORES:
        with pytest.raises(ValueError, match=match):
            score_model(make(), score)


@pytest.mark.parametrize("operation", ["sigmoid", "log_softmax"])
def test_an_operation_that_is_no_softmax_is_refused(operation):
    logits = classifier("logits")
    model = keras.Model(logits.inputs[0], getattr(keras.ops, operation)(logits.outputs[0]))
    with pytest.raises(ValueError, match="expected a model that ends in a softmax or in bare logits"):
        score_model(model, "probability")


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
