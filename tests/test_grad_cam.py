"""Grad-CAM: the float64 twin, maps that are zero, layers by name, and models of every build."""

import keras
import numpy as np
import pytest
from reference import N_CLASSES, SHAPE, Twin, random_images, randomise, small_cnn

from tasks.numerics.cnn import build_cnn
from tasks.numerics.endpoint import CompiledEndpoint
from tasks.numerics.explainer import Explainer, Method
from tasks.numerics.grad_cam import SEED_LAYER, convolution_layers, find_layer
from tasks.numerics.quadrature import Adaptive, Tolerances
from tasks.numerics.scores import score_model

IMAGES, TARGETS = random_images(7, 1), np.array([0, 1, 2, 3, 3, 1, 0])


def grad_cam(model: keras.Model, layer: str = "conv_2", *, score: str = "logit", batch_size: int = 4) -> np.ndarray:
    return CompiledEndpoint(model, score, layer, batch_size)(IMAGES, TARGETS).maps


def relative(result: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(result - expected) / np.linalg.norm(expected))


def with_backbone(outer: str, inner: str, inputs: tuple) -> keras.Model:
    """`small_cnn(3)` with everything before its Flatten in a nested model named backbone; either is of the given kind."""
    layers = small_cnn(3).layers[1:]
    backbone = chain(inner, inputs, layers[:4], name="backbone")
    return chain(outer, SHAPE, [backbone, *layers[4:]])


def chain(kind: str, inputs: tuple, layers: list, name: str = "chain") -> keras.Model:
    if kind == "sequential":
        return keras.Sequential([keras.Input(inputs), *layers], name=name)
    x = images = keras.Input(inputs)
    for layer in layers:
        x = layer(x)
    return keras.Model(images, x, name=name)


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
    other = CompiledEndpoint(model, "logit", "conv_2", 4)(IMAGES, (TARGETS + 1) % N_CLASSES).maps
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
        maps = grad_cam(against)
    zero = np.isin(TARGETS, [0, 2])
    assert not maps[zero].any()
    assert (maps[~zero].max((1, 2)) > 0).all()
    assert np.isfinite(maps).all()


@pytest.mark.parametrize("batch_size", [1, 3, 7, 64])
def test_the_batch_does_not_matter(batch_size):
    alone = CompiledEndpoint(small_cnn(3), "probability", "conv_2", 1)
    expected = np.concatenate([alone(IMAGES[k : k + 1], TARGETS[k : k + 1]).maps for k in range(7)])
    np.testing.assert_allclose(grad_cam(small_cnn(3), score="probability", batch_size=batch_size), expected, atol=1e-6)


def test_no_images_no_maps():
    none = CompiledEndpoint(small_cnn(3), "logit", "conv_2", 4)(IMAGES[:0], TARGETS[:0])
    assert none.maps.shape == (0, 5, 4)


# Models of every build


def explained(model: keras.Model, layer: str = "conv_2") -> tuple[np.ndarray, np.ndarray]:
    """Integrated Gradients and maps."""
    method = Method(score="probability", rule=Adaptive(), tolerances=Tolerances(), layer=layer, batch_size=8)
    explainer = Explainer(model, method)
    attributions = explainer.integrated_gradients(IMAGES, np.zeros_like(IMAGES), TARGETS)
    return attributions.attribution, explainer.endpoint(IMAGES, TARGETS).maps


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
    assert convolution_layers(model) == ["backbone"]
    assert find_layer(score_model(model, "probability"), "auto") == "backbone"
    for result, expected in zip(explained(model, "backbone"), explained(small_cnn(3)), strict=True):
        np.testing.assert_allclose(result, expected, atol=1e-6)


def test_layers_that_another_model_called_first():
    first = small_cnn(3)
    second = chain("functional", SHAPE, first.layers[1:])
    for result, expected in zip(explained(second), explained(first), strict=True):
        np.testing.assert_allclose(result, expected, atol=1e-6)


# Layers by name


def test_the_layers_to_choose_from():
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
    model = keras.Model(images, x)
    assert convolution_layers(model) == ["separable", "depthwise", "transpose"]
    assert find_layer(model, "auto") == "transpose"
    assert find_layer(model, "depthwise") == "depthwise"


def test_auto_is_the_seed_s_layer_or_the_last():
    assert SEED_LAYER == "Conv2D_Block3_Layer1"
    assert find_layer(build_cnn((8, 8, 1), 3), "auto") == SEED_LAYER
    assert find_layer(small_cnn(3), "auto") == "conv_2"


@pytest.mark.parametrize(
    ("layer", "match"),
    [
        ("conv_9", "'conv_9' is not in the model; choose one of conv_1, conv_2$"),
        ("pool", "'pool' is not a convolution with a 4-D output; choose one of conv_1, conv_2$"),
        ("hidden", "'hidden' is not a convolution with a 4-D output; choose one of conv_1, conv_2$"),
        ("", "'' is not in the model; choose one of conv_1, conv_2$"),
    ],
)
def test_a_wrong_layer_is_refused_with_the_right_ones(layer, match):
    with pytest.raises(ValueError, match=match):
        find_layer(small_cnn(3), layer)


@pytest.mark.parametrize("layer", ["auto", "flatten"])
def test_a_model_without_convolutions_is_refused(layer):
    model = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(name="flatten"), keras.layers.Dense(3)])
    randomise(model, 0)
    with pytest.raises(ValueError, match="no convolution layer with a 4-D output"):
        find_layer(model, layer)
