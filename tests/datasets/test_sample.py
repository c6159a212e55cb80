"""The sample of labelled training images: drawn over all of them, kept beside the record, made again when it is gone."""

from pathlib import Path

import numpy as np
import pytest

from dataset_sources import everything, keras_arrays, prepare_source, write_npz
from tasks.datasets import labelled_sample, read_rows, sample


def prepared(folder, n_train=700, n_classes=10, **options):
    arrays = keras_arrays(n_train=n_train, shape=(8, 8), n_classes=n_classes)
    arrays["y_train"] = np.sort(arrays["y_train"])
    return prepare_source(write_npz(folder / "a.npz", **arrays), folder, **options)


def rows_of(dataset, images):
    whole = {image.tobytes(): row for row, image in enumerate(everything(dataset, "train")[0])}
    return [whole[image.tobytes()] for image in images]


def test_is_drawn_over_the_whole_split_in_its_order(tmp_path):
    dataset = prepared(tmp_path)
    images, labels = labelled_sample(dataset, 100)
    assert (images.shape, images.dtype, labels.dtype) == ((100, 32, 32, 3), np.uint8, np.int64)
    rows = rows_of(dataset, images)
    assert rows == sorted(set(rows))
    assert np.histogram(rows, 7, (0, 700))[0].min() >= 5, "not spread over the split"
    np.testing.assert_array_equal(labels, everything(dataset, "train")[1][rows])


def test_every_class_occurs_however_rare_it_is(tmp_path):
    arrays = keras_arrays(n_train=900, shape=(8, 8), n_classes=1)
    arrays["y_train"][[3, 500, 899]] = 1, 2, 3
    dataset = prepare_source(write_npz(tmp_path / "a.npz", **arrays), tmp_path)
    assert set(labelled_sample(dataset, 4)[1]) == {0, 1, 2, 3}
    assert set(labelled_sample(dataset)[1]) == {0, 1, 2, 3}


def test_all_rows_if_there_are_fewer(tmp_path):
    dataset = prepared(tmp_path, n_train=30)
    for found, expected in zip(labelled_sample(dataset), everything(dataset, "train"), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_smaller_sample_is_a_part_of_a_larger_one(tmp_path):
    dataset = prepared(tmp_path)
    small, large, largest = (rows_of(dataset, labelled_sample(dataset, n)[0]) for n in (50, 512, 600))
    assert set(small) < set(large) < set(largest)
    assert len(largest) == 600


def test_the_kept_one_is_read_without_the_dataset(tmp_path):
    dataset = prepared(tmp_path)
    expected = labelled_sample(dataset)
    for file in dataset.directory.iterdir():
        file.unlink()
    for found, same in zip(labelled_sample(dataset), expected, strict=True):
        np.testing.assert_array_equal(found, same)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1000])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def of_another_dataset(path):
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **arrays | {"sha256": np.array("0" * 64)})


@pytest.mark.parametrize("harm", [Path.unlink, cut, flip, of_another_dataset], ids=["gone", "cut", "flip", "other"])
def test_is_made_again(tmp_path, harm):
    dataset = prepared(tmp_path)
    before = dataset.sample.read_bytes()
    expected = labelled_sample(dataset)
    harm(dataset.sample)
    for found, same in zip(labelled_sample(dataset), expected, strict=True):
        np.testing.assert_array_equal(found, same)
    assert len(dataset.sample.read_bytes()) == len(before), "not kept again"
    assert not list(dataset.sample.parent.glob("*.partial"))


def test_is_in_the_order_of_classes_and_the_shape_that_are_set(tmp_path):
    order = [str(label) for label in reversed(range(10))]
    own, other = prepared(tmp_path), prepared(tmp_path, class_order=order, transform="none")
    assert labelled_sample(other)[0].shape == (512, 8, 8, 1)
    np.testing.assert_array_equal(labelled_sample(other)[1], 9 - labelled_sample(own)[1])


def test_large_images_are_fewer(tmp_path, monkeypatch):
    monkeypatch.setattr(sample, "MOST_BYTES", 100 * 32 * 32 * 3)
    dataset = prepared(tmp_path)
    assert len(labelled_sample(dataset)[0]) == 100
    np.testing.assert_array_equal(rows_of(dataset, read_rows(dataset, "train", 5, 6)[0]), [5])
