"""The order of classes is the model's: labels, names, counts and fingerprint agree, whatever the source."""

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from dataset_sources import (
    assert_refused,
    everything,
    fingerprint,
    keras_arrays,
    prepare_source,
    write_images,
    write_npz,
)
from tasks.config import DatasetConfig
from tasks.datasets import labelled_sample, mean_image, stream
from tasks.datasets.class_order import in_order


@pytest.fixture
def pets(tmp_path):
    write_images(tmp_path / "pets", classes=("ant", "bee", "cat"))
    return tmp_path / "pets"


def test_a_list_maps_labels_names_counts_and_fingerprint(tmp_path, pets):
    (pets / "test" / "cat" / "2.png").unlink()
    own = prepare_source(pets, tmp_path)
    other = prepare_source(pets, tmp_path, class_order=["cat", "ant", "bee"])
    assert other.class_names == ("cat", "ant", "bee")
    assert other.class_order == "as set by dataset.class_order"
    assert (own.test_counts, other.test_counts) == ((3, 3, 2), (2, 3, 3))
    assert other.directory == own.directory, "converted a second time"
    for role in ("train", "test"):
        (images, labels), (same, mapped) = everything(own, role), everything(other, role)
        np.testing.assert_array_equal(images, same)
        assert [own.class_names[label] for label in labels] == [other.class_names[label] for label in mapped]
        np.testing.assert_array_equal([label for _, label in stream(other, role).as_numpy_iterator()], mapped)
    assert other.sha256 == fingerprint(other) != own.sha256
    np.testing.assert_array_equal(mean_image(own), mean_image(other))
    np.testing.assert_array_equal(labelled_sample(other)[1], everything(other, "train")[1])


def test_numeric_and_sorted(tmp_path):
    write_images(tmp_path / "n", classes=("10", "9", "0"), n_images=1)
    assert prepare_source(tmp_path / "n", tmp_path).class_names == ("0", "10", "9")
    numeric = prepare_source(tmp_path / "n", tmp_path, class_order="numeric")
    assert (numeric.class_names, numeric.class_order) == (("0", "9", "10"), "names sorted as whole numbers")
    np.testing.assert_array_equal(everything(numeric, "test")[1], [0, 2, 1])
    names = np.array(["dog", "ant", "cat"])
    path = write_npz(tmp_path / "a.npz", **keras_arrays(), class_names=names)
    assert prepare_source(path, tmp_path).class_names == ("dog", "ant", "cat")
    assert prepare_source(path, tmp_path, class_order="sorted").class_names == ("ant", "cat", "dog")


def test_numeric_needs_numbers(tmp_path, pets):
    assert_refused(pets, tmp_path, "names that are all whole numbers, got ant, bee, cat", class_order="numeric")


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (["cat", "ant"], "must name each of the 3 classes once; missing: bee; the classes are: ant, bee, cat"),
        (["cat", "ant", "bea"], r"missing: bee; unknown: bea \(did you mean bee\?\)"),
        (["cat", "ant", "bee", "cow"], "once; unknown: cow"),
    ],
    ids=["missing", "misspelt", "unknown"],
)
def test_a_list_that_is_no_permutation_is_refused(tmp_path, pets, order, message):
    assert_refused(pets, tmp_path, message, class_order=order)


def test_names_as_tfds_has_them_are_taken_but_not_twice():
    shown, stored = ("Airplane", "Cat"), ("airplane", "cat")
    order = in_order("cifar10", shown, stored, "own", ["cat", "Airplane"])
    assert (order.names, order.mapping) == (("Cat", "Airplane"), (1, 0))
    with pytest.raises(ValueError, match="missing: Airplane; more than once: Cat, cat"):
        in_order("cifar10", shown, stored, "own", ["Cat", "cat"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[cat, cat]", "each class once, got 'cat' 2 times"),
        ("[cat, no]", "got False in it; put it in quotes"),
        ("numbers", "must be a list of class names, numeric or sorted, got 'numbers'"),
        ("[]", r"got \[\]"),
    ],
)
def test_settings_that_are_no_order_are_refused(text, message):
    with pytest.raises(ValidationError, match=message):
        DatasetConfig(class_order=yaml.safe_load(text))


def test_whole_numbers_in_yaml_are_names():
    assert DatasetConfig(class_order=yaml.safe_load("[10, 9, 0]")).class_order == ("10", "9", "0")
