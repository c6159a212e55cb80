"""What a given model takes decides how images are brought to it, as long as nothing else is set."""

import numpy as np
import pytest
from PIL import Image

from dataset_sources import assert_refused, everything, keras_arrays, prepare_source, write_images, write_npz
from tasks.config import DatasetConfig
from tasks.datasets import DatasetError, prepare

CASES = {
    # stored, the model's input, shape as read, transform
    "no model": ((28, 28), None, (32, 32, 3), "28x28x1: grey to RGB, padded with black to 32x32x3"),
    "as auto does anyway": ((28, 28), (32, 32, 3), (32, 32, 3), "28x28x1: grey to RGB, padded with black to 32x32x3"),
    "any size": ((28, 28), (None, None, 3), (28, 28, 3), "28x28x1: grey to RGB, as the model takes them"),
    "as stored": ((28, 28), (28, 28, 1), (28, 28, 1), "none"),
    "small RGB as stored": ((8, 9, 3), (8, 9, 3), (8, 9, 3), "none"),
    "grey, padded": (
        (28, 28),
        (32, 32, 1),
        (32, 32, 1),
        "28x28x1: padded with black to 32x32x1, as the model takes them",
    ),
    "grey to RGB": ((28, 28), (28, 28, 3), (28, 28, 3), "28x28x1: grey to RGB, as the model takes them"),
    "resized": ((20, 20, 3), (64, 48, 3), (64, 48, 3), "20x20x3: resized to 64x48x3, as the model takes them"),
    "smaller": ((40, 40, 3), (28, 28, 3), (28, 28, 3), "40x40x3: resized to 28x28x3, as the model takes them"),
    "five are too many to pad": (
        (27, 28),
        (32, 32, 1),
        (32, 32, 1),
        "27x28x1: resized to 32x32x1, as the model takes them",
    ),
    "any width": ((40, 21, 3), (40, None, 3), (40, 21, 3), "none"),
    "RGB to grey": ((28, 28, 3), (28, 28, 1), (28, 28, 1), "28x28x3: RGB to grey (ITU-R 601), as the model takes them"),
}


@pytest.mark.parametrize(("stored", "taken", "shape", "text"), CASES.values(), ids=CASES)
def test_auto_follows_the_model(tmp_path, stored, taken, shape, text):
    path = write_npz(tmp_path / "a.npz", **keras_arrays(shape=stored))
    dataset = prepare(DatasetConfig(source=str(path)), tmp_path, taken)
    assert (dataset.shape, dataset.transform) == (shape, text)
    assert everything(dataset, "test")[0].shape == (7, *shape)
    assert prepare(DatasetConfig(source=str(path)), tmp_path, taken) == dataset


def test_grey_is_what_pillow_makes_of_rgb(tmp_path):
    arrays = keras_arrays(shape=(30, 30, 3))
    path = write_npz(tmp_path / "a.npz", **arrays)
    images, _ = everything(prepare(DatasetConfig(source=str(path)), tmp_path, (30, 30, 1)), "test")
    expected = [np.asarray(Image.fromarray(image).convert("L")) for image in arrays["x_test"]]
    np.testing.assert_array_equal(images[..., 0], expected)


def test_images_of_many_sizes_are_resized_to_the_models(tmp_path):
    write_images(tmp_path / "pets")
    Image.new("RGB", (20, 14), "red").save(tmp_path / "pets" / "test" / "dog" / "3.png")
    dataset = prepare(DatasetConfig(source=str(tmp_path / "pets")), tmp_path, (48, 40, 3))
    assert (dataset.shape, dataset.geometry) == ((48, 40, 3), "resize")


@pytest.mark.parametrize(
    "options", [{"transform": "none"}, {"transform": "pad"}, {"transform": "resize"}, {"size": 40}]
)
def test_what_is_set_wins_over_the_model(tmp_path, options):
    path = write_npz(tmp_path / "a.npz", **keras_arrays())
    config = DatasetConfig(source=str(path), **options)
    assert prepare(config, tmp_path, (64, 64, 1)) == prepare(config, tmp_path)


def test_other_channels_are_refused(tmp_path):
    path = write_npz(tmp_path / "a.npz", **keras_arrays())
    with pytest.raises(DatasetError, match=r"model takes images of 4 channels, expected 1 or 3; the images are 9x10x1"):
        prepare(DatasetConfig(source=str(path)), tmp_path, (9, 10, 4))
    assert prepare_source(path, tmp_path).shape == (32, 32, 3)
    assert_refused(path, tmp_path, "takes no size", transform="none", size=9)
