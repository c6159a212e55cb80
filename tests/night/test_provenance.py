"""Where numbers come from: changed code finds no parts that other code computed."""

import shutil
from pathlib import Path

import pytest

from command import printed_by_python
from environment import clean_environment
from places import REPOSITORY

PRINT_DIGEST = "from tasks.parts.part_digest import code_digest; print(code_digest())"


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code that may be changed."""
    copy = tmp_path_factory.mktemp("code")
    for package in ("tasks", "storage"):
        shutil.copytree(REPOSITORY / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def digest_of(code: Path) -> str:
    return printed_by_python(PRINT_DIGEST, cwd=code, environment=clean_environment(path=[code])).strip()


@pytest.mark.parametrize(
    "path",
    [
        "tasks/parts/explained_rows.py",
        "tasks/parts/plan.py",
        "tasks/models/keras2/keras2_calls.py",
        "tasks/models/registry.py",
        "tasks/numerics/network/graph.py",
        "tasks/numerics/quadrature.py",
        "tasks/models/loading.py",
        "storage/file/rounding.py",
    ],
)
def test_changed_code_has_another_digest(copied: Path, path: str) -> None:
    before = digest_of(copied)
    with (copied / path).open("a") as file:
        file.write("\n# another line\n")
    assert digest_of(copied) != before


def test_pages_and_reports_may_change(copied: Path) -> None:
    before = digest_of(copied)
    with (copied / "tasks/pages/night_page.py").open("a") as file:
        file.write("\n# another line\n")
    assert digest_of(copied) == before
