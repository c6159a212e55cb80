"""A disk that fills up in the middle of a night, and one that is read-only: real ones, a tmpfs of a few megabytes."""

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prefect.client.schemas.objects import State

from flows.nightly import nightly
from small_night import small_night
from storage import Catalog, open_store, read_nights
from tasks import explain as explaining
from tasks.datasets import Dataset
from tasks.models.registry import ModelRecord
from tasks.night.progress import Progress, listening

pytestmark = pytest.mark.usefixtures("prefect_server")
N_BYTES = 8 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={N_BYTES}", "nightlens-test", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here, which takes root: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def run(
    disk: Path, few_digits: Dataset, small_model: ModelRecord, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., State]:
    """Runs a night of 20 rows in three parts, its root on the small disk; its final state."""
    monkeypatch.setattr(explaining.explain_part, "retry_delay_seconds", [0.0] * explaining.RETRIES)
    night = small_night(disk / "data", small_model.path, few_digits.directory)

    def run(*, draw: bool = False) -> State:
        return nightly(**night | {"gallery": {"draw": draw, "spotlight": [1], "per_class": 0}}, return_state=True)

    return run


def fill(disk: Path) -> None:
    """Take all the room there is, with a file `ballast`."""
    with (disk / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def at(stage: str, action: Callable[[], object]) -> Callable[[Progress], None]:
    """A listener that acts once, when the stage begins."""
    done = []

    def heard(progress: Progress) -> None:
        if progress.stage == stage and not done:
            done.append(action())

    return heard


@pytest.mark.parametrize("stage", ["explain", "seal", "promote", "publish"])
def test_a_disk_that_fills_up_fails_the_night_clearly_and_the_next_one_ends_well(
    stage: str, disk: Path, run: Callable[..., State]
) -> None:
    first = run()
    assert first.is_completed()
    catalog, earlier = Catalog(disk / "data"), first.result().night_id
    if stage == "explain":  # else its parts are found, and nothing is written
        for part in catalog.parts_dir(read_nights(catalog)[0].digest or "").iterdir():
            part.unlink()

    with listening(at(stage, lambda: fill(disk))):
        state = run(draw=stage == "publish")
    assert state.is_failed(), state
    assert "No space left on device" in str(state.message)
    if stage == "publish":
        assert "is sealed, but its pictures cannot be written" in str(state.message)

    # Nothing half-written is there under a name that counts.
    latest = read_nights(catalog)[0].id if stage == "publish" else earlier
    with open_store(disk / "data") as store:
        assert len(store) == 20 and store.path.parent.name == latest
    for night in read_nights(catalog):
        if night.has_store:
            open_store(night.folder).close()
    assert not list((disk / "data").rglob("*.tmp")) and not list((disk / "data").rglob("*.partial"))
    (disk / "ballast").unlink()

    again = run()
    assert again.is_completed()
    with open_store(disk / "data") as store:
        assert len(store) == 20 and store.path == again.result().store


def test_a_root_that_is_read_only_is_refused_before_any_work(disk: Path, run: Callable[..., State]) -> None:
    (disk / "data").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    state = run()
    assert state.is_failed()
    assert "the root" in str(state.message) and "cannot be written to (Read-only file system)" in str(state.message)
    assert not list((disk / "data").iterdir())
