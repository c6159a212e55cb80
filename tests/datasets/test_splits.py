"""Stratified slices: the same share of each class, disjoint, in the order of the rows, and cheap to read a part of."""

import numpy as np
import pytest
from pydantic import ValidationError

from dataset_sources import assert_refused, everything, keras_arrays, prepare_source, write_images, write_npz
from tasks.config import DatasetConfig
from tasks.datasets import read_rows
from tasks.datasets.splits import chosen

TRAIN, TEST = "train[stratified :80%]", "train[stratified 80%:]"


def shuffled(n=200, n_classes=5, seed=0):
    """Labels in random order, classes of different sizes."""
    arrays = keras_arrays(n_train=n, shape=(8, 8))
    arrays["y_train"] = np.random.default_rng(seed).integers(0, n_classes, n) ** 2 // n_classes
    return arrays


@pytest.mark.parametrize(("first", "second"), [(":80%", "80%:"), (":-20%", "-20%:"), (":3", "3:"), (":0%", "0%:")])
def test_two_sides_are_disjoint_and_whole(tmp_path, first, second):
    arrays = shuffled()
    path = write_npz(tmp_path / "a.npz", **arrays)
    splits = {"train_split": f"train[stratified {first}]+test", "test_split": f"train[stratified {second}]"}
    dataset = prepare_source(path, tmp_path, transform="none", **splits)
    n_test = len(arrays["x_test"])
    here = everything(dataset, "train")[0][:-n_test]
    there = everything(dataset, "test")[0]
    rows = {image.tobytes(): row for row, image in enumerate(arrays["x_train"])}
    mine, others = ([rows[image.tobytes()] for image in images] for images in (here, there))
    assert mine == sorted(mine)
    assert others == sorted(others)
    assert sorted(mine + others) == list(range(200))
    assert not any("too" in warning for warning in dataset.warnings)


def test_each_class_gives_its_first_rows(tmp_path):
    arrays = shuffled()
    path = write_npz(tmp_path / "a.npz", **arrays)
    dataset = prepare_source(path, tmp_path, train_split=TRAIN, test_split=TEST, transform="none")
    for label in np.unique(arrays["y_train"]):
        of_class = arrays["x_train"][arrays["y_train"] == label]
        n_first = int(len(of_class) * 0.8 + 0.5)
        images, labels = everything(dataset, "train")
        np.testing.assert_array_equal(images[labels == label][..., 0], of_class[:n_first])
        images, labels = everything(dataset, "test")
        np.testing.assert_array_equal(images[labels == label][..., 0], of_class[n_first:])


def test_of_two_images_each_side_has_one(tmp_path):
    write_images(tmp_path / "pets", splits=("train",), n_images=2)
    dataset = prepare_source(tmp_path / "pets", tmp_path, train_split=TRAIN, test_split=TEST)
    assert dataset.train_counts == dataset.test_counts == (1, 1)


def test_any_range_of_rows_reads_what_the_whole_has(tmp_path):
    path = write_npz(tmp_path / "a.npz", **shuffled())
    dataset = prepare_source(path, tmp_path, train_split=TRAIN, test_split=TEST, transform="none")
    for split in ("train", "test"):
        images, labels = everything(dataset, split)
        for start, stop in [(0, 1), (3, 30), (len(labels) - 5, len(labels))]:
            found, found_labels = read_rows(dataset, split, start, stop)
            np.testing.assert_array_equal(found, images[start:stop])
            np.testing.assert_array_equal(found_labels, labels[start:stop])


def test_a_range_of_rows_decodes_no_others(tmp_path):
    """Every image but the five that are asked for is damaged: decoding one more would fail."""
    path = write_npz(tmp_path / "a.npz", **keras_arrays(n_train=100, n_classes=5, shape=(8, 8)))
    dataset = prepare_source(path, tmp_path, train_split=TRAIN, test_split=TEST, transform="none")
    expected, _ = read_rows(dataset, "test", 5, 10)
    damaged = dataset.model_copy(update={"directory": damage_but(dataset, rows=range(85, 90))})
    np.testing.assert_array_equal(read_rows(damaged, "test", 5, 10)[0], expected)


def damage_but(dataset, rows):
    """A copy of the prepared directory in which the images of all other rows of `train` are no images."""
    import shutil

    import tensorflow as tf

    copy = dataset.directory.parent / "2.0.0"
    shutil.copytree(dataset.directory, copy)
    (file,) = copy.glob("*train.tfrecord*")
    examples = [
        tf.train.Example.FromString(record) for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator()
    ]
    with tf.io.TFRecordWriter(str(file)) as writer:
        for row, example in enumerate(examples):
            if row not in rows:
                example.features.feature["image"].bytes_list.value[0] = b"no image"
            writer.write(example.SerializeToString())
    return copy


def test_a_slice_that_lacks_classes_is_warned_of_with_what_to_do(tmp_path):
    write_images(tmp_path / "pets", splits=("train",), n_images=10)
    dataset = prepare_source(tmp_path / "pets", tmp_path, train_split="train[:80%]", test_split="train[80%:]")
    assert dataset.warnings == (
        "no image of class cat in the test split, which is the slice train[80%:] of rows in their stored order; "
        "train[stratified 80%:] takes that share of each class",
    )


def test_the_advice_for_a_missing_split_works(tmp_path):
    write_images(tmp_path / "pets", splits=("photos",), n_images=10)
    message = (
        r"no split 'test', the splits are: photos \(20 images\); name one of them, or take the test images out of photos, "
        r"each class alike, with dataset.train_split: photos\[stratified :80%\] and dataset.test_split: "
        r"photos\[stratified 80%:\]"
    )
    assert_refused(tmp_path / "pets", tmp_path, message, train_split="photos")
    dataset = prepare_source(
        tmp_path / "pets", tmp_path, train_split="photos[stratified :80%]", test_split="photos[stratified 80%:]"
    )
    assert (dataset.train_counts, dataset.test_counts, dataset.warnings) == ((8, 8), (2, 2), ())


def test_rows_in_both_splits_are_counted(tmp_path):
    path = write_npz(tmp_path / "a.npz", **keras_arrays(n_train=100, n_classes=5))
    dataset = prepare_source(path, tmp_path, train_split="train", test_split="train[stratified 50%:]")
    assert dataset.warnings == ("50 rows of the test split are in the train split too",)


def test_an_unknown_split_in_a_stratified_slice(tmp_path):
    path = write_npz(tmp_path / "a.npz", **keras_arrays())
    assert_refused(path, tmp_path, "no split 'val\\[stratified :5%\\]'", test_split="val[stratified :5%]")


@pytest.mark.parametrize(
    "split",
    ["train[stratified]", "train[stratified 80%]", "train[stratified :]", "train[stratified :120%]", "stratified"],
)
def test_what_is_no_slice_is_refused(split):
    with pytest.raises(ValidationError, match=r"NAME\[stratified A:B\]"):
        DatasetConfig(test_split=split)


def test_chosen_rows_are_found_across_ranges():
    ranges = (("train", 10, 20), ("test", 0, 5))
    assert chosen(ranges, np.array([0, 1, 9, 10, 14])) == (
        ("train", 10, 12),
        ("train", 19, 20),
        ("test", 0, 1),
        ("test", 4, 5),
    )
