"""What was converted is used again, what was changed is not, and names that lead nowhere are refused within seconds."""

import inspect
import json
import logging
import os
import socket
import threading
import time

import pytest
import requests

from command import python
from dataset_sources import (
    assert_refused,
    keras_arrays,
    prepare_source,
    write_images,
    write_npz,
)
from tasks.datasets import prepare
from tasks.datasets.formats import named, npz
from tasks.datasets.formats.named import display_names


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
