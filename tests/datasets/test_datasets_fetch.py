"""CIFAR-10 from a small archive in its own binary format, through TFDS's own builder, without a network."""

import functools
import gzip
import hashlib
import http.server
import io
import shutil
import tarfile
import threading

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import downloader
from tensorflow_datasets.core.download.checksums import UrlInfo

from tasks.config import DatasetConfig
from tasks.datasets import DatasetError, fetch, prepare, read_rows

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
REAL_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
CLASSES = ("Airplane", "Automobile", "Bird", "Cat", "Deer", "Dog", "Frog", "Horse", "Ship", "Truck")
N_BATCH = 20


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    """(archive, images (row, y, x, channel) and labels by split)."""
    rng = np.random.default_rng(7)
    files = {f"data_batch_{index}.bin": "train" for index in range(1, 6)} | {"test_batch.bin": "test"}
    images, labels = {"train": [], "test": []}, {"train": [], "test": []}
    path = tmp_path_factory.mktemp("carried") / "from a memory stick"
    with tarfile.open(path, "w:gz") as archive:

        def add(name, content):
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))

        for name, split in files.items():
            batch = rng.integers(0, 256, (N_BATCH, 32, 32, 3), np.uint8)
            batch_labels = rng.integers(0, 10, N_BATCH)
            planes = batch.transpose(0, 3, 1, 2).reshape(N_BATCH, -1)
            add(name, np.concatenate([batch_labels.astype(np.uint8)[:, None], planes], axis=1).tobytes())
            images[split].append(batch)
            labels[split].append(batch_labels)
        add("batches.meta.txt", "\n".join([*(name.lower() for name in CLASSES), "", ""]).encode())
    return path, {split: (np.concatenate(images[split]), np.concatenate(labels[split])) for split in images}


def info_of(path, filename):
    content = path.read_bytes()
    return UrlInfo(size=len(content), checksum=hashlib.sha256(content).hexdigest(), filename=filename)


@pytest.fixture
def recorded(cifar, monkeypatch):
    """TFDS's checksum record of CIFAR-10, replaced by the small archive's."""
    infos = {URL: info_of(cifar[0], "cifar-10-binary.tar.gz")}
    monkeypatch.setattr(tfds.builder_cls("cifar10"), "url_infos", infos)
    return infos


@pytest.mark.usefixtures("recorded")
def test_a_fetched_dataset_is_found_by_its_name(cifar, tmp_path):
    directory = fetch("cifar10", cifar[0], tmp_path)
    dataset = prepare(DatasetConfig(source="cifar10"), tmp_path)
    assert dataset.directory == directory == tmp_path / "datasets" / "cifar10" / "3.0.2"
    assert (dataset.name, dataset.version, dataset.transform) == ("cifar10", "3.0.2", "none")
    assert dataset.class_names == CLASSES
    for split, n_rows in (("train", 5 * N_BATCH), ("test", N_BATCH)):
        images, labels = read_rows(dataset, split, 0, n_rows)
        written = {image.tobytes(): label for image, label in zip(*cifar[1][split], strict=True)}
        assert len(written) == n_rows
        assert {image.tobytes(): label for image, label in zip(images, labels, strict=True)} == written
    assert not list((tmp_path / "datasets").glob(".fetch-*")), "the unpacked archive was left behind"


@pytest.mark.usefixtures("recorded")
def test_rows_are_in_the_order_of_tfds(cifar, tmp_path):
    directory = fetch("cifar10", cifar[0], tmp_path)
    dataset = prepare(DatasetConfig(source=str(directory)), tmp_path)
    assert dataset.class_names == CLASSES
    config = tfds.ReadConfig(interleave_cycle_length=1)
    examples = tfds.builder_from_directory(directory).as_dataset(split="test", read_config=config)
    expected = np.stack([example["image"] for example in tfds.as_numpy(examples)])
    np.testing.assert_array_equal(read_rows(dataset, "test", 0, N_BATCH)[0], expected)


@pytest.mark.usefixtures("recorded")
def test_another_data_dir(cifar, tmp_path):
    directory = fetch("cifar10", cifar[0], tmp_path / "root", data_dir=tmp_path / "elsewhere")
    assert directory == tmp_path / "elsewhere" / "cifar10" / "3.0.2"
    config = DatasetConfig(source="cifar10", data_dir=tmp_path / "elsewhere")
    assert prepare(config, tmp_path / "root").directory == directory


@pytest.mark.usefixtures("recorded")
def test_twice_is_once(cifar, tmp_path):
    directory = fetch("cifar10", cifar[0], tmp_path)
    before = [(path, path.stat().st_mtime_ns) for path in sorted(directory.iterdir())]
    assert fetch("cifar10", cifar[0], tmp_path) == directory
    assert [(path, path.stat().st_mtime_ns) for path in sorted(directory.iterdir())] == before


