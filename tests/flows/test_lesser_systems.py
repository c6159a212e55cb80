"""Roots on file systems without locks, which are refused, and without links, where everything works without them."""

import re
from pathlib import Path

import pytest

from command import nightlens, python
from empty_record import EmptyRecord
from example_store import seal, write_parts
from lesser_systems import refusing
from small_night import NO_GALLERY, small_night, write_settings
from storage import Catalog, open_store, read_nights, resolve_store
from tasks.datasets import Dataset
from tasks.models.registry import ModelRecord

LINKS = ("symlink", "symlinkat", "link", "linkat")


@pytest.fixture
def without_locks(tmp_path: Path) -> dict[str, str]:
    return refusing(tmp_path, "ENOSYS", "flock") | {"PREFECT_HOME": str(tmp_path / "home")}


@pytest.fixture(scope="module")
def without_links(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("without-links")
    return refusing(folder, "EPERM", *LINKS) | {"PREFECT_HOME": str(folder / "home")}


# Without locks.


@pytest.mark.parametrize("command", ["run", "up"])
def test_without_locks_the_root_and_the_cause_are_named_at_the_start(
    command: str, without_locks: dict[str, str], tmp_path: Path
) -> None:
    root = tmp_path / "data"
    done = nightlens(command, "--root", root, environment=without_locks)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"nightlens: {root}: expected a file system with file locks, got one without (flock: Function not implemented); "
        "choose a folder on another one, or have it mounted with locks (Lustre: -o flock)\n"
    )
    assert not root.exists()


def test_without_locks_ui_names_the_root_and_the_cause(without_locks: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "prefect").mkdir()
    done = nightlens("ui", "--root", tmp_path, environment=without_locks)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"nightlens: {tmp_path}: expected a file system with file locks, got one without")
    assert done.stderr.count("\n") == 1


def test_without_locks_a_flow_refuses_its_root(without_locks: dict[str, str], tmp_path: Path) -> None:
    program = (
        f"from pathlib import Path; from tasks.ingest import check_root; check_root(Path({str(tmp_path / 'data')!r}))"
    )
    done = python("-c", program, environment=without_locks)
    said = done.stderr.splitlines()[-1]
    assert said.startswith(
        f"storage.file.disk.lock.NoLocks: [Errno 38] {tmp_path / 'data'}: expected a file system with file locks"
    )
    assert list((tmp_path / "data").iterdir()) == []


def test_without_locks_an_export_says_so_and_reading_works(without_locks: dict[str, str], tmp_path: Path) -> None:
    store = tmp_path / "attributions.h5"
    seal(store, write_parts(tmp_path / "parts", 0, 20))
    done = nightlens("export", store, "--to", "png", tmp_path / "out", environment=without_locks)
    assert done.returncode == 2
    assert done.stderr.startswith(f"nightlens: {tmp_path}: expected a file system with file locks, got one without")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))
    shown = nightlens("show", store, "--row", 3, "--out", tmp_path / "row.png", environment=without_locks)
    assert shown.returncode == 0, shown.stderr


# Without links.


@pytest.fixture(scope="module")
def root(
    without_links: dict[str, str],
    few_digits: Dataset,
    small_model: ModelRecord,
    empty_record: EmptyRecord,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The root of two nights of 20 rows, of the layouts single and virtual, where no link can be made."""
    folder = tmp_path_factory.mktemp("linkless")
    empty_record.put(folder / "data" / "prefect")
    night = small_night(folder / "data", small_model.path, few_digits.directory, gallery=NO_GALLERY)
    config = write_settings(folder / "night.yaml", night)
    for layout in ("single", "virtual"):
        done = nightlens("run", "--config", config, "--layout", layout, environment=without_links)
        assert done.returncode == 0, done.stderr
    return folder / "data"


@pytest.mark.slow
def test_without_links_a_file_says_which_night_is_the_latest(root: Path) -> None:
    newest, older = read_nights(Catalog(root))
    assert (root / "latest").read_text() == f"nights/{newest.id}\n" and not (root / "latest").is_symlink()
    assert [night.is_latest for night in (newest, older)] == [True, False]
    assert Catalog(root).latest() == newest.folder
    assert [path.name for path in root.glob("latest*")] == ["latest"]


@pytest.mark.slow
@pytest.mark.parametrize("place", ["", "latest", "latest/attributions.h5"])
def test_without_links_every_path_leads_to_the_latest_store(root: Path, place: str) -> None:
    newest = read_nights(Catalog(root))[0]
    assert resolve_store(root / place) == (newest.folder / "attributions.h5").resolve()
    with open_store(root / place) as store:
        assert len(store) == 20 and store.attributions(...).shape[0] == 20


@pytest.mark.slow
def test_without_links_the_parts_of_a_virtual_store_are_copies(root: Path) -> None:
    newest = read_nights(Catalog(root))[0]
    parts = sorted((newest.folder / "attributions.parts").iterdir())
    assert len(parts) == 3 and {part.stat().st_nlink for part in parts} == {1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nights", "--root", "ROOT"], 0, r"sealed .* latest"),
        (["status", "--root", "ROOT"], 1, r"last night .* sealed, latest, 20 rows"),
        (["verify", "ROOT/latest"], 0, r"attributions\.h5: sound"),
        (["show", "ROOT/latest", "--row", 3, "--out", "ROOT/../row.png"], 0, r"row\.png: "),
        (["export", "ROOT/latest", "--to", "png", "ROOT/../out", "--limit", 1], 0, r"out: 1 rows"),
        (["prune", "--keep", 1, "--root", "ROOT", "--dry-run"], 0, r"^1 would be removed"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_without_links_the_commands_work(
    arguments: list[object], code: int, said: str, root: Path, without_links: dict[str, str]
) -> None:
    given = [str(argument).replace("ROOT", str(root)) for argument in arguments]
    done = nightlens(*given, environment=without_links)
    assert done.returncode == code, done.stderr
    assert re.search(said, done.stdout, re.M), done.stdout
