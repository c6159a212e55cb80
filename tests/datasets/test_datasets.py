"""Every source ends as the same kind of record, in its own order, and every bad source in one clear line."""

import inspect
import json
import logging
import os
import socket
import tempfile
import threading
import time
import zipfile

import numpy as np
import pytest
import requests
import tensorflow_datasets as tfds
from PIL import Image

from command import printed_by_python, python
from dataset_sources import (
    assert_refused,
    everything,
    fingerprint,
    keras_arrays,
    prepare_source,
    write_images,
    write_npz,
)
from places import REPOSITORY
from tasks.config import DatasetConfig
from tasks.datasets import Dataset, DatasetError, mean_image, prepare, read_rows, stream
from tasks.datasets.formats import named, npz
from tasks.datasets.formats.named import construct, display_names

FASHION_MNIST = REPOSITORY.parent / "shared" / "data" / "fashion_mnist.npz"


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return prepare(DatasetConfig(), tmp_path_factory.mktemp("digits"))


def test_neither_a_conversion_nor_a_look_at_a_dataset_leaves_temporary_folders(tmp_path, monkeypatch):
    """TFDS makes one for every builder of what is not prepared. Files that TensorFlow compiles from go when it ends."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    prepare_source(write_npz(tmp_path / "a.npz", **keras_arrays()), tmp_path / "root")
    construct("mnist", tmp_path / "root")
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_dir()] == ["root"]


class TestDigits:
    def test_shape_and_counts(self, digits):
        assert digits.name == "digits"
        assert (digits.n_train, digits.n_test) == (1437, 360)
        assert digits.shape == digits.source_shape == (32, 32, 3)
        assert digits.class_names == tuple("0123456789")
        assert "8x8x1" in digits.transform
        assert digits.warnings == ()
        assert (sum(digits.train_counts), sum(digits.test_counts)) == (1437, 360)
        assert max(digits.test_counts) - min(digits.test_counts) <= 2, "not stratified"

    def test_images_are_the_digits_of_sklearn(self, digits):
        from sklearn.datasets import load_digits

        original = load_digits()
        images, labels = everything(digits, "test")
        assert images.dtype == np.uint8
        assert labels.dtype == np.int64
        position = np.clip((np.arange(32) + 0.5) / 4 - 0.5, 0, 7)
        weights = np.maximum(0, 1 - np.abs(position[:, None] - np.arange(8)))
        upscaled = np.einsum("yi,nij,xj->nyx", weights, original.images, weights) * 255 / 16
        distances = [np.abs(upscaled - image[..., 0]).max(axis=(1, 2)) for image in images]
        assert max(distance.min() for distance in distances) <= 0.51
        rows = [int(distance.argmin()) for distance in distances]
        assert rows == sorted(set(rows)), "not in scikit-learn's order"
        np.testing.assert_array_equal(original.target[rows], labels)
        assert images.min() == 0
        assert images.max() == 255
        assert (images == images[..., :1]).all()

    def test_train_and_test_share_no_image(self, digits):
        train, test = (
            {image.tobytes() for image in images} for images in (everything(digits, r)[0] for r in ("train", "test"))
        )
        assert not train & test

    def test_another_root_gives_the_same_fingerprint(self, digits, tmp_path):
        other = prepare(DatasetConfig(), tmp_path)
        assert other.directory != digits.directory
        assert other.sha256 == digits.sha256
        assert other.version == digits.version

    def test_fingerprint_is_what_the_record_defines(self, digits):
        assert digits.sha256 == fingerprint(digits)


class TestRecord:
    def test_survives_json(self, digits):
        assert Dataset.model_validate_json(digits.model_dump_json()) == digits

    @pytest.mark.parametrize("split", ["train", "test"])
    def test_rows_equal_the_stream(self, digits, split):
        images, labels = zip(*stream(digits, split).as_numpy_iterator(), strict=True)
        n_rows = digits.n_rows(split)
        assert len(images) == n_rows
        for start, stop in [(0, 1), (0, 100), (99, 200), (n_rows - 1, n_rows), (n_rows, n_rows), (5, 5)]:
            rows, row_labels = read_rows(digits, split, start, stop)
            assert rows.shape == (stop - start, 32, 32, 3)
            np.testing.assert_array_equal(rows, np.reshape(images[start:stop], rows.shape))
            np.testing.assert_array_equal(row_labels, labels[start:stop])

    @pytest.mark.parametrize(("start", "stop"), [(-1, 3), (0, 361), (5, 4), (361, 361)])
    def test_rows_outside_the_split_are_refused(self, digits, start, stop):
        with pytest.raises(ValueError, match=rf"0:360 of split 'test', got {start}:{stop}"):
            read_rows(digits, "test", start, stop)

    def test_another_split_is_refused(self, digits):
        with pytest.raises(DatasetError, match=r"train or test.*got 'validation'"):
            read_rows(digits, "validation", 0, 1)

    def test_mean_image(self, digits):
        images, _ = everything(digits, "train")
        mean = mean_image(digits)
        assert mean.dtype == np.float64
        np.testing.assert_allclose(mean, (images / 255.0).mean(axis=0), rtol=1e-12)

    def test_two_threads_read_what_one_reads(self, digits):
        expected = everything(digits, "train")[0]
        starts = range(0, 1400, 100)
        found = {}

        def read(mine):
            for start in mine:
                found[start] = read_rows(digits, "train", start, start + 37)[0]

        threads = [threading.Thread(target=read, args=(starts[half::2],)) for half in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(found) == list(starts)
        for start, images in found.items():
            np.testing.assert_array_equal(images, expected[start : start + 37])

    def test_importing_the_package_does_not_load_tensorflow(self):
        code = "import sys, tasks.datasets; sys.exit('tensorflow' in sys.modules)"
        printed_by_python(code)


class TestNpz:
    @pytest.mark.parametrize("channels", [(), (1,), (3,)], ids=["y-x", "y-x-1", "y-x-3"])
    def test_row_i_is_row_i_padded_to_rgb(self, tmp_path, channels):
        arrays = keras_arrays(shape=(9, 10, *channels))
        dataset = prepare_source(write_npz(tmp_path / "a.npz", **arrays), tmp_path / "root")
        assert dataset.source_shape == (9, 10, channels[0] if channels else 1)
        assert dataset.shape == (32, 32, 3)
        assert dataset.geometry == "pad"
        assert dataset.grey_to_rgb == (channels != (3,))
        assert "padded with black to 32x32x3" in dataset.transform
        for role in ("train", "test"):
            images, labels = everything(dataset, role)
            original = arrays[f"x_{role}"].reshape(len(images), 9, 10, -1)
            expected = np.zeros((len(images), 32, 32, 3), np.uint8)
            expected[:, 11:20, 11:21] = original
            np.testing.assert_array_equal(images, expected)
            np.testing.assert_array_equal(labels, arrays[f"y_{role}"])
        assert dataset.sha256 == fingerprint(dataset)

    def test_keras_cifar_labels_and_names(self, tmp_path):
        arrays = keras_arrays(shape=(32, 32, 3))
        arrays |= {"y_train": arrays["y_train"][:, None], "y_test": arrays["y_test"][:, None].astype(np.float32)}
        path = write_npz(tmp_path / "a.npz", **arrays, class_names=np.array(["cat", "dog", "sea cow", "owl"]))
        dataset = prepare_source(path, tmp_path)
        assert dataset.class_names == ("cat", "dog", "sea cow", "owl")
        assert dataset.transform == "none"
        assert dataset.test_counts == (3, 2, 2, 0)
        assert any("owl" in warning and "train" in warning for warning in dataset.warnings)
        np.testing.assert_array_equal(everything(dataset, "test")[0], arrays["x_test"])

    def test_one_pixel_changes_the_fingerprint(self, tmp_path):
        arrays = keras_arrays()
        before = prepare_source(write_npz(tmp_path / "a.npz", **arrays), tmp_path)
        arrays["x_test"][3, 4, 5] ^= 1
        after = prepare_source(write_npz(tmp_path / "a.npz", **arrays), tmp_path)
        assert before.sha256 != after.sha256
        assert before.directory != after.directory

    def test_one_label_changes_the_fingerprint(self, tmp_path):
        arrays = keras_arrays()
        before = prepare_source(write_npz(tmp_path / "a.npz", **arrays), tmp_path)
        arrays["y_train"][3] = 1 - arrays["y_train"][3]
        assert prepare_source(write_npz(tmp_path / "a.npz", **arrays), tmp_path).sha256 != before.sha256

    def test_another_way_to_the_same_arrays_keeps_the_fingerprint(self, tmp_path):
        arrays = keras_arrays()
        one = prepare_source(write_npz(tmp_path / "a.npz", **arrays), tmp_path)
        np.savez_compressed(tmp_path / "b.npz", **arrays)
        two = prepare_source(tmp_path / "b.npz", tmp_path)
        assert one.sha256 == two.sha256
        assert one.name != two.name

    def test_a_split_may_be_a_slice(self, tmp_path):
        arrays = keras_arrays(n_train=10)
        path = write_npz(tmp_path / "a.npz", **arrays)
        dataset = prepare_source(path, tmp_path, train_split="train[:70%]+test", test_split="train[70%:]")
        assert (dataset.n_train, dataset.n_test) == (14, 3)
        assert dataset.warnings == ()
        np.testing.assert_array_equal(read_rows(dataset, "test", 1, 3)[1], arrays["y_train"][8:])
        np.testing.assert_array_equal(
            read_rows(dataset, "train", 5, 9)[1], [*arrays["y_train"][5:7], *arrays["y_test"][:2]]
        )

    def test_shared_rows_are_warned_of(self, tmp_path):
        path = write_npz(tmp_path / "a.npz", **keras_arrays(n_train=12))
        dataset = prepare_source(path, tmp_path, test_split="train[9:]")
        assert dataset.warnings == ("3 rows of the test split are in the train split too",)


def without(key):
    return lambda arrays: arrays.pop(key)


def with_array(key, change):
    return lambda arrays: arrays.update({key: change(arrays[key])})


BAD_ARRAYS = {
    "key missing": (without("y_test"), "missing y_test; it has: x_train y_train x_test"),
    "objects": (with_array("y_train", lambda y: y.astype(object)), "y_train cannot be read without unpickling"),
    "lengths differ": (with_array("y_train", lambda y: y[1:]), "x_train has 12 rows and y_train has 11"),
    "negative label": (with_array("y_test", lambda y: y - 1), "from 0, got -1 in row 0"),
    "half label": (with_array("y_test", lambda y: y + 0.5), "whole class numbers from 0, got 0.5"),
    "nan label": (with_array("y_test", lambda y: y * np.nan), "whole class numbers from 0, got nan"),
    "text label": (with_array("y_test", lambda y: y.astype(str)), "whole class numbers from 0, got <U"),
    "two ones in a row": (
        with_array("y_test", lambda y: np.eye(3)[y] + np.eye(3)[0]),
        r"one-hot.*got 2, 0, 0 in row 0",
    ),
    "labels of boxes": (
        with_array("y_test", lambda y: np.zeros((len(y), 2, 4))),
        r"class numbers.*of shape \(7, 2, 4\)",
    ),
    "scattered labels": (with_array("y_train", lambda y: y + 5000), "labels run to 5002 but only 6 values"),
    "label beyond names": (lambda a: a.update(class_names=np.array(["a", "b"])), "below 2.*got 2"),
    "names repeat": (lambda a: a.update(class_names=np.array(["a", "b", "a"])), "must differ"),
    "names are numbers": (lambda a: a.update(class_names=np.arange(3)), "class_names must be text"),
    "two kinds of numbers": (
        with_array("x_train", lambda x: x / 255),
        "one kind of numbers, got x_train float64 and x_test uint8; save",
    ),
    "flat images": (with_array("x_test", lambda x: x.reshape(len(x), -1)), r"got shape \(7, 90\)"),
    "four channels": (
        with_array("x_test", lambda x: np.stack([x] * 4, -1)),
        r"one image shape, got \(9, 10, 1\) and \(9, 10, 4\)",
    ),
    "two channels": (
        with_array("x_test", lambda x: np.stack([x] * 2, -1)),
        r"1, 3 or 4 channels, got shape \(7, 9, 10, 2\)",
    ),
    "no pixels": (with_array("x_test", lambda x: x[:, :0]), r"got shape \(7, 0, 10\)"),
    "sizes differ": (with_array("x_test", lambda x: x[:, 1:]), r"one image shape, got \(9, 10, 1\) and \(8, 10, 1\)"),
    "empty test split": (lambda a: a.update(x_test=a["x_test"][:0], y_test=a["y_test"][:0]), "x_test is empty"),
}


class TestBadNpz:
    @pytest.mark.parametrize(("change", "message"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
    def test_arrays_in_another_layout(self, tmp_path, change, message):
        arrays = keras_arrays()
        change(arrays)
        assert_refused(write_npz(tmp_path / "bad.npz", **arrays), tmp_path, message)

    def test_a_test_label_that_training_does_not_know(self, tmp_path):
        arrays = keras_arrays()
        arrays["y_test"][2] = arrays["y_train"].max() + 1
        message = f"y_test has label {arrays['y_test'][2]} in row 2, y_train only goes to {arrays['y_train'].max()}"
        assert_refused(write_npz(tmp_path / "bad.npz", **arrays), tmp_path, message)

    def test_missing_file(self, tmp_path):
        assert_refused(tmp_path / "none.npz", tmp_path, "none.npz: no such file")

    def test_truncated_file(self, tmp_path):
        path = write_npz(tmp_path / "bad.npz", **keras_arrays())
        path.write_bytes(path.read_bytes()[:-500])
        assert_refused(path, tmp_path, "not a whole zip")

    def test_not_a_zip(self, tmp_path):
        (tmp_path / "bad.npz").write_text("<html>404</html>")
        assert_refused(tmp_path / "bad.npz", tmp_path, "got 16 bytes that are not a whole zip")

    def test_flipped_bit(self, tmp_path):
        path = write_npz(tmp_path / "bad.npz", **keras_arrays())
        content = bytearray(path.read_bytes())
        content[600] ^= 1
        path.write_bytes(content)
        assert_refused(path, tmp_path, "damaged")

    def test_zip_of_something_else(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "bad.npz", "w") as file:
            file.writestr("x_train", "text")
        assert_refused(tmp_path / "bad.npz", tmp_path, "expected the arrays")

    def test_nothing_is_left_to_be_taken_for_prepared(self, tmp_path):
        path = write_npz(tmp_path / "bad.npz", **(keras_arrays() | {"y_test": np.arange(3)}))
        assert_refused(path, tmp_path, "rows")
        assert not list(tmp_path.glob("datasets/**/dataset_info.json"))


class TestTransform:
    def test_none_keeps_grey_images(self, tmp_path):
        arrays = keras_arrays()
        dataset = prepare_source(write_npz(tmp_path / "a.npz", **arrays), tmp_path, transform="none")
        assert dataset.shape == (9, 10, 1)
        assert dataset.transform == "none"
        np.testing.assert_array_equal(everything(dataset, "test")[0][..., 0], arrays["x_test"])

    def test_resize_of_constant_images_keeps_their_colour(self, tmp_path):
        arrays = keras_arrays(shape=(40, 20, 3))
        arrays["x_test"][:] = np.array([0, 255, 7], np.uint8)
        path = write_npz(tmp_path / "a.npz", **arrays)
        dataset = prepare_source(path, tmp_path, transform="resize", size=48)
        assert dataset.shape == (48, 48, 3)
        assert "40x20x3: resized to 48x48x3" in dataset.transform
        images, _ = everything(dataset, "test")
        assert (images == np.array([0, 255, 7])).all()

    def test_resize_agrees_with_pillow(self, tmp_path):
        arrays = keras_arrays(shape=(40, 20, 3))
        path = write_npz(tmp_path / "a.npz", **arrays)
        images, _ = everything(prepare_source(path, tmp_path, transform="resize", size=16), "test")
        for image, original in zip(images, arrays["x_test"], strict=True):
            channels = [Image.fromarray(channel.astype(np.float32)) for channel in original.transpose(2, 0, 1)]
            pillow = np.stack([channel.resize((16, 16), Image.Resampling.BILINEAR) for channel in channels], axis=-1)
            difference = np.abs(image - np.rint(pillow))
            assert difference.max() <= 1
            assert difference.mean() < 0.01, "cut off instead of rounded"

    @pytest.mark.parametrize(
        ("options", "shape", "geometry"),
        [
            ({}, (64, 40, 3), "none"),
            ({"size": 48}, (48, 48, 3), "resize"),
            ({"size": 64}, (64, 64, 3), "pad"),
            ({"transform": "pad", "size": 70}, (70, 70, 3), "pad"),
        ],
        ids=["auto keeps large images", "auto, does not fit", "auto, fits", "pad"],
    )
    def test_size(self, tmp_path, options, shape, geometry):
        path = write_npz(tmp_path / "a.npz", **keras_arrays(shape=(64, 40, 3), n_train=3, n_test=3))
        dataset = prepare_source(path, tmp_path, **options)
        assert dataset.shape == shape
        assert dataset.geometry == geometry
        assert read_rows(dataset, "test", 0, 1)[0].shape == (1, *shape)

    def test_auto_pads_only_the_short_axis(self, tmp_path):
        path = write_npz(tmp_path / "a.npz", **keras_arrays(shape=(40, 21), n_train=3, n_test=3))
        assert prepare_source(path, tmp_path).shape == (40, 32, 3)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"transform": "pad"}, "at most 32x32, got 64x40x3"),
            ({"transform": "none", "size": 64}, "takes no size, got 64"),
        ],
        ids=["pad too small", "none with size"],
    )
    def test_refused(self, tmp_path, options, message):
        path = write_npz(tmp_path / "a.npz", **keras_arrays(shape=(64, 40, 3), n_train=3, n_test=3))
        assert_refused(path, tmp_path, message, **options)

    def test_another_transform_needs_no_second_conversion(self, tmp_path):
        path = write_npz(tmp_path / "a.npz", **keras_arrays())
        one, two = (prepare_source(path, tmp_path, transform=transform) for transform in ("auto", "none"))
        assert one.directory == two.directory
        assert one.sha256 != two.sha256


class TestFolder:
    def test_rows_go_by_class_and_file_name(self, tmp_path):
        written = write_images(tmp_path / "pets")
        dataset = prepare_source(tmp_path / "pets", tmp_path)
        assert dataset.name == "pets"
        assert dataset.class_names == ("cat", "dog")
        images, labels = everything(dataset, "test")
        np.testing.assert_array_equal(labels, [0, 0, 0, 1, 1, 1])
        expected = np.concatenate([written["test", "cat"], written["test", "dog"]])
        np.testing.assert_array_equal(images[:, 10:22, 11:21], expected)

    def test_names_that_are_no_lines_are_kept(self, tmp_path):
        names = (" cat", "a\nb", "dog\t", "\u2028", "über", '"quoted"')
        write_images(tmp_path / "pets", classes=names, n_images=1)
        dataset = prepare_source(tmp_path / "pets", tmp_path)
        assert dataset.class_names == tuple(sorted(names))
        assert prepare_source(tmp_path / "pets", tmp_path) == dataset
        np.testing.assert_array_equal(everything(dataset, "test")[1], range(len(names)))

    def test_grey_images_stay_grey(self, tmp_path):
        write_images(tmp_path / "pets", mode="L", suffix="bmp")
        assert prepare_source(tmp_path / "pets", tmp_path).source_shape == (12, 10, 1)

    def test_sizes_that_differ_are_resized_or_padded_or_refused(self, tmp_path):
        write_images(tmp_path / "pets")
        Image.new("RGB", (20, 14), "red").save(tmp_path / "pets" / "test" / "dog" / "3.png")
        dataset = prepare_source(tmp_path / "pets", tmp_path)
        assert dataset.source_shape == (None, None, 3)
        assert dataset.shape == (32, 32, 3)
        assert dataset.geometry == "resize"
        assert "12x10 to 14x20 x3: resized to 32x32x3" in dataset.transform
        np.testing.assert_array_equal(read_rows(dataset, "test", 6, 7)[0][0, 5, 5], [255, 0, 0])
        padded = prepare_source(tmp_path / "pets", tmp_path, transform="pad")
        image = read_rows(padded, "test", 6, 7)[0][0]
        assert (image[9:23, 6:26] == [255, 0, 0]).all()
        assert image.sum() == 255 * 14 * 20
        assert_refused(tmp_path / "pets", tmp_path, "images of one size", transform="none")

    def test_transparency_is_laid_over_black_and_said(self, tmp_path):
        write_images(tmp_path / "pets")
        Image.new("RGBA", (10, 12), (200, 100, 0, 0)).save(tmp_path / "pets" / "test" / "dog" / "3.png")
        dataset = prepare_source(tmp_path / "pets", tmp_path)
        assert read_rows(dataset, "test", 6, 7)[0].max() == 0
        assert "1 of 13 images with transparency laid over black" in dataset.transform

    def test_strangers_are_ignored_and_said(self, tmp_path):
        write_images(tmp_path / "pets")
        (tmp_path / "pets" / "test" / "dog" / "notes.txt").write_text("hello")
        (tmp_path / "pets" / "test" / "dog" / ".DS_Store").write_text("hello")
        dataset = prepare_source(tmp_path / "pets", tmp_path)
        assert dataset.n_test == 6
        assert dataset.warnings == ("1 files or folders beside the images were ignored, such as test/dog/notes.txt",)

    def test_unreadable_images_are_named(self, tmp_path):
        write_images(tmp_path / "pets")
        good = tmp_path / "pets" / "test" / "cat" / "1.png"
        good.write_bytes(good.read_bytes()[:100])
        (tmp_path / "pets" / "train" / "dog" / "5.jpg").write_text("no image")
        assert_refused(tmp_path / "pets", tmp_path, r"2 of 13 files.*test/cat/1.png.*train/dog/5.jpg \(not a known")

    def test_empty_class(self, tmp_path):
        write_images(tmp_path / "pets")
        (tmp_path / "pets" / "train" / "owl").mkdir()
        assert_refused(tmp_path / "pets", tmp_path, "no images in class owl")

    def test_missing_split_lists_the_ones_there(self, tmp_path):
        write_images(tmp_path / "pets", splits=("train", "val"))
        assert_refused(
            tmp_path / "pets", tmp_path, r"no split 'test', the splits are: train \(6 images\), val \(6 images\)"
        )
        assert prepare_source(tmp_path / "pets", tmp_path, test_split="val").n_test == 6

    def test_a_changed_image_is_converted_again(self, tmp_path):
        write_images(tmp_path / "pets")
        before = prepare_source(tmp_path / "pets", tmp_path)
        Image.new("RGB", (10, 12)).save(tmp_path / "pets" / "test" / "dog" / "2.png")
        after = prepare_source(tmp_path / "pets", tmp_path)
        assert before.directory != after.directory
        assert before.sha256 != after.sha256

    def test_another_folder(self, tmp_path):
        (tmp_path / "docs").mkdir()
        (tmp_path / "docs" / "readme.txt").write_text("hello")
        assert_refused(tmp_path / "docs", tmp_path, "SPLIT/CLASS.*it has: readme.txt")


class TestPreparedDirectory:
    def test_is_read_where_it_is(self, digits, tmp_path):
        dataset = prepare_source(digits.directory, tmp_path)
        assert dataset.directory == digits.directory
        assert dataset.sha256 == digits.sha256
        assert not (tmp_path / "datasets" / "digits").exists()

    def test_the_folder_above_is_refused_with_a_hint(self, digits, tmp_path):
        assert_refused(digits.directory.parent, tmp_path, f"did you mean {digits.directory}")

    def test_split_that_does_not_exist(self, digits, tmp_path):
        assert_refused(
            digits.directory, tmp_path, r"no split 'validation'.*train \(1437 images\)", test_split="validation"
        )

    def test_empty_slice(self, digits, tmp_path):
        assert_refused(digits.directory, tmp_path, r"split 'test\[5:5\]' is empty", test_split="test[5:5]")

    def test_slice_beyond_the_split(self, digits, tmp_path):
        assert_refused(digits.directory, tmp_path, "no split", test_split="test[:500]")

    def test_damaged_records(self, tmp_path):
        dataset = prepare_source(write_npz(tmp_path / "a.npz", **keras_arrays()), tmp_path)
        record = next(dataset.directory.glob("*test.tfrecord*"))
        content = bytearray(record.read_bytes())
        content[len(content) // 2] ^= 1
        record.write_bytes(content)
        with pytest.raises(DatasetError, match="missing or damaged"):
            prepare_source(tmp_path / "a.npz", tmp_path)
        with pytest.raises(DatasetError, match="missing or damaged"):
            read_rows(dataset, "test", 0, 7)
        record.unlink()
        with pytest.raises(DatasetError, match="missing or damaged"):
            prepare_source(tmp_path / "a.npz", tmp_path)

    def test_not_for_classification(self, tmp_path):
        tfds.dataset_builders.store_as_tfds_dataset(
            name="sounds",
            version="1.0.0",
            data_dir=str(tmp_path),
            features=tfds.features.FeaturesDict({"loudness": tfds.features.Scalar(np.float32)}),
            split_datasets={"train": [(0, {"loudness": 1.0})], "test": [(0, {"loudness": 1.0})]},
        )
        assert_refused(tmp_path / "sounds" / "1.0.0", tmp_path, "one image and one class label.*loudness Scalar")


class TestSeveralFiles:
    """TFDS cuts large datasets into many record files and reads 16 rows of each in turn unless told otherwise."""

    N_ROWS = 150

    @pytest.fixture
    def dataset(self, tmp_path):
        rng = np.random.default_rng(3)
        images = rng.integers(0, 256, (self.N_ROWS, 8, 8, 3), np.uint8)
        builder = tfds.dataset_builders.store_as_tfds_dataset(
            name="shards",
            version="1.0.0",
            data_dir=str(tmp_path / "tfds"),
            features=tfds.features.FeaturesDict(
                {
                    "picture": tfds.features.Image(shape=(8, 8, 3)),
                    "kind": tfds.features.ClassLabel(num_classes=self.N_ROWS),
                    "remark": tfds.features.Text(),
                }
            ),
            split_datasets={
                split: [(row, {"picture": image, "kind": row, "remark": "x"}) for row, image in enumerate(images)]
                for split in ("train", "test")
            },
            download_config=tfds.download.DownloadConfig(num_shards=5),
        )
        return prepare_source(builder.data_dir, tmp_path / "root", transform="none")

    def test_row_i_is_the_i_th_record(self, dataset):
        import tensorflow as tf

        files = sorted(str(path) for path in dataset.directory.glob("shards-test.tfrecord*"))
        assert len(files) == 5
        expected = []
        for record in tf.data.TFRecordDataset(files, num_parallel_reads=None).as_numpy_iterator():
            expected.append(tf.train.Example.FromString(record).features.feature["kind"].int64_list.value[0])
        assert expected != sorted(expected), "TFDS did not shuffle, so the order says nothing"
        np.testing.assert_array_equal(everything(dataset, "test")[1], expected)
        for start, stop in [(0, 5), (28, 33), (11, 100), (148, 150)]:
            np.testing.assert_array_equal(read_rows(dataset, "test", start, stop)[1], expected[start:stop])

    def test_a_slice_keeps_the_order(self, dataset, tmp_path):
        part = prepare_source(
            dataset.directory, tmp_path / "root", transform="none", train_split="train[:20]", test_split="train[20:]"
        )
        whole = everything(dataset, "train")
        np.testing.assert_array_equal(read_rows(part, "test", 3, 29)[0], whole[0][23:49])
        np.testing.assert_array_equal(everything(part, "train")[1], whole[1][:20])


class TestReuse:
    def test_two_at_once_convert_once(self, tmp_path, caplog):
        path = write_npz(tmp_path / "a.npz", **keras_arrays(n_train=300))
        found = []
        threads = [threading.Thread(target=lambda: found.append(prepare_source(path, tmp_path))) for _ in range(3)]
        with caplog.at_level(logging.INFO, "nightlens"):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert len(found) == 3
        assert found[0] == found[1] == found[2]
        assert caplog.text.count("converting a to a TFDS dataset") == 1

    def test_the_same_content_is_converted_and_read_once(self, tmp_path, monkeypatch):
        path = write_npz(tmp_path / "a.npz", **keras_arrays())
        first = prepare_source(path, tmp_path)

        def fail(*_, **__):
            raise AssertionError("read again")

        monkeypatch.setattr(inspect.getmodule(prepare), "survey", fail)
        monkeypatch.setattr(npz, "_load", fail)
        assert prepare_source(path, tmp_path) == first
        with pytest.raises(AssertionError, match="read again"):
            prepare_source(path, tmp_path, transform="none")

    @pytest.mark.parametrize("how", ["time", "size"])
    def test_a_touched_file_is_read_again(self, tmp_path, monkeypatch, how):
        path = write_npz(tmp_path / "a.npz", **keras_arrays())
        dataset = prepare_source(path, tmp_path)
        record = next(dataset.directory.glob("*train.tfrecord*"))
        if how == "time":
            os.utime(record, ns=(0, 0))
        else:
            times = record.stat()
            record.write_bytes(record.read_bytes()[:-1])
            os.utime(record, ns=(times.st_atime_ns, times.st_mtime_ns))

        def fail(*_, **__):
            raise AssertionError("read again")

        monkeypatch.setattr(inspect.getmodule(prepare), "survey", fail)
        with pytest.raises(AssertionError, match="read again"):
            prepare_source(path, tmp_path)

    def test_a_damaged_record_is_made_again(self, tmp_path, caplog):
        path = write_npz(tmp_path / "a.npz", **keras_arrays())
        dataset = prepare_source(path, tmp_path)
        (record,) = (tmp_path / "datasets" / ".records").glob("*.json")
        record.write_text(json.dumps({"files": []})[:-4])
        with caplog.at_level(logging.WARNING, "nightlens"):
            assert prepare_source(path, tmp_path) == dataset
        assert "made again" in caplog.text

    def test_a_conversion_killed_halfway_is_not_taken_for_whole(self, tmp_path):
        path = write_npz(tmp_path / "a.npz", **keras_arrays(n_train=3000, shape=(28, 28)))
        code = (
            "import os, sys; from pathlib import Path; from tasks.config import DatasetConfig;"
            "from tasks.datasets import prepare; from tasks.datasets.formats import npz;"
            "rows = npz.ArraySplit.__call__;"
            "npz.ArraySplit.__call__ = lambda s: (os._exit(9) if i == 2000 else r for i, r in enumerate(rows(s)));"
            "prepare(DatasetConfig(source=sys.argv[1]), Path(sys.argv[2]))"
        )
        killed = python("-c", code, path, tmp_path)
        assert killed.returncode == 9
        assert list(tmp_path.glob("datasets/a/*/incomplete*")), "the kill came too early or too late to test anything"
        dataset = prepare_source(path, tmp_path)
        assert dataset.n_train == 3000
        assert [folder.name for folder in dataset.directory.parent.iterdir()] == ["1.0.0"]

    def test_stdout_stays_empty(self, tmp_path, capsys):
        prepare_source(write_npz(tmp_path / "a.npz", **keras_arrays()), tmp_path)
        assert capsys.readouterr().out == ""


def reachable(host):
    try:
        socket.create_connection((host, 443), timeout=3).close()
    except OSError:
        return False
    return True


class TestNames:
    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("cifar1o", "no dataset of this name; close names: cifar10.*digits.*npz.*folder"),
            ("zzzzqqq", "no name is close"),
            ("./cifar10", "no such file or folder"),
            ("~/nowhere", "no such file or folder"),
            ("some/folder", "neither a path that exists nor a TFDS name"),
            ("huggingface:mnist", "neither a path that exists nor a TFDS name"),
            ("coco", "one image and one class label.*objects Sequence"),
            ("ag_news_subset", "one image and one class label.*description Text"),
            ("imagenet2012", "TFDS cannot download it by itself: manual_dir should contain two files"),
            ("emnist/foo", "BuilderConfig foo not found"),
            ("cifar10:1.0.0", "cannot be loaded at version 1.0.0"),
        ],
    )
    def test_refused(self, tmp_path, source, message):
        assert_refused(source, tmp_path, message)

    def test_another_file(self, tmp_path):
        (tmp_path / "data.csv").write_text("1,2")
        assert_refused(tmp_path / "data.csv", tmp_path, r"expected a .npz file or a folder")

    @pytest.mark.skipif(reachable("www.cs.toronto.edu"), reason="the network is there: this is about its absence")
    def test_offline_is_refused_within_10_s(self, tmp_path):
        start = time.monotonic()
        assert_refused("cifar10", tmp_path, "www.cs.toronto.edu cannot be reached.*--data-dir.*fetch cifar10.*digits")
        assert time.monotonic() - start < 10

    def test_silent_network_is_refused_within_10_s(self, tmp_path, monkeypatch):
        """A firewall that drops packets, or a name server that never answers."""
        released = threading.Event()

        def hang(*_, **__):
            released.wait(60)
            raise requests.ConnectionError

        monkeypatch.setattr(named.requests, "head", hang)
        start = time.monotonic()
        assert_refused("mnist", tmp_path, "no answer within 4 s")
        released.set()
        assert time.monotonic() - start < 10

    @pytest.mark.parametrize(
        ("name", "stored", "shown"),
        [
            ("cifar100", ["apple", "aquarium_fish"], ("Apple", "Aquarium Fish")),
            ("cifar10/x:3.0.2", ["cat"], ("Cat",)),
            ("fashion_mnist", ["T-shirt/top", "coat"], ("T-shirt/top", "coat")),
            ("imagenette", ["n01440764"], ("n01440764",)),
            ("my_pets", ["cat"], ("cat",)),
        ],
    )
    def test_display_names(self, name, stored, shown):
        assert display_names(name, stored) == shown

    def test_digits_is_the_embedded_one_even_beside_a_folder(self, digits, tmp_path, monkeypatch):
        write_images(tmp_path / "digits")
        monkeypatch.chdir(tmp_path)
        assert prepare_source("digits", tmp_path / "root").sha256 == digits.sha256
        assert prepare_source("./digits", tmp_path / "root").class_names == ("cat", "dog")

    def test_a_folder_that_hides_a_tfds_name_is_warned_of(self, tmp_path, monkeypatch, caplog):
        write_images(tmp_path / "cifar10")
        monkeypatch.chdir(tmp_path)
        with caplog.at_level(logging.WARNING, "nightlens"):
            assert prepare_source("cifar10", tmp_path / "root").class_names == ("cat", "dog")
        assert "NAME:VERSION" in caplog.text


@pytest.fixture(scope="module")
def fashion_mnist(tmp_path_factory):
    return prepare_source(FASHION_MNIST, tmp_path_factory.mktemp("fashion"))


@pytest.mark.slow
@pytest.mark.skipif(not FASHION_MNIST.exists(), reason=f"{FASHION_MNIST} is not on this machine")
class TestFashionMnist:
    def test_row_i_is_x_test_i_padded(self, fashion_mnist):
        with np.load(FASHION_MNIST) as file:
            expected, labels = file["x_test"], file["y_test"]
        for start, stop in [(0, 300), (4990, 5010), (9800, 10_000)]:
            images, found = read_rows(fashion_mnist, "test", start, stop)
            assert images.shape == (stop - start, 32, 32, 3)
            np.testing.assert_array_equal(images[:, 2:30, 2:30], np.repeat(expected[start:stop, ..., None], 3, -1))
            assert images.sum(dtype=np.int64) == 3 * expected[start:stop].sum(dtype=np.int64), "the border is not black"
            np.testing.assert_array_equal(found, labels[start:stop])

    def test_record(self, fashion_mnist):
        assert (fashion_mnist.n_train, fashion_mnist.n_test) == (60_000, 10_000)
        assert fashion_mnist.transform == "28x28x1: grey to RGB, padded with black to 32x32x3"
        assert fashion_mnist.source_shape == (28, 28, 1)
        assert fashion_mnist.test_counts == (1000,) * 10

    def test_reading_a_part_is_fast(self, fashion_mnist):
        read_rows(fashion_mnist, "test", 0, 1)
        durations = []
        for start in (0, 5000, 9744):
            begin = time.perf_counter()
            read_rows(fashion_mnist, "test", start, start + 256)
            durations.append(time.perf_counter() - begin)
        # 0.15 s on an idle machine; the best of three, because others may use the cores.
        assert min(durations) < 0.6
