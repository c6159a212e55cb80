"""Grad-CAM: the float64 twin, maps that are zero, layers by name, and models of every build."""

import re

import keras
import numpy as np
import pytest

from nested_networks import chain, with_backbone
from reference import N_CLASSES, SHAPE, Twin, random_images, randomise, small_cnn
from tasks.numerics.endpoint import CompiledEndpoint
from tasks.numerics.explainer import Explainer, Settings
from tasks.numerics.map_layers import NOTEBOOK_LAYER, find_layer, map_layers, symbolic_trace
from tasks.numerics.network.cnn import build_cnn
from tasks.numerics.network.scores import Network, Reading
from tasks.numerics.quadrature import Adaptive, Tolerances

IMAGES, TARGETS = random_images(7, 1), np.array([0, 1, 2, 3, 3, 1, 0])


def grad_cam(model: keras.Model, layer: str = "conv_2", *, score: str = "logit", batch_size: int = 4) -> np.ndarray:
    return CompiledEndpoint(model, score, layer, batch_size)(IMAGES, TARGETS).maps["grad_cam"]


def relative(result: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(result - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("score", ["probability", "logit"])
@pytest.mark.parametrize("layer", ["conv_1", "conv_2"])
def test_maps_agree_with_the_twin(layer, score):
    model = small_cnn(3)
    maps, twin = grad_cam(model, layer, score=score), Twin(model, score)
    assert maps.dtype == np.float32
    assert maps.shape == ((7, 10, 8) if layer == "conv_1" else (7, 5, 4))
    expected = np.stack([twin.grad_cam(image, t, layer) for image, t in zip(IMAGES, TARGETS, strict=True)])
    assert (expected > 0).any((1, 2)).sum() >= 5
    assert relative(maps, expected) < 1e-5


def test_maps_are_raw_non_negative_and_each_of_its_own_target():
    model = small_cnn(3)
    maps = grad_cam(model)
    assert maps.min() == 0
    other = CompiledEndpoint(model, "logit", "conv_2", 4)(IMAGES, (TARGETS + 1) % N_CLASSES).maps["grad_cam"]
    assert all(np.abs(maps[row] - other[row]).max() > 0.1 * max(maps[row].max(), other[row].max()) for row in range(7))
    stronger = small_cnn(3, sharpness=5)  # a logit five times as large has maps five times as high: not normalised
    np.testing.assert_allclose(grad_cam(stronger), 5 * maps, rtol=1e-4, atol=1e-5)


def test_a_map_where_nothing_speaks_for_the_target_is_zero():
    model = small_cnn(3)
    images = keras.Input(SHAPE)
    activations = model.get_layer("conv_2")(
        model.get_layer("pool")(model.get_layer("conv_1")(images))
    )  # never negative
    dense = keras.layers.Dense(N_CLASSES, name="votes")
    against = keras.Model(images, dense(keras.layers.Flatten()(activations)))
    kernel = np.abs(dense.get_weights()[0])
    kernel[:, [0, 2]] *= -1
    dense.set_weights([kernel, np.zeros(N_CLASSES)])
    with np.errstate(all="raise"):
        maps = CompiledEndpoint(against, "logit", "conv_2", 4, reading=Reading(kind="logits"))(IMAGES, TARGETS).maps[
            "grad_cam"
        ]
    zero = np.isin(TARGETS, [0, 2])
    assert not maps[zero].any()
    assert (maps[~zero].max((1, 2)) > 0).all()
    assert np.isfinite(maps).all()


@pytest.mark.parametrize("batch_size", [1, 3, 7, 64])
def test_the_batch_does_not_matter(batch_size):
    alone = CompiledEndpoint(small_cnn(3), "probability", "conv_2", 1)
    expected = np.concatenate([alone(IMAGES[k : k + 1], TARGETS[k : k + 1]).maps["grad_cam"] for k in range(7)])
    np.testing.assert_allclose(grad_cam(small_cnn(3), score="probability", batch_size=batch_size), expected, atol=1e-6)


def test_no_images_no_maps():
    none = CompiledEndpoint(small_cnn(3), "logit", "conv_2", 4)(IMAGES[:0], TARGETS[:0])
    assert none.maps["grad_cam"].shape == (0, 5, 4)


# Models of every build


def explained(model: keras.Model, layer: str = "conv_2") -> tuple[np.ndarray, np.ndarray]:
    """Integrated Gradients and maps."""
    method = Settings(score="probability", rule=Adaptive(), tolerances=Tolerances(), layer=layer, batch_size=8)
    explainer = Explainer(model, method)
    attributions = explainer.integrated_gradients(IMAGES, np.zeros_like(IMAGES), TARGETS)
    return attributions.attribution, explainer.endpoint(IMAGES, TARGETS).maps["grad_cam"]


def test_sequential_equals_functional():
    sequential = keras.Sequential([keras.Input(SHAPE)])
    for layer in small_cnn(3).layers[1:]:
        sequential.add(layer)
    for result, expected in zip(explained(sequential), explained(small_cnn(3)), strict=True):
        np.testing.assert_allclose(result, expected, atol=1e-6)


def test_frozen_layers_make_no_difference():
    frozen = small_cnn(3)
    frozen.trainable = False
    assert not frozen.trainable_weights
    for result, expected in zip(explained(frozen), explained(small_cnn(3)), strict=True):
        np.testing.assert_allclose(result, expected, atol=1e-6)


@pytest.mark.parametrize("inputs", [SHAPE, (None, None, 2)], ids=["fixed", "any size"])
@pytest.mark.parametrize("inner", ["functional", "sequential"])
@pytest.mark.parametrize("outer", ["functional", "sequential"])
def test_a_nested_model_is_explained_at_its_output(outer, inner, inputs):
    model = with_backbone(outer, inner, inputs)
    network = Network(model)
    assert find_layer(network, "auto").label == find_layer(network, "backbone").label == "backbone/conv_2"
    assert find_layer(network, "conv_2").label == "backbone/conv_2"
    for result, expected in zip(explained(model, "backbone/conv_2"), explained(small_cnn(3)), strict=True):
        np.testing.assert_allclose(result, expected, atol=1e-6)


def test_layers_that_another_model_called_first():
    first = small_cnn(3)
    second = chain("functional", SHAPE, first.layers[1:])
    for result, expected in zip(explained(second), explained(first), strict=True):
        np.testing.assert_allclose(result, expected, atol=1e-6)


# Layers by name


def labels(network: Network) -> list[str]:
    return list(map_layers(symbolic_trace(network)))


def test_every_layer_with_a_map_on_the_way_can_be_chosen():
    x = images = keras.Input((16, 16, 2))
    for layer in (
        keras.layers.SeparableConv2D(3, 3, name="separable"),
        keras.layers.DepthwiseConv2D(3, name="depthwise"),
        keras.layers.Conv2DTranspose(3, 3, name="transpose"),
        keras.layers.MaxPooling2D(name="pool"),
        keras.layers.ReLU(name="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(3),
    ):
        x = layer(x)
    network = Network(keras.Model(images, x))
    assert labels(network) == ["separable", "depthwise", "transpose", "pool", "relu"]
    assert find_layer(network, "auto").label == "relu"
    assert find_layer(network, "depthwise").label == "depthwise"


def test_auto_is_the_notebook_s_layer_or_the_last():
    assert NOTEBOOK_LAYER == "Conv2D_Block3_Layer1"
    assert find_layer(Network(build_cnn((8, 8, 1), 3)), "auto").label == NOTEBOOK_LAYER
    assert find_layer(Network(small_cnn(3)), "auto").label == "conv_2"


@pytest.mark.parametrize(
    ("layer", "match"),
    [
        ("conv_9", "'conv_9' is not in the model; choose one of conv_1, norm, pool, conv_2, or auto, or none$"),
        (
            "hidden",
            "'hidden' has no map, .* on the way to the output; choose one of conv_1, norm, pool, conv_2, or auto",
        ),
        ("", "'' is not in the model; choose one of conv_1, norm, pool, conv_2"),
    ],
)
def test_a_wrong_layer_is_refused_with_the_right_ones(layer, match):
    with pytest.raises(ValueError, match=match):
        find_layer(Network(small_cnn(3)), layer)


def test_a_model_without_a_map_has_no_grad_cam_and_a_named_layer_is_refused():
    model = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(name="flatten"), keras.layers.Dense(3)])
    randomise(model, 0)
    found = find_layer(Network(model), "auto")
    assert (found.label, found.shape) == ("", None)
    assert "no layer with a map" in found.text
    with pytest.raises(
        ValueError, match="the model has no layer with a map, which Grad-CAM needs; set grad_cam.layer to none"
    ):
        find_layer(Network(model), "flatten")


# Which map auto takes


def image_model(build, *, shape=(16, 16, 3)) -> Network:
    images = keras.Input(shape)
    return Network(keras.Model(images, keras.layers.Dense(4, activation="softmax")(build(images))))


def branches(x):
    x = keras.layers.Conv2D(4, 3, padding="same", name="stem")(x)
    left, right = keras.layers.Conv2D(3, 3, padding="same", name="left")(x), keras.layers.Conv2D(2, 1, name="right")(x)
    return keras.layers.GlobalAveragePooling2D()(keras.layers.Concatenate(name="mixed")([left, right]))


def residual(x):
    x = keras.layers.Conv2D(4, 3, padding="same", name="stem")(x)
    y = keras.layers.BatchNormalization(name="norm")(keras.layers.Conv2D(4, 3, padding="same", name="conv")(x))
    x = keras.layers.Activation("relu", name="block_out")(keras.layers.Add(name="sum")([x, y]))
    return keras.layers.GlobalAveragePooling2D()(keras.layers.Dropout(0.2, name="drop")(x))


def one_by_one_head(x):
    x = keras.layers.Conv2D(4, 3, name="features")(x)
    x = keras.layers.GlobalAveragePooling2D(keepdims=True)(x)
    return keras.layers.Flatten()(keras.layers.Conv2D(8, 1, name="head")(x))


def pooled_at_the_end(x):
    return keras.layers.Flatten()(keras.layers.MaxPooling2D(name="pool")(keras.layers.Conv2D(4, 3, name="last")(x)))


def normalised_perceptron(x):
    return keras.layers.Flatten()(keras.layers.BatchNormalization(name="norm")(x))


def patches_and_tokens(x):
    x = keras.layers.Reshape((16, 8))(keras.layers.Conv2D(8, 4, strides=4, name="patches")(x))
    return keras.layers.GlobalAveragePooling1D()(keras.layers.Add()([x, keras.layers.Dense(8)(x)]))


def convolutions_and_tokens(x):
    x = keras.layers.Conv2D(8, 3, padding="same", name="first")(x)
    x = keras.layers.Conv2D(8, 4, strides=4, name="second")(x)
    return keras.layers.GlobalAveragePooling1D()(keras.layers.Dense(8)(keras.layers.Reshape((16, 8))(x)))


def two_eyes(x):
    conv = keras.layers.Conv2D(4, 3, strides=2, name="shared")
    seen = [keras.layers.Flatten()(conv(each)) for each in (x, keras.layers.AveragePooling2D(2)(x))]
    return keras.layers.Concatenate()(seen)


def squeezed(x):
    x = keras.layers.Conv2D(4, 3, name="conv")(x)
    gate = keras.layers.Dense(4, activation="sigmoid")(keras.layers.GlobalAveragePooling2D(keepdims=True)(x))
    return keras.layers.GlobalAveragePooling2D()(keras.layers.Multiply(name="gated")([x, gate]))


@pytest.mark.parametrize(
    ("build", "label", "words"),
    [
        (branches, "mixed", "every path"),
        (residual, "block_out", "every path"),
        (one_by_one_head, "features", "every path"),
        (pooled_at_the_end, "last", "every path"),
        (squeezed, "gated", "every path"),
        (convolutions_and_tokens, "second", "every path"),
        (normalised_perceptron, "", "no layer with a map"),
        (patches_and_tokens, "", "no map behind its first layer patches"),
        (two_eyes, "", "no map is on every path .* grad_cam.layer can name one of shared#2, shared#1"),
    ],
)
def test_auto_takes_the_last_map_that_everything_goes_through(build, label, words):
    found = find_layer(image_model(build), "auto")
    assert found.label == label
    assert re.search(words, found.text)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "label"),
    [("MobileNet", "conv_pw_13_relu"), ("InceptionV3", "mixed10"), ("VGG16", "block5_conv3"), ("DenseNet121", "relu")],
)
def test_auto_takes_the_last_map_of_networks_of_keras_applications(name, label):
    network = getattr(keras.applications, name)(weights=None, classes=4, input_shape=(160, 160, 3))
    assert find_layer(Network(network), "auto").label == label
    images = keras.Input((160, 160, 3))
    backbone = getattr(keras.applications, name)(
        weights=None, include_top=False, pooling="avg", input_shape=(160, 160, 3)
    )
    nested = keras.Model(images, keras.layers.Dense(4)(backbone(images)))
    assert find_layer(Network(nested), "auto").label == f"{backbone.name}/{label}"


