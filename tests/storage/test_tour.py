"""The tour for analysts, storage/tour.ipynb: it runs from the first cell to the last, and shows what it says it shows."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from places import REPOSITORY
from shapes_night import N_ROWS, seal_shapes
from storage import AttributionStore, open_store

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

TOUR = REPOSITORY / "storage" / "tour.ipynb"
TIMEOUT_S = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tour runs; a night of shapes lies elsewhere."""
    return tmp_path_factory.mktemp("tour")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AttributionStore]:
    with open_store(seal_shapes(tmp_path_factory.mktemp("night"))) as store:
        yield store


@pytest.fixture(scope="module")
def tour(store: AttributionStore, folder: Path) -> dict[str, list[Any]]:
    """The outputs of each cell, by the cell's id."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NIGHTLENS_STORE", str(store.path))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
        for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR"):
            patch.setenv(name, str(folder / name))
        client = nbclient.NotebookClient(
            nbformat.read(TOUR, as_version=4), timeout=TIMEOUT_S, resources={"metadata": {"path": str(folder)}}
        )
        executed = client.execute()
    return {cell["id"]: cell["outputs"] for cell in executed["cells"] if cell["cell_type"] == "code"}


def shown(outputs: list[Any]) -> str:
    """What a cell printed or returned, as text."""
    said = (output for output in outputs if output.get("name") != "stderr")
    return "".join(output.get("text") or output["data"]["text/plain"] for output in said)


def test_it_is_kept_without_outputs() -> None:
    notebook = nbformat.read(TOUR, as_version=4)
    nbformat.validate(notebook)
    kept = [cell for cell in notebook["cells"] if cell.get("outputs") or cell.get("execution_count")]
    assert kept == []


def test_it_opens_the_store_that_the_environment_names(tour: dict[str, list[Any]], store: AttributionStore) -> None:
    assert shown(tour["open"]) == repr(store)


def on_stderr(outputs: list[Any]) -> str:
    return "".join(output["text"] for output in outputs if output.get("name") == "stderr")


def test_it_says_nothing_on_stderr_but_how_far_the_verification_is(tour: dict[str, list[Any]]) -> None:
    assert [cell for cell, outputs in tour.items() if on_stderr(outputs)] == ["verify"]
    assert re.fullmatch(r"(\r?(sha256|datasets) +\|#* *\| +\d+%\n?)+", on_stderr(tour["verify"]))


def test_the_store_and_its_rows_show_themselves(tour: dict[str, list[Any]], store: AttributionStore) -> None:
    for cell, expected in (("open", "the model's surest mistakes"), ("show", "4 rows, explained for the true class")):
        (html,) = [output["data"]["text/html"] for output in tour[cell] if "text/html" in output.get("data", {})]
        assert expected in html and "data:image/png;base64," in html


def test_it_selects(tour: dict[str, list[Any]], store: AttributionStore) -> None:
    n_wrong = int((store.labels != store.predictions).sum())
    assert 0 < n_wrong < N_ROWS / 4
    assert f"{n_wrong} of {N_ROWS} images are classified wrongly, {N_ROWS} have an attribution" in shown(tour["rows"])


@pytest.mark.parametrize("cell", ["figure", "sheet", "targets", "means"])
def test_it_draws(tour: dict[str, list[Any]], cell: str) -> None:
    (picture,) = [output["data"]["image/png"] for output in tour[cell] if "image/png" in output.get("data", {})]
    assert len(picture) > 10_000


def test_the_certificate_adds_up(tour: dict[str, list[Any]]) -> None:
    (said,) = [line for line in shown(tour["completeness"]).splitlines() if line.startswith("completeness")]
    assert float(said.rpartition(" ")[2]) < 1e-4
    assert f"all {N_ROWS} rows" in said


def test_it_exports_the_least_sure(tour: dict[str, list[Any]], store: AttributionStore, folder: Path) -> None:
    least = np.sort(store.row_numbers[np.argsort(store.confidences, kind="stable")[:4]])
    pictures = sorted(path.name for path in (folder / "least-sure").glob("*.png"))
    assert [int("".join(filter(str.isdigit, name))) for name in pictures] == least.tolist()
    assert sorted(pd.read_csv(folder / "least-sure.csv")["row"]) == least.tolist()


def test_it_finds_nothing_wrong(tour: dict[str, list[Any]]) -> None:
    assert shown(tour["verify"]) == "no findings\n"
