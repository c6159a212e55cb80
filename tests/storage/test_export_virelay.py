"""A ViRelAy project as ViRelAy reads it: its own loader and server, in an environment of their own.

What must come out is taken from the store by h5py alone, so that a mix-up of rows, targets or axes shows.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from command import program
from example_clusters import example_clusters
from example_store import ATTRIBUTES, DIGEST, example_arrays, joined_arrays, write_parts
from places import REPOSITORY, SETUP
from storage import open_store, part_path, seal_store, write_part
from storage.export import export_rows

VIRELAY_PYTHON = REPOSITORY / ".venv-virelay" / "bin" / "python"
needs_virelay = pytest.mark.skipif(
    not VIRELAY_PYTHON.exists(), reason="ViRelAy is not installed: `make .venv-virelay/installed`"
)
CLASS_NAMES = ["../../etc/passwd", 'it\'s "quoted": {a} # - !x\n<script>alert(1)</script>', "naïve 猫 " + "x" * 300]
START, STOP = 64, 224
# The maps of a method, and the largest value of each.
MAPS = {
    "grad-cam": ("grad_cam/map", "grad_cam/cam_max"),
    "hires-cam": ("hires_cam/hires", "hires_cam/hires_max"),
}
STRATEGIES = ["0a", 'b, "c"\n<b>', "2a"]
STEMS = [f"{method}-{target}" for method in ("integrated-gradients", *MAPS) for target in ("true", "predicted")]


@pytest.fixture(scope="module")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the rows 64 to 223 with class names that no path and no markup can take."""
    folder = tmp_path_factory.mktemp("store")
    path = folder / "attributions.h5"
    seal_store(path, write_parts(folder, START, STOP), class_names=CLASS_NAMES, attributes=ATTRIBUTES)
    return path


