"""Arrays as people save them: numbers by their range, keys as other tools spell them, labels of several kinds."""

import re

import numpy as np
import pytest
from PIL import Image

from dataset_sources import assert_refused, everything, keras_arrays, prepare_source, write_npz

SHAPE = (9, 10, 3)
GIVEN = keras_arrays(shape=SHAPE)


def prepared(folder, **arrays):
    return prepare_source(write_npz(folder / "a.npz", **arrays), folder, transform="none")


def with_images(change):
    return GIVEN | {key: change(GIVEN[key]) for key in ("x_train", "x_test")}


def with_labels(change):
    return GIVEN | {key: change(GIVEN[key]) for key in ("y_train", "y_test")}


SAME_PIXELS = {
    "floats 0..1": (lambda x: (x / 255).astype(np.float32), "floats from 0 to 1 times 255, rounded"),
    "floats 0..255": (lambda x: x.astype(np.float32), "whole floats from 0 to 255 to uint8 as they are"),
    "floats -1..1": (lambda x: x / 127.5 - 1, "taken as -1 to 1"),
    "half floats": (lambda x: (x / 255).astype(np.float16), "times 255, rounded"),
    "16 bits": (lambda x: x.astype(np.uint16) * 257, "uint16 values up to 65535 divided by 257, rounded"),
    "16 bits that hold 8": (lambda x: x.astype(np.uint16), "uint16 values up to 255 to uint8 as they are"),
    "int64": (lambda x: x.astype(np.int64), "int64 values up to 255 to uint8 as they are"),
    "channels first": (lambda x: x.transpose(0, 3, 1, 2), r"x_train from \(row, channel, y, x\) \(12, 3, 9, 10\)"),
}
UNCLEAR_PIXELS = {
    "NaN": (lambda x: np.where(x == 7, np.nan, x / 255), "x_train has values that are NaN or infinite"),
    "infinite": (lambda x: np.where(x == 7, np.inf, x / 255), "values that are NaN or infinite"),
    "standardised": (lambda x: (x - 120.0) / 70, r"floats from -1.714 to 1.929.*standardised.*model.input"),
    "fractions of 255": (lambda x: x * 0.99, r"floats from 0 to 252.*if black is 0 and white 255, round them"),
    "floats 0..16": (lambda x: x / 255 * 16, r"floats from 0 to 16.*scale them to 0 to 255"),
    "0..1 that overshoots": (lambda x: x / 255 * 1.1 - 0.05, r"from -0.05 to 1.05.*clip them"),
    "twelve bits": (lambda x: x.astype(np.uint16) * 16, r"uint16: the largest value is 4080.*by 255 / 4095"),
    "below zero": (lambda x: x.astype(np.int16) - 128, "from 0, got int16 from -128 to 127"),
    "complex": (lambda x: x * 1j, "x_train must hold numbers, got complex128"),
}


class TestPixels:
    @pytest.mark.parametrize(("change", "remark"), SAME_PIXELS.values(), ids=SAME_PIXELS)
    def test_are_read_by_their_range_and_recorded(self, tmp_path, change, remark):
        dataset = prepared(tmp_path, **with_images(change))
        for role in ("train", "test"):
            np.testing.assert_array_equal(everything(dataset, role)[0], GIVEN[f"x_{role}"])
        assert re.search(remark, dataset.transform)

    @pytest.mark.parametrize(("change", "message"), UNCLEAR_PIXELS.values(), ids=UNCLEAR_PIXELS)
    def test_that_could_be_several_things_are_refused(self, tmp_path, change, message):
        assert_refused(write_npz(tmp_path / "a.npz", **with_images(change)), tmp_path, message)

    def test_booleans_are_black_and_white(self, tmp_path):
        dataset = prepared(tmp_path, **with_images(lambda x: x > 99))
        np.testing.assert_array_equal(everything(dataset, "test")[0], np.where(GIVEN["x_test"] > 99, 255, 0))
        assert "booleans to 0 and 255" in dataset.transform

    def test_sixteen_bits_are_rounded_to_the_nearest(self, tmp_path):
        dataset = prepared(tmp_path, **with_images(lambda x: x.astype(np.uint16) * 256 + 255))
        expected = np.rint((GIVEN["x_test"] * 256.0 + 255) / 257)
        np.testing.assert_array_equal(everything(dataset, "test")[0], expected)

    @pytest.mark.parametrize(("largest", "factor"), [(1, "255"), (16, "255 / 16")])
    def test_that_are_nearly_black_are_warned_of(self, tmp_path, largest, factor):
        dataset = prepared(tmp_path, **with_images(lambda x: x % (largest + 1)))
        (warning,) = dataset.warnings
        assert f"the largest value of all images is {largest} of 255" in warning
        assert f"multiply by {factor} " in warning

    def test_transparency_is_laid_over_black(self, tmp_path):
        rgba = np.random.default_rng(1).integers(0, 256, (12, 9, 10, 4), np.uint8)
        dataset = prepared(tmp_path, **GIVEN | {"x_train": rgba, "x_test": rgba[:7]})
        black = Image.new("RGBA", (10, 9), "black")
        expected = np.asarray(Image.alpha_composite(black, Image.fromarray(rgba[3], "RGBA")).convert("RGB"))
        np.testing.assert_array_equal(everything(dataset, "train")[0][3], expected)
        assert "transparency laid over black" in dataset.transform


