"""The first command of all where the reference is not installed: the night seals, and says that nothing audited it.

`make test-numpy2` runs it in such an environment, on NumPy 2 and pandas 3.
"""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

import nightlens
from tasks.numerics.references import missing_references

pytestmark = pytest.mark.skipif(missing_references() == [], reason="the extra 'reference' is installed")
ROWS = 64


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The root of a small night of digits, run by the command, and what the command said."""
    root = tmp_path_factory.mktemp("night")
    command = [sys.executable, "-m", "flows.cli", "run", "--rows", f"0:{ROWS}", "--epochs", "1", "--root", str(root)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return root, done.stdout


def test_it_runs_on_numpy_2_and_pandas_3() -> None:
    assert importlib.metadata.version("numpy").partition(".")[0] == "2"
    assert importlib.metadata.version("pandas").partition(".")[0] == "3"


def test_the_night_seals_and_its_store_is_whole(night: tuple[Path, str]) -> None:
    path = night[0] / "latest"
    assert nightlens.verify_store(path) == ()
    with nightlens.open_store(path) as store:
        table = store.table()
        assert list(table.index) == list(range(ROWS))
        assert table["label_name"].tolist() == [str(label) for label in table["label"]]
        assert store.attributes["software"]["numpy"] == importlib.metadata.version("numpy")


def test_the_verdict_says_that_nothing_audited_it(night: tuple[Path, str]) -> None:
    (verdict,) = (line for line in night[1].splitlines() if line.startswith("verdict"))
    missing = ", ".join(missing_references())
    assert verdict.endswith(f"not audited: {missing} not installed (extra 'reference')")
    assert "alibi" in missing
