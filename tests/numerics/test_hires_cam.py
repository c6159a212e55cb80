"""HiResCAM: the float64 twin, what a map sums to where all behind the layer is linear, evidence that stays in its place."""

import keras
import numpy as np
import pytest

from reference import N_CLASSES, SHAPE, Twin, random_images, small_cnn
from tasks.numerics.endpoint import CompiledEndpoint
from tasks.numerics.network.scores import Reading

IMAGES, TARGETS = random_images(7, 1), np.array([0, 1, 2, 3, 3, 1, 0])


def linear_behind(kernel: np.ndarray, bias: np.ndarray) -> keras.Model:
    """`small_cnn(3)` up to conv_2, whose map is never negative, and a dense layer of the given weights on all its cells."""
    model, images = small_cnn(3), keras.Input(SHAPE)
    activations = model.get_layer("conv_2")(model.get_layer("pool")(model.get_layer("conv_1")(images)))
    dense = keras.layers.Dense(N_CLASSES, name="votes")
    network = keras.Model(images, dense(keras.layers.Flatten()(activations)))
    dense.set_weights([kernel, bias])
    return network


def n_cells() -> tuple[int, ...]:
    return small_cnn(3).get_layer("conv_2").output.shape[1:]


@pytest.mark.parametrize("score", ["probability", "logit"])
@pytest.mark.parametrize("layer", ["conv_1", "conv_2"])
def test_maps_agree_with_the_twin(layer: str, score: str) -> None:
    model = small_cnn(3)
    maps, twin = CompiledEndpoint(model, score, layer, 4)(IMAGES, TARGETS).maps["hires_cam"], Twin(model, score)
    assert (maps.dtype, maps.shape) == (np.float32, (7, 10, 8) if layer == "conv_1" else (7, 5, 4))
    expected = np.stack([twin.hires_cam(image, t, layer) for image, t in zip(IMAGES, TARGETS, strict=True)])
    assert (expected > 0).any((1, 2)).sum() >= 5
    assert np.linalg.norm(maps - expected) < 1e-5 * np.linalg.norm(expected)


def test_where_all_behind_the_layer_is_linear_the_map_sums_to_the_logit_less_its_bias() -> None:
    random, bias = np.random.default_rng(0), np.array([0.5, -1.0, 2.0, 0.0])
    network = linear_behind(random.random((int(np.prod(n_cells())), N_CLASSES)), bias)
    found = CompiledEndpoint(network, "logit", "conv_2", 4, reading=Reading(kind="logits"))(IMAGES, TARGETS)
    np.testing.assert_allclose(found.maps["hires_cam"].sum((1, 2)), found.score - bias[TARGETS], rtol=1e-5)


def test_evidence_stays_in_its_cell_where_grad_cam_spreads_it() -> None:
    """The class is decided by one cell; its gradient is zero everywhere else, and the mean of it is not."""
    height, width, n_filters = n_cells()
    kernel = np.zeros((height, width, n_filters, N_CLASSES))
    kernel[1, 2] = 1.0
    network = linear_behind(kernel.reshape(-1, N_CLASSES), np.zeros(N_CLASSES))
    maps = CompiledEndpoint(network, "logit", "conv_2", 4, reading=Reading(kind="logits"))(IMAGES, TARGETS).maps
    elsewhere = np.ones((height, width), bool)
    elsewhere[1, 2] = False
    assert not maps["hires_cam"][:, elsewhere].any() and (maps["hires_cam"][:, 1, 2] > 0).sum() >= 5
    assert (maps["grad_cam"][:, elsewhere].sum(axis=1) > maps["grad_cam"][:, 1, 2]).all()
