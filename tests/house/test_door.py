"""`import nightlens`: what an analyst finds there, what it costs, and that the wheel has it."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import nightlens
import storage
from example_store import seal, write_parts
from places import REPOSITORY

PIPELINE = ("flows", "tasks", "tensorflow", "keras", "prefect", "pydantic")
TABLES_AND_FIGURES = ("pandas", "xarray", "matplotlib")
BUILT_FROM = ("flows", "tasks", "storage", "nightlens.py", "pyproject.toml", "README.md", "LICENSE")


def test_it_opens_and_verifies_a_store(tmp_path: Path) -> None:
    seal(tmp_path / "attributions.h5", write_parts(tmp_path / "parts", 0, 20))
    with nightlens.open_store(tmp_path / "attributions.h5") as store:
        assert isinstance(store, nightlens.AttributionStore)
        assert list(store.table().index) == list(range(20))
    assert nightlens.verify_store(tmp_path / "attributions.h5") == ()


def test_every_error_of_a_store_is_there() -> None:
    """All of storage.errors; LockBusy is for those who pin and prune."""
    family = [storage.StoreError, *storage.StoreError.__subclasses__()]
    errors = {error.__name__ for error in family if error.__module__ == "storage.errors"}
    assert {name for name in nightlens.__all__ if name.startswith("Store")} == errors
    with pytest.raises(nightlens.StoreNotFound, match="no-such-store"):
        nightlens.open_store("no-such-store.h5")


def test_what_it_offers_is_the_stores_own() -> None:
    for name in {*nightlens.__all__} - {"__version__"}:
        assert getattr(nightlens, name) is getattr(storage, name)


def test_its_version_is_the_projects() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert nightlens.__version__ == project["version"]


def test_it_is_installed_and_loads_nothing_of_the_pipeline(tmp_path: Path) -> None:
    """From another folder: the module is found through the installation, not beside the tests."""
    program = "import sys, nightlens; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    command = [sys.executable, "-I", "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.split()
    assert {"nightlens", "storage", "h5py"} <= set(loaded)
    assert [name for name in (*PIPELINE, *TABLES_AND_FIGURES) if name in loaded] == []


def test_the_wheel_has_the_door_the_packages_and_their_files_and_no_tests(tmp_path: Path) -> None:
    for name in BUILT_FROM:
        source, copy = REPOSITORY / name, tmp_path / "source" / name
        if source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy)
    build = [
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        tmp_path,
        tmp_path / "source",
    ]
    done = subprocess.run([sys.executable, *map(str, build)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("nightlens-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    sources = {
        path.relative_to(tmp_path / "source").as_posix()
        for name in ("flows", "tasks", "storage")
        for path in (tmp_path / "source" / name).rglob("*.py")
    }
    assert sources | {"nightlens.py", "flows/terminal/json_logs.yml", "tasks/report/templates/report.html"} <= {*names}
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"flows", "tasks", "storage", "nightlens.py"}