def test_calls_of_a_shared_layer_are_told_apart():
    network = image_model(two_eyes)
    last, first = find_layer(network, "shared"), find_layer(network, "shared#1")
    assert (last.label, last.shape) == ("shared#2", (3, 3))
    assert "the last of its 2 calls (shared#1, shared#2)" in last.text
    assert (first.label, first.shape) == ("shared#1", (7, 7))


def test_a_name_within_two_nested_models_is_refused_until_its_path_is_given():
    def backbone(name):
        images = keras.Input((16, 16, 3))
        return keras.Model(images, keras.layers.Conv2D(2, 3, name="conv")(images), name=name)

    both = image_model(lambda x: keras.layers.Flatten()(keras.layers.Add()([backbone(n)(x) for n in ("one", "two")])))
    with pytest.raises(ValueError, match="'conv' is in several places; choose one of one/conv, two/conv"):
        find_layer(both, "conv")
    assert find_layer(both, "two/conv").label == "two/conv"


def test_none_means_none():
    found = find_layer(Network(small_cnn(3)), "none")
    assert (found.label, found.text) == ("", "Grad-CAM is switched off (grad_cam.layer: none)")


def test_without_a_layer_there_are_no_maps_and_the_rest_is_the_same():
    with_layer = CompiledEndpoint(small_cnn(3), "logit", "conv_2", 4)(IMAGES, TARGETS)
    without = CompiledEndpoint(small_cnn(3), "logit", "", 4)(IMAGES, TARGETS)
    assert without.maps["grad_cam"].shape == (7, 0, 0)
    for name in ("probabilities", "score", "gradients"):
        np.testing.assert_allclose(getattr(without, name), getattr(with_layer, name), rtol=1e-5, atol=1e-6)


def test_the_map_of_a_channels_first_layer_is_y_by_x():
    """Pooling and adding channels-first run on any processor; the same weights channels-last are the twin."""

    def network(first: bool) -> keras.Model:
        x = images = keras.Input((12, 8, 3))
        x = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")(x)
        if first:
            x = keras.layers.Permute((3, 1, 2))(x)
        form = "channels_first" if first else "channels_last"
        x = keras.layers.AveragePooling2D(2, padding="same", data_format=form, name="pool")(x)
        x = keras.layers.Activation("relu", name="map")(keras.layers.Rescaling(2.0)(x))
        x = keras.layers.GlobalAveragePooling2D(data_format=form)(x)
        model = keras.Model(images, keras.layers.Dense(4, activation="softmax")(x))
        randomise(model, 1)
        return model

    images = np.random.default_rng(0).random((5, 12, 8, 3), np.float32)
    first, last = (
        CompiledEndpoint(network(f), "logit", "map", 5)(images, np.arange(5) % 4).maps["grad_cam"]
        for f in (True, False)
    )
    assert first.shape == last.shape == (5, 6, 4)
    assert last.any()
    np.testing.assert_allclose(first, last, rtol=1e-4, atol=1e-6)
