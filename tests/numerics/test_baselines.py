"""Baselines: black, white, the mean image, and each image blurred."""

import numpy as np
import pytest

from reference import random_images
from tasks.numerics.baselines import BLUR_FRACTION, make_baselines

IMAGES = random_images(3, 1, (16, 24, 2))
KINDS = ["black", "white", "mean", "blur"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_baseline_is_an_image_of_its_own(kind):
    before = IMAGES.copy()
    mean = IMAGES.mean(0, dtype=np.float64)
    baselines = make_baselines(kind, IMAGES, mean)
    assert (baselines.dtype, baselines.shape) == (np.float32, IMAGES.shape)
    assert baselines.min() >= 0 and baselines.max() <= 1
    baselines[0] = 0.5  # writeable, and neither the images' memory nor another row's
    np.testing.assert_array_equal(IMAGES, before)
    np.testing.assert_array_equal(baselines[1:], make_baselines(kind, IMAGES, mean)[1:])


def test_black_white_and_mean():
    mean = np.linspace(0, 1, 16 * 24 * 2).reshape(16, 24, 2)
    assert (make_baselines("black", IMAGES) == 0).all()
    assert (make_baselines("white", IMAGES) == 1).all()
    np.testing.assert_array_equal(make_baselines("mean", IMAGES, mean), np.stack([mean.astype(np.float32)] * 3))


def test_blur_keeps_even_images_and_stays_within_image_and_channel():
    even = np.full((1, 16, 24, 2), [0.25, 0.75], np.float32)
    np.testing.assert_allclose(make_baselines("blur", even), even, atol=1e-6)
    only = np.zeros_like(IMAGES)
    only[1, :, :, 0] = IMAGES[1, :, :, 0]
    blurred = make_baselines("blur", only)
    assert not blurred[[0, 2]].any() and not blurred[..., 1].any()
    np.testing.assert_allclose(blurred[1, :, :, 0], make_baselines("blur", IMAGES)[1, :, :, 0], atol=1e-6)


def test_blur_is_a_gaussian_of_an_eighth_of_the_height():
    point = np.zeros((1, 64, 64, 1), np.float32)
    point[0, 32, 32] = 1
    blurred, sigma = make_baselines("blur", point)[0, :, :, 0], 64 * BLUR_FRACTION
    y, x = np.indices((64, 64)) - 32
    near = np.maximum(abs(y), abs(x)) <= 24
    expected = np.exp(-(y**2 + x**2) / (2 * sigma**2)) / (2 * np.pi * sigma**2)
    np.testing.assert_allclose(blurred[near], expected[near], rtol=0.01)
    assert sigma == 8


@pytest.mark.parametrize("kind", ["grey", "", "mean"])
def test_another_kind_or_a_missing_mean_is_refused(kind):
    with pytest.raises(ValueError, match=f"black, white, blur, or mean with its image, got '{kind}'"):
        make_baselines(kind, IMAGES)
