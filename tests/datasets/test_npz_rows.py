"""Arrays in the Keras layout: rows are rows, labels are labels, and what is in another layout is refused in one line."""

import zipfile

import numpy as np
import pytest

from dataset_sources import (
    assert_refused,
    everything,
    fingerprint,
    keras_arrays,
    prepare_source,
    write_npz,
)
from tasks.datasets import read_rows


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
