"""`nightly/cifar10` for real: `nightlens up` with a file of deployments that names CIFAR-10's images, by its own cron."""

import json
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prefect.client.orchestration import get_client

from empty_record import EmptyRecord
from flows.server.api import api_environment
from flows.server.server import running_server
from flows.service.deployments import read_deployments
from places import REPOSITORY, TESTS
from storage import Catalog, open_store

sys.path.insert(0, str(TESTS / "benchmarks"))

from scheduled import EVERY_MINUTE, ScheduledNight, read_nights, service, write_deployments

ARCHIVE = REPOSITORY.parent / "shared" / "data" / "cifar10-jpeg.tar.gz"
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
N_TRAIN, N_TEST = 40, 10  # of each class
N_ROWS = N_TEST * len(CLASSES)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first images of each class, as the JPEG files that they are."""
    if not ARCHIVE.is_file():
        pytest.skip(f"needs CIFAR-10 as JPEG files, {ARCHIVE}")
    folder, kept = tmp_path_factory.mktemp("images"), {"train": N_TRAIN, "test": N_TEST}
    with tarfile.open(ARCHIVE) as archive:
        for member in archive:
            path = Path(member.name)
            if member.isfile() and int(path.stem) < kept[path.parts[1]]:
                archive.extract(member, folder, filter="data")
    return folder / "cifar10"


@dataclass(frozen=True)
class Seen:
    """The nights of the first two ticks, and the server's record of their runs, by id."""

    nights: list[ScheduledNight]
    runs: dict[str, Any]


@pytest.fixture(scope="module")
def seen(images: Path, empty_record: EmptyRecord, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    root = tmp_path_factory.mktemp("cifar10") / "root"
    empty_record.put(root / "prefect")
    parameters = {
        "dataset": {"source": str(images)},
        "model": {"epochs": 1},
        "explanation": {"part_rows": 32},
        "worth": {"level": "rows"},
        "audit": {"n_rows": 0},
        "gallery": {"draw": False},
    }
    deployments = write_deployments(root.parent / "nights.yaml", parameters, EVERY_MINUTE)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PREFECT_API_URL", raising=False)
        with service(root, deployments) as running:
            running.wait_for_nights(2)
            url = running_server(root / "prefect")["url"]
            with api_environment(root / "prefect", url), get_client(sync_client=True) as client:
                runs = {str(run.id): run for run in client.read_flow_runs()}
    yield Seen(read_nights(root)[:2], runs)


def test_other_images_are_a_parameter_of_the_deployment(tmp_path: Path) -> None:
    file = write_deployments(tmp_path / "nights.yaml", {"dataset": {"source": "/images"}}, EVERY_MINUTE)
    ours, theirs = (
        {deployment.name: deployment for deployment in read_deployments(path)}
        for path in (file, REPOSITORY / "prefect.yaml")
    )
    assert ours["cifar10"].parameters == {"dataset": {"source": "/images"}}
    assert [schedule.cron for schedule in ours["cifar10"].schedules] == [EVERY_MINUTE]
    assert {name: ours[name] for name in ours if name != "cifar10"} == {
        name: theirs[name] for name in theirs if name != "cifar10"
    }


@pytest.mark.slow
def test_the_first_tick_trains_and_the_second_computes_nothing_again(seen: Seen) -> None:
    first, second = seen.nights
    assert first.model.startswith("trained in ")
    assert second.model == "reused"
    assert (first.n_computed, second.n_computed) == (N_ROWS, 0)


@pytest.mark.slow
def test_the_cron_began_both(seen: Seen) -> None:
    runs = [seen.runs[night.result["flow_run_id"]] for night in seen.nights]
    assert [run.auto_scheduled for run in runs] == [True, True]
    planned = [run.expected_start_time for run in runs]
    assert [at.second for at in planned] == [0, 0] and planned[0] < planned[1]


@pytest.mark.slow
def test_both_nights_are_of_these_images_and_the_same(seen: Seen, images: Path) -> None:
    first, second = (Path(night.result["store"]) for night in seen.nights)
    with open_store(first) as store, open_store(second) as again:
        assert len(store) == N_ROWS and store.class_names == CLASSES
        assert np.bincount(store.labels).tolist() == [N_TEST] * len(CLASSES)
        configuration: Any = again.attributes["configuration"]
        assert configuration["dataset"]["source"] == str(images)
        assert store.attributes["model_sha256"] == again.attributes["model_sha256"]
        np.testing.assert_array_equal(store.integrated_gradients[:], again.integrated_gradients[:])


@pytest.mark.slow
def test_latest_is_the_second_night(seen: Seen) -> None:
    night = Path(seen.nights[1].result["store"]).parent
    assert Catalog(night.parents[1]).latest() == night
    assert json.loads((night / "night.json").read_text()) == seen.nights[1].result