def test_a_wrong_archive_is_refused_by_the_real_checksum(cifar, tmp_path):
    found = hashlib.sha256(cifar[0].read_bytes()).hexdigest()
    with pytest.raises(DatasetError, match=f"sha256 {found}; expected {URL}.*170052171 bytes, sha256 {REAL_SHA256}"):
        fetch("cifar10", cifar[0], tmp_path)
    assert not (tmp_path / "datasets" / "cifar10").exists()


@pytest.mark.usefixtures("recorded")
def test_a_truncated_archive_is_refused(cifar, tmp_path):
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(cifar[0].read_bytes()[:-1])
    with pytest.raises(DatasetError, match="not an archive of cifar10"):
        fetch("cifar10", path, tmp_path)


def test_no_such_archive(tmp_path):
    with pytest.raises(DatasetError, match="no such file; expected an archive of cifar10: https"):
        fetch("cifar10", tmp_path / "none.tar.gz", tmp_path)


def test_an_archive_with_other_content_leaves_nothing_prepared(tmp_path, monkeypatch):
    path = tmp_path / "empty.tar.gz"
    tarfile.open(path, "w:gz").close()
    monkeypatch.setattr(tfds.builder_cls("cifar10"), "url_infos", {URL: info_of(path, "cifar-10-binary.tar.gz")})
    with pytest.raises(DatasetError, match="TFDS could not prepare it from the archives"):
        fetch("cifar10", path, tmp_path)
    assert not list(tmp_path.glob("datasets/cifar10/*"))


def test_unknown_name(tmp_path):
    with pytest.raises(DatasetError, match="close names: cifar10"):
        fetch("cifar1o", tmp_path / "a.tar.gz", tmp_path)


def test_the_same_archive_downloaded(cifar, tmp_path, monkeypatch):
    """What prepare does where there is a network, from a server on this machine; afterwards the network may go."""
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "served"))
    (tmp_path / "served").mkdir()
    shutil.copy(cifar[0], tmp_path / "served" / "cifar-10-binary.tar.gz")
    builder = tfds.builder_cls("cifar10")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/cifar-10-binary.tar.gz"
        original = builder._cifar_info.fget
        monkeypatch.setattr(builder, "_cifar_info", property(lambda self: original(self)._replace(url=url)))
        monkeypatch.setattr(builder, "url_infos", {url: info_of(cifar[0], "cifar-10-binary.tar.gz")})
        dataset = prepare(DatasetConfig(source="cifar10"), tmp_path)
        server.shutdown()
    assert (dataset.n_train, dataset.n_test, dataset.class_names) == (5 * N_BATCH, N_BATCH, CLASSES)
    assert prepare(DatasetConfig(source="cifar10"), tmp_path) == dataset
    with pytest.raises(DatasetError, match=r"127\.0\.0\.1.* cannot be reached"):
        prepare(DatasetConfig(source="cifar10"), tmp_path / "another")


@pytest.mark.usefixtures("recorded")
def test_a_half_prepared_directory_is_not_taken_for_whole(cifar, tmp_path):
    (tmp_path / "datasets" / "cifar10" / "3.0.2").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"lacks dataset_info\.json or features\.json; remove it"):
        fetch("cifar10", cifar[0], tmp_path)


class TestSeveralArchives:
    """MNIST has four archives, and their names do not matter."""

    @pytest.fixture
    def archives(self, tmp_path, monkeypatch):
        paths, infos = {}, {}
        for index, url in enumerate(tfds.builder_cls("mnist").url_infos):
            n_rows = 60_000 if "train" in url else 10_000
            header, size = (8, n_rows) if "labels" in url else (16, n_rows * 784)
            paths[url] = tmp_path / f"part-{index}"
            paths[url].write_bytes(gzip.compress(bytes(header) + bytes([index]) * size, 1))
            infos[url] = info_of(paths[url], url.rsplit("/", 1)[-1])
        monkeypatch.setattr(tfds.builder_cls("mnist"), "url_infos", infos)
        return paths

    def test_missing_ones_are_named(self, archives, tmp_path):
        given = [path for url, path in archives.items() if "t10k" in url]
        with pytest.raises(DatasetError, match=r"2 archives are missing: .*train-images.*train-labels") as caught:
            fetch("mnist", given, tmp_path)
        assert "t10k" not in str(caught.value)

    def test_missing_ones_are_named_before_anything_is_downloaded(self, archives, tmp_path, monkeypatch):
        def fail(*_, **__):
            raise AssertionError("went to the network")

        monkeypatch.setattr(downloader._Downloader, "download", fail)
        with pytest.raises(DatasetError, match="archives are missing"):
            fetch("mnist", [next(iter(archives.values()))], tmp_path)