@pytest.fixture(scope="module", params=["all", "wrong"])
def exported(request: pytest.FixtureRequest, store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folder of an export and its rows: all of them, or the misclassified."""
    folder = tmp_path_factory.mktemp("virelay") / "export"
    with open_store(store_path) as store:
        rows = store.rows(correct=None if request.param == "all" else False)
        export_rows(store, rows, "virelay", folder)
    return folder, rows


@cache
def read_by_virelay(folder: Path, stem: str) -> tuple[dict[str, Any], dict[str, NDArray]]:
    out = folder.parent / f"{stem}.npz"
    done = program(VIRELAY_PYTHON, "-W", "ignore", SETUP / "read_virelay.py", folder / f"{stem}.yaml", out)
    assert done.returncode == 0, done.stderr
    with np.load(out) as arrays:
        return json.loads(done.stdout), dict(arrays)


def stored(path: Path, name: str, rows: NDArray, target: str) -> NDArray:
    """Values of a variable for the target, by h5py alone: of misclassified rows from the group of the predicted."""
    group, _, variable = name.rpartition("/")
    with h5py.File(path) as file:
        values = file[name][...][rows - START]
        if target == "predicted":
            own = file["predicted_row"][...]
            for position, row in enumerate(rows):
                if row in own:
                    values[position] = file[f"{group}/predicted/{variable}"][np.flatnonzero(own == row)[0]]
    return values


def enlarged(maps: NDArray, side: int) -> NDArray:
    """Bilinear by Pillow, pixel centres meant, as the oracle."""
    return np.stack([np.asarray(Image.fromarray(m).resize((side, side), Image.Resampling.BILINEAR)) for m in maps])


@needs_virelay
@pytest.mark.parametrize("stem", STEMS)
def test_virelay_reads_what_the_store_holds(exported: tuple[Path, NDArray], store_path: Path, stem: str) -> None:
    folder, rows = exported
    method, _, target = stem.rpartition("-")
    about, arrays = read_by_virelay(folder, stem)
    with h5py.File(store_path) as file:
        image, label, prediction, probability = (
            file[name][...][rows - START] for name in ("image", "label", "prediction", "probability")
        )
    np.testing.assert_array_equal(arrays["data"], image, strict=True)
    np.testing.assert_array_equal(arrays["prediction"], probability, strict=True)
    assert about["sample_labels"] == [[number] for number in label]
    explained = label if target == "true" else prediction
    assert about["explained"] == [[number] for number in explained]
    assert about["classes"] == CLASS_NAMES
    assert about["strategy"] == {"true": "true_label", "predicted": "predicted_label"}[target]
    if method == "integrated-gradients":
        expected = stored(store_path, "integrated_gradients/attribution", rows, target)
        np.testing.assert_array_equal(arrays["attribution"], expected, strict=True)
    else:
        heat = enlarged(stored(store_path, MAPS[method][0], rows, target), 24)
        np.testing.assert_allclose(arrays["attribution"].sum(axis=3), heat, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(arrays["attribution"][..., 0], arrays["attribution"][..., 2])


@needs_virelay
@pytest.mark.parametrize("stem", STEMS)
def test_virelay_reads_the_analyses(exported: tuple[Path, NDArray], store_path: Path, stem: str) -> None:
    folder, rows = exported
    method, _, target = stem.rpartition("-")
    about, _ = read_by_virelay(folder, stem)
    with h5py.File(store_path) as file:
        label, prediction = file["label"][...][rows - START], file["prediction"][...][rows - START]
    explained, other = (label, prediction) if target == "true" else (prediction, label)
    if method == "integrated-gradients":
        trusted = stored(store_path, "integrated_gradients/converged", rows, target) == 1
    else:
        trusted = stored(store_path, MAPS[method][1], rows, target) > 0
    outcome = np.where(label == prediction, 0, 2) + np.where(trusted, 0, 1)
    found = {(a["class"], a["clustering"]): a for a in about["analyses"]["where_it_lies"]}
    name = "prediction" if target == "true" else "label"
    assert set(found) == {(CLASS_NAMES[c], k) for c in np.unique(explained) for k in ("outcome", name)}
    for (class_name, clustering), analysis in found.items():
        index = np.flatnonzero(explained == CLASS_NAMES.index(class_name))
        assert analysis["index"] == index.tolist()
        assert analysis["clusters"] == (outcome if clustering == "outcome" else other)[index].tolist()
        assert np.shape(analysis["values"]) == (len(index), 4)
        np.testing.assert_allclose(np.var(analysis["values"], axis=0), analysis["eigenvalues"], rtol=1e-4, atol=1e-7)


@needs_virelay
@pytest.mark.parametrize("stem", STEMS)
def test_virelay_serves_pictures_and_points(exported: tuple[Path, NDArray], stem: str) -> None:
    about, _ = read_by_virelay(exported[0], stem)
    served = about["server"]
    assert set(served["status"].values()) == {200}
    assert set(map(tuple, served["sizes"].values())) == {(24, 24)}
    assert served["points"] == len(about["analyses"]["where_it_lies"][0]["index"])


@pytest.fixture(scope="module")
def clustered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store with strategies, and names of them that no markup can take."""
    folder = tmp_path_factory.mktemp("clustered")
    parts = write_parts(folder, START, STOP)
    predictions = joined_arrays(START, STOP)["prediction"]
    tables = example_clusters(np.arange(START, STOP), predictions, STRATEGIES)
    path = folder / "attributions.h5"
    seal_store(path, parts, class_names=CLASS_NAMES, attributes=ATTRIBUTES, tables=tables)
    return path


@pytest.fixture(scope="module")
def exported_strategies(clustered: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, NDArray]:
    folder = tmp_path_factory.mktemp("virelay") / "export"
    with open_store(clustered) as store:
        rows = store.rows(correct=False)
        export_rows(store, rows, "virelay", folder)
    return folder, rows


@pytest.mark.parametrize("target", ["true", "predicted"])
def test_analyses_of_integrated_gradients_have_the_store_s_strategies(
    exported_strategies: tuple[Path, NDArray], clustered: Path, target: str
) -> None:
    folder, rows = exported_strategies
    with h5py.File(clustered) as file:
        of_row = file["clusters/of_row"][...][rows - START]
    with h5py.File(folder / f"integrated-gradients-{target}.analysis.h5") as file:
        other = {"true": "prediction", "predicted": "label"}[target]
        assert all(set(group["cluster"]) == {"outcome", other, "strategy"} for group in file.values())
        for group in file.values():
            own = of_row[group["index"][...]]
            np.testing.assert_array_equal(group["cluster/strategy"], (own + 1).astype(np.uint32), strict=True)
            said = ["0 none", *(f"{number + 1} {STRATEGIES[number]}" for number in sorted({*own.tolist()} - {-1}))]
            assert group["cluster/strategy"].attrs["description"].decode() == ", ".join(said)


def test_strategies_of_a_store_are_of_integrated_gradients_alone(exported_strategies: tuple[Path, NDArray]) -> None:
    folder, _ = exported_strategies
    for stem in STEMS:
        with h5py.File(folder / f"{stem}.analysis.h5") as file:
            has = {"strategy" in group["cluster"] for group in file.values()}
        assert has == {stem.startswith("integrated-gradients")}, stem


@needs_virelay
def test_virelay_reads_the_strategies(exported_strategies: tuple[Path, NDArray], clustered: Path) -> None:
    folder, rows = exported_strategies
    about, _ = read_by_virelay(folder, "integrated-gradients-predicted")
    with h5py.File(clustered) as file:
        prediction, of_row = file["prediction"][...][rows - START], file["clusters/of_row"][...][rows - START]
    found = {a["class"]: a for a in about["analyses"]["where_it_lies"] if a["clustering"] == "strategy"}
    assert set(found) == {CLASS_NAMES[number] for number in np.unique(prediction)}
    for class_name, analysis in found.items():
        index = np.flatnonzero(prediction == CLASS_NAMES.index(class_name))
        assert analysis["index"] == index.tolist()
        assert analysis["clusters"] == (of_row[index] + 1).tolist()
    assert set(about["server"]["status"].values()) == {200}


@needs_virelay
def test_grey_images_become_colour_for_virelay(tmp_path: Path) -> None:
    arrays = example_arrays(0, 20)
    for name in ("image", "integrated_gradients/attribution", "integrated_gradients/predicted/attribution"):
        arrays[name] = arrays[name][..., :1]
    part = part_path(tmp_path, 0, 20)
    write_part(part, 0, 20, arrays, digest=DIGEST, part_rows=20)
    seal_store(tmp_path / "attributions.h5", [part], class_names=CLASS_NAMES, attributes=ATTRIBUTES)
    with open_store(tmp_path) as store:
        export_rows(store, store.row_numbers, "virelay", tmp_path / "export")
    about, read = read_by_virelay(tmp_path / "export", STEMS[0])
    np.testing.assert_array_equal(read["data"], np.repeat(arrays["image"], 3, axis=3), strict=True)
    total = read["attribution"].sum(axis=3, keepdims=True)
    np.testing.assert_allclose(total, arrays["integrated_gradients/attribution"], rtol=1e-5, atol=1e-6)
    assert set(about["server"]["status"].values()) == {200}


@needs_virelay
def test_a_project_without_rows_opens(store_path: Path, tmp_path: Path) -> None:
    with open_store(store_path) as store:
        export_rows(store, store.row_numbers[:0], "virelay", tmp_path / "export")
    about, arrays = read_by_virelay(tmp_path / "export", STEMS[0])
    assert len(arrays["data"]) == 0 and about["analyses"] == {}


def test_every_file_says_which_rows_it_holds(exported: tuple[Path, NDArray]) -> None:
    folder, rows = exported
    files = [folder / "dataset.h5", *folder.glob("*.attribution.h5")]
    assert len(files) == 1 + len(STEMS)
    for path in files:
        with h5py.File(path) as file:
            np.testing.assert_array_equal(file["row"], rows, strict=True)
    for path in folder.glob("*.analysis.h5"):
        with h5py.File(path) as file:
            for group in file.values():
                np.testing.assert_array_equal(group["row"], rows[group["index"][...]], strict=True)


def test_projects_have_names_of_their_own_and_no_path_is_a_class_name(exported: tuple[Path, NDArray]) -> None:
    yaml = pytest.importorskip("yaml")
    names = {yaml.safe_load(path.read_text())["project"]["name"] for path in exported[0].glob("*.yaml")}
    assert len(names) == len(STEMS)
    suffixes = ("attribution.h5", "analysis.h5", "yaml")
    expected = {f"{stem}.{suffix}" for stem in STEMS for suffix in suffixes}
    assert {path.name for path in exported[0].iterdir()} == expected | {"dataset.h5", "label-map.json", "export.json"}
