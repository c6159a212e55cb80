"""The README's examples run as they stand, on a store where `make run` leaves one."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from example_store import ATTRIBUTES, CLASS_NAMES, write_parts
from places import REPOSITORY
from storage import Catalog, seal_store

README = (REPOSITORY / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nightlens-data in it, as after a night of 160 rows."""
    folder = tmp_path_factory.mktemp("readme")
    catalog = Catalog(folder / "nightlens-data")
    night = catalog.night_dir("20261123T020000Z-ab12cd")
    night.mkdir(parents=True)
    seal_store(
        night / "attributions.h5",
        write_parts(folder, 0, 160),
        class_names=CLASS_NAMES,
        attributes=ATTRIBUTES,
        expected_rows=(0, 160),
    )
    catalog.point_latest(night)
    return folder


def test_there_are_three_examples() -> None:
    assert [re.search(r"import (h5py|xarray|open_store)", example).group(1) for example in EXAMPLES] == [  # type: ignore[union-attr]
        "h5py",
        "xarray",
        "open_store",
    ]


@pytest.mark.parametrize("example", EXAMPLES, ids=["h5py", "xarray", "reader"])
def test_example_runs(example: str, folder: Path) -> None:
    command = [sys.executable, "-c", example]
    done = subprocess.run(command, cwd=folder, env={"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_nothing_is_left_to_fill_in() -> None:
    assert "@@" not in README
