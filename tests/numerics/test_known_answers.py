"""Graft, random networks and canaries: the closed forms they rest on, and that a wrong engine does not pass."""

import keras
import numpy as np
import pytest
from scipy.stats import spearmanr

from tasks.numerics.network.scores import score_model
from tasks.numerics.worth import graft
from tasks.numerics.worth.canary import LAYER, SIDE, canary_network, cells_near, mark_images, share_in_mark, shrunk
from tasks.numerics.worth.graft import graft_error, grafted
from tasks.numerics.worth.randomised import permute_weights, rank_correlation

SHAPE = (12, 10, 3)


@pytest.fixture(scope="module")
def network() -> keras.Model:
    keras.utils.set_random_seed(3)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.Conv2D(6, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dense(4, activation="softmax"),
        ]
    )


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).random((7, *SHAPE)).astype(np.float32)


@pytest.fixture
def mask() -> np.ndarray:
    mask = np.zeros(SHAPE[:2], bool)
    mask[2:4, 3:6] = True
    return mask


def error(network, images, mask) -> float:
    model = score_model(network, "logit")
    return graft_error(model, images, np.full_like(images, 0.25), 2, mask, 20.0, batch_size=64, memory_bytes=1e8)


def test_a_graft_adds_its_mean_to_one_score(network, images, mask):
    model, weights = score_model(network, "logit"), np.zeros(SHAPE, np.float32)
    weights[mask] = 1.5
    added = grafted(model, weights, 2)(images).numpy() - model(images).numpy()
    expected = 1.5 * images[:, mask].sum(axis=(1, 2))
    np.testing.assert_allclose(added[:, 2], expected, rtol=1e-4)
    np.testing.assert_array_equal(added[:, [0, 1, 3]], 0)


def test_the_engine_knows_a_graft_to_rounding(network, images, mask):
    assert error(network, images, mask) < 1e-6


def test_an_engine_that_is_off_by_a_thousandth_does_not_pass(network, images, mask, monkeypatch):
    def off(model):
        right, factor = target_gradients(model), 1.001 if len(model.layers) > 2 else 1.0

        def gradients(*arguments):
            found, scores = right(*arguments)
            return found * factor, scores

        return gradients

    target_gradients = graft.target_gradients
    monkeypatch.setattr(graft, "target_gradients", off)
    assert error(network, images, mask) > 1e-4


def test_permuted_weights_are_the_same_numbers_elsewhere(network):
    original = network.get_weights()
    n = permute_weights(network, original, np.random.default_rng(0))
    shuffled = network.get_weights()
    network.set_weights(original)
    constant = sum((weight == weight.flat[0]).all() for weight in original)
    assert constant > 0
    assert n == len(original) - constant
    for old, new in zip(original, shuffled, strict=True):
        np.testing.assert_array_equal(np.sort(old, axis=None), np.sort(new, axis=None))


def test_rank_correlation_is_spearmans_over_the_pixels_that_are_asked_for():
    rng = np.random.default_rng(1)
    one, other = rng.integers(0, 9, (2, 4, 6, 7)).astype(float)
    where = rng.random((4, 6, 7)) < 0.6
    found = rank_correlation(one, other, where)
    for row in range(4):
        assert found[row] == pytest.approx(spearmanr(one[row][where[row]], other[row][where[row]]).statistic)


def test_rank_correlation_is_not_defined_for_constants_and_few_pixels():
    values = np.random.default_rng(1).random((3, 4, 4))
    constant, few = np.ones((3, 4, 4)), np.zeros((3, 4, 4), bool)
    few[:, 0] = True
    assert np.isnan(rank_correlation(values, constant, constant > 0)).all()
    assert np.isnan(rank_correlation(values, values, few)).all()
    np.testing.assert_allclose(rank_correlation(values, values, constant > 0), 1)


@pytest.mark.parametrize("shape", [(32, 32, 3), (28, 28, 1), (8, 8, 1), (32, 20, 3)])
def test_each_image_has_one_mark_in_one_of_ten_places(shape):
    images = np.random.default_rng(0).random((400, *shape)).astype(np.float32) * 0.5
    marked = mark_images(images, np.random.default_rng(2))
    assert set(marked.places) == set(range(10))
    area = max(1, shape[0] // 8) * max(1, shape[1] // 8)
    np.testing.assert_array_equal(marked.masks.sum(axis=(1, 2)), area)
    assert (marked.images[marked.masks] == 1).all()
    np.testing.assert_array_equal(marked.images[~marked.masks], images[~marked.masks])
    places = {k: marked.masks[marked.places == k] for k in range(10)}
    for masks in places.values():
        assert (masks == masks[0]).all()
    assert len({masks[0].tobytes() for masks in places.values()}) == 10


def test_the_share_in_a_mark_counts_what_is_positive():
    relevance = np.zeros((3, 4, 4))
    relevance[0, 0, 0], relevance[0, 3, 3], relevance[0, 2, 2] = 3, 1, -9
    relevance[1, 3, 3] = 2
    masks = np.zeros((3, 4, 4), bool)
    masks[:, 0, 0] = True
    np.testing.assert_array_equal(share_in_mark(relevance, masks), [0.75, 0, np.nan])


def test_large_images_are_shrunk_to_means_and_small_ones_stay():
    rng = np.random.default_rng(0)
    images = rng.random((2, 64, 48, 3)).astype(np.float32)
    small = shrunk(images)
    assert small.shape == (2, SIDE, SIDE, 3)
    np.testing.assert_allclose(small[:, 0, 0], images[:, :2, :1].mean(axis=(1, 2)), rtol=1e-6)
    np.testing.assert_allclose(small.mean(axis=(1, 2))[:, 0], images.mean(axis=(1, 2))[:, 0], atol=0.02)
    assert shrunk(small) is small


def test_the_canary_network_has_the_layer_that_its_maps_are_of():
    network = canary_network((28, 28, 1), 7)
    assert network.get_layer(LAYER).output.shape[1:3] == (7, 7)
    assert network.output_shape == (None, 7)


def test_cells_near_a_mark_are_those_that_it_touches_and_those_around():
    masks = np.zeros((2, 32, 30), bool)
    masks[0, 8:12, 15:18] = True
    masks[1, 31, 29] = True
    near = cells_near(masks, (8, 10))
    expected = np.zeros((2, 8, 10), bool)
    expected[0, 1:4, 4:7] = True
    expected[1, 6:, 8:] = True
    np.testing.assert_array_equal(near, expected)