def renamed(**names):
    return {name: GIVEN[key] for key, name in names.items()}


KEYS = ("x_train", "y_train", "x_test", "y_test")
SPELLINGS = [
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("X_train", "Y_train", "X_test", "Y_test"),
    ("train_x", "train_y", "test_x", "test_y"),
    ("trainX", "trainY", "testX", "testY"),
    ("images_train", "labels_train", "images_test", "labels_test"),
]


class TestKeys:
    @pytest.mark.parametrize("spelling", SPELLINGS, ids=lambda names: names[0])
    def test_known_spellings(self, tmp_path, spelling):
        dataset = prepared(tmp_path, **renamed(**dict(zip(KEYS, spelling, strict=True))))
        for role in ("train", "test"):
            images, labels = everything(dataset, role)
            np.testing.assert_array_equal(images, GIVEN[f"x_{role}"])
            np.testing.assert_array_equal(labels, GIVEN[f"y_{role}"])

    def test_the_layout_of_medmnist(self, tmp_path):
        arrays = renamed(**dict(zip(KEYS, SPELLINGS[0], strict=True)))
        arrays = {key: value[:, None] if "labels" in key else value for key, value in arrays.items()}
        dataset = prepared(tmp_path, val_images=GIVEN["x_test"], val_labels=GIVEN["y_test"][:, None], **arrays)
        np.testing.assert_array_equal(everything(dataset, "test")[1], GIVEN["y_test"])
        assert "val_images, val_labels left out" in dataset.transform

    def test_two_arrays_for_one_thing(self, tmp_path):
        path = write_npz(tmp_path / "a.npz", **GIVEN, train_images=GIVEN["x_train"])
        assert_refused(path, tmp_path, "x_train and train_images could both be x_train; save the file with one of them")

    def test_one_set_of_images(self, tmp_path):
        path = write_npz(tmp_path / "a.npz", images=GIVEN["x_train"], labels=GIVEN["y_train"])
        assert_refused(path, tmp_path, r"it has: images labels; divide images and labels into .*stratify=y")

    def test_splits_of_two_shapes_are_named_as_the_file_names_them(self, tmp_path):
        arrays = renamed(**dict(zip(KEYS, SPELLINGS[0], strict=True)))
        path = write_npz(tmp_path / "a.npz", **arrays | {"test_images": arrays["test_images"][:, 1:]})
        assert_refused(path, tmp_path, r"train_images and test_images must have one image shape, got \(9, 10, 3\) and")


class TestLabels:
    @pytest.mark.parametrize("kind", [np.float32, np.int64, bool])
    def test_one_hot_rows_are_class_numbers(self, tmp_path, kind):
        dataset = prepared(tmp_path, **with_labels(lambda y: np.eye(4, dtype=kind)[y]))
        np.testing.assert_array_equal(everything(dataset, "train")[1], GIVEN["y_train"])
        assert dataset.class_names == ("0", "1", "2", "3")
        assert "y_train from one-hot rows of 4 to class numbers" in dataset.transform

    @pytest.mark.parametrize("kind", [str, bytes])
    def test_names_are_classes_sorted_as_strings(self, tmp_path, kind):
        names = np.array(["9", "10", "cat"]).astype(kind)
        dataset = prepared(tmp_path, **with_labels(lambda y: names[y]))
        assert dataset.class_names == ("10", "9", "cat")
        assert dataset.class_order.startswith("names sorted as strings")
        np.testing.assert_array_equal(everything(dataset, "test")[1], np.array([1, 0, 2])[GIVEN["y_test"]])

    def test_names_with_class_names_follow_those(self, tmp_path):
        names = np.array(["dog", "ant", "cat"])
        dataset = prepared(tmp_path, **with_labels(lambda y: names[y]), class_names=names)
        assert dataset.class_names == ("dog", "ant", "cat")
        np.testing.assert_array_equal(everything(dataset, "test")[1], GIVEN["y_test"])

    def test_a_name_that_training_does_not_know(self, tmp_path):
        arrays = with_labels(lambda y: np.array(["ant", "bee", "cat"])[y])
        arrays["y_test"][4] = "bea"
        assert_refused(
            write_npz(tmp_path / "a.npz", **arrays), tmp_path, "y_test has the class 'bea' in row 4, which y_train"
        )

    def test_booleans_are_two_classes(self, tmp_path):
        dataset = prepared(tmp_path, **with_labels(lambda y: y > 0))
        assert dataset.class_names == ("0", "1")
