"""Folders of images, and directories that TFDS has prepared: in which order their rows come, and what is refused."""

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from dataset_sources import (
    assert_refused,
    everything,
    keras_arrays,
    prepare_source,
    write_images,
    write_npz,
)
from tasks.datasets import DatasetError, read_rows


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
