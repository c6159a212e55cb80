"""Ingest in a flow: the page of the dataset, the model's shape, and a bar while it takes long."""

import time

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from dataset_sources import keras_arrays, write_images, write_npz
from tasks.config import DatasetConfig
from tasks.datasets import counting, prepare
from tasks.datasets.counting import Count
from tasks.ingest import ingest
from tasks.night.progress import listening


@pytest.mark.usefixtures("prefect_server")
def test_the_page_says_the_order_of_classes_and_the_models_shape(tmp_path):
    @flow
    def night():
        return ingest(DatasetConfig(source=str(tmp_path / "pets")), tmp_path, (12, 10, 3))

    write_images(tmp_path / "pets", classes=("9", "10"))
    dataset = night()
    assert (dataset.shape, dataset.class_names) == ((12, 10, 3), ("10", "9"))
    with get_client(sync_client=True) as client:
        artifacts = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["dataset"])))
    newest = max(artifacts, key=lambda artifact: artifact.created)
    assert "| order of classes | names sorted as strings, as image\\_dataset\\_from\\_directory" in newest.data


def test_each_pass_over_a_folder_is_counted_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(counting, "QUIET_S", 0)
    monkeypatch.setattr(counting, "EVERY_S", 0)
    write_images(tmp_path / "pets", n_images=20)
    reports = []
    prepare(DatasetConfig(source=str(tmp_path / "pets")), tmp_path, report=lambda *report: reports.append(report))
    last = {what: (done, total) for what, done, total, _ in reports}
    assert list(last) == ["reading", "looking at the files", "converting", "taking the fingerprint"]
    assert set(last.values()) == {(80, 80)}
    done = [report[1] for report in reports if report[0] == "converting"]
    assert done == sorted(done)


def test_a_quick_pass_reports_nothing():
    reports = []
    count = Count("reading", 10, lambda *report: reports.append(report))
    count.add(10)
    assert reports == []


@pytest.mark.usefixtures("prefect_server")
def test_a_long_ingest_reports_its_images(tmp_path, monkeypatch):
    monkeypatch.setattr(counting, "QUIET_S", 0)

    @flow
    def night():
        return ingest(DatasetConfig(source=str(write_npz(tmp_path / "a.npz", **keras_arrays()))), tmp_path)

    reports, began = [], time.monotonic()
    with listening(reports.append):
        night()
    took = time.monotonic() - began
    assert {(report.stage, report.unit) for report in reports} == {("ingest", "images")}
    assert (reports[-1].done, reports[-1].total, reports[-1].note) == (19, 19, "taking the fingerprint")
    for what in {report.note for report in reports}:
        seconds = [report.seconds for report in reports if report.note == what]
        assert seconds == sorted(seconds) and seconds[0] >= 0 and seconds[-1] <= took, what
