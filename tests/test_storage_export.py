"""Exports: each format read back by other people's code and compared with the store read by h5py alone."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import xarray as xr
import yaml
from PIL import Image
from test_storage_example import ATTRIBUTES, flip_byte, joined_arrays, write_parts

from storage import Catalog, StoreCorrupt, open_store, seal_store
from storage.export import FORMATS, Format, destination, export_rows
from storage.export.virelay_project import principal_components
from storage.schema import GROUPS, TEXT, VARIABLES

REPOSITORY = Path(__file__).parents[1]
VIRELAY = REPOSITORY / ".venv-virelay" / "bin" / "python"
FIRST, STOP = 100, 250
NASTY = ['"quoted"/../../etc/passwd\n<script>alert(1)</script>', "../..", "naïve 猫 " + "x" * 300]
ARRAYS = joined_arrays(FIRST, STOP)
WRONG = ARRAYS["label"] != ARRAYS["prediction"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root whose latest night has the rows 100-249, classes with the worst names, and a dataset with another one."""
    catalog = Catalog(tmp_path_factory.mktemp("root") / "data")
    store = catalog.night_dir("20261123T020000Z-ab12cd") / "attributions.h5"
    about = ATTRIBUTES | {"dataset_name": "a/b '\"<b>\n"}
    parts = write_parts(catalog.root.parent / "parts", FIRST, STOP)
    seal_store(store, parts, class_names=NASTY, attributes=about)
    catalog.point_latest(store.parent)
    return catalog.root


@pytest.fixture
def export(root: Path, tmp_path: Path) -> Callable[..., Path]:
    def export(to: Format, folder: Path | None = None, **filters: Any) -> Path:
        with open_store(root) as store:
            return export_rows(store, store.rows(**filters), to, folder or tmp_path / to)

    return export


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# Formats


def test_parquet_has_the_table_with_units(export: Callable[..., Path]) -> None:
    path = export("parquet") / "rows.parquet"
    table = pd.read_parquet(path)
    assert table["row"].tolist() == list(range(FIRST, STOP))
    assert table["label_name"].tolist() == [NASTY[label] for label in ARRAYS["label"]]
    for column in ("gap", "n_gradients", "quadrature_error"):
        np.testing.assert_array_equal(table[column], ARRAYS[f"integrated_gradients/{column}"])
    np.testing.assert_array_equal(table["cam_max"], ARRAYS["grad_cam/cam_max"])
    about = pq.read_schema(path).field("gap").metadata
    assert about[b"units"] == b"score" and b"completeness" not in about[b"units"]


@pytest.mark.parametrize("group", ["", *GROUPS])
def test_zarr_has_every_group_as_xarray_reads_it_from_the_store(
    group: str, root: Path, export: Callable[..., Path]
) -> None:
    path = export("zarr") / "attributions.zarr"
    theirs = xr.open_zarr(path, group=group or None)
    with h5py.File(root / "latest" / "attributions.h5") as file:
        for variable in (v for v in VARIABLES if v.group == group):
            found = theirs[variable.path.rpartition("/")[2]]
            if variable.dtype == TEXT:
                assert found.values.tolist() == NASTY
                continue
            assert found.dims == variable.dimensions and found.dtype == variable.dtype
            assert found.attrs["units"] == variable.units and found.attrs["long_name"] == variable.long_name
            np.testing.assert_array_equal(found.values, file[variable.path][...])
    if not group:
        assert theirs.attrs["dataset_name"] == "a/b '\"<b>\n"
        assert theirs.attrs["configuration"] == ATTRIBUTES["configuration"]


def test_zarr_of_some_rows_keeps_their_numbers(export: Callable[..., Path]) -> None:
    path = export("zarr", correct=False, label=1) / "attributions.zarr"
    chosen = np.flatnonzero(WRONG & (ARRAYS["label"] == 1)) + FIRST
    ig, predicted = (xr.open_zarr(path, group=f"integrated_gradients{group}") for group in ("", "/predicted"))
    np.testing.assert_array_equal(xr.open_zarr(path)["row"], chosen)
    np.testing.assert_array_equal(predicted["row"], chosen)
    np.testing.assert_array_equal(ig["gap"], ARRAYS["integrated_gradients/gap"][chosen - FIRST])
    own = np.searchsorted(ARRAYS["integrated_gradients/predicted/row"], chosen)
    expected = ARRAYS["integrated_gradients/predicted/attribution"][own]
    np.testing.assert_array_equal(predicted["attribution"], expected)


def test_png_is_a_picture_per_row_named_by_its_number(export: Callable[..., Path], root: Path) -> None:
    with open_store(root) as store:
        rows = store.rows(correct=False, label=0)[:2]
        folder = export_rows(store, rows, "png", root.parent / "pictures")
    assert files(folder) == {f"row-{row:06d}.png" for row in rows}
    for path in folder.iterdir():
        with Image.open(path) as picture:
            assert picture.format == "PNG" and picture.width > 600 and len(picture.convert("L").getcolors() or []) > 50


OPEN_WITH_VIRELAY = """
import json, sys
import numpy as np
from virelay.model import Project

project, told = Project(sys.argv[1]), {}
told |= {"name": project.name, "model": project.model, "strategy": project.attribution_strategy}
told["method"] = project.attribution_method
told["samples"] = len(project.dataset)
for index in map(int, sys.argv[2].split(",")):
    sample, attribution = project.get_sample(index), project.get_attribution(index)
    told[f"sample {index}"] = [sample.data.tolist(), str(sample.data.dtype), [label.name for label in sample.labels]]
    told[f"attribution {index}"] = [
        attribution.data.tolist(), [label.name for label in attribution.labels], attribution.prediction.tolist()
    ]
    attribution.render_heatmap("black-fire-red")
(method,) = project.get_analysis_methods()
for category in project.get_analysis_categories(method):
    for clustering in project.get_analysis_clustering_names(method):
        (embedding,) = project.get_analysis_embedding_names(method)
        found = project.get_analysis(method, category.name, clustering, embedding)
        told[f"{category.human_readable_name} {clustering}"] = [
            found.attribution_indices.tolist(), found.clustering.tolist(), np.shape(found.embedding),
            np.asarray(found.eigenvalues).tolist(),
        ]
json.dump(told, sys.stdout)
"""


@pytest.fixture(scope="module")
def virelay_project(root: Path) -> Path:
    with open_store(root) as store:
        return export_rows(store, store.rows(), "virelay", root.parent / "virelay")


@pytest.mark.skipif(not VIRELAY.is_file(), reason="ViRelAy's own environment is not there; `make virelay` makes it")
@pytest.mark.parametrize("strategy", ["true-label", "predicted-label"])
@pytest.mark.parametrize("method", ["integrated-gradients", "grad-cam"])
def test_virelay_opens_every_project(method: str, strategy: str, virelay_project: Path) -> None:
    positions = [0, int(np.flatnonzero(WRONG)[0]), int(np.flatnonzero(~WRONG)[-1]), STOP - FIRST - 1]
    arguments = [virelay_project / f"{method}-{strategy}.yaml", ",".join(map(str, positions))]
    command = [VIRELAY, "-c", OPEN_WITH_VIRELAY, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    predicted, group = strategy == "predicted-label", method.replace("-", "_")
    assert told["method"] == {"integrated-gradients": "Integrated Gradients", "grad-cam": "Grad-CAM"}[method]
    assert told["strategy"] == strategy.replace("-", "_") and told["model"] == "seed-cnn"
    assert told["samples"] == STOP - FIRST
    explained = ARRAYS["prediction" if predicted else "label"]
    for position in positions:
        pixels, dtype, labels = told[f"sample {position}"]
        assert dtype == "uint8" and labels == [NASTY[ARRAYS["label"][position]]]
        np.testing.assert_array_equal(pixels, ARRAYS["image"][position])
        values, labels, prediction = told[f"attribution {position}"]
        assert labels == [NASTY[explained[position]]]
        np.testing.assert_allclose(prediction, ARRAYS["probability"][position], rtol=1e-6)
        source = f"{group}/{'attribution' if method == 'integrated-gradients' else 'map'}"
        if predicted and WRONG[position]:
            own = np.searchsorted(ARRAYS[f"{group}/predicted/row"], position + FIRST)
            expected = ARRAYS[source.replace("/", "/predicted/")][own]
        else:
            expected = ARRAYS[source][position]
        if method == "grad-cam":
            wide = Image.fromarray(expected).resize((24, 24), Image.Resampling.BILINEAR)
            expected = np.repeat(np.asarray(wide)[..., None] / 3, 3, axis=-1)
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
    for number, name in enumerate(NASTY):
        samples = np.flatnonzero(explained == number)
        indices, clusters, shape, eigenvalues = told[f"{name} correct"]
        assert indices == samples.tolist() and shape == [len(samples), 8]
        assert clusters == (~WRONG[samples]).astype(int).tolist()
        assert np.all(np.diff(eigenvalues) <= 0) and eigenvalues[0] > 0


def test_virelay_files_have_the_types_that_its_specification_names(virelay_project: Path) -> None:
    labels = json.loads((virelay_project / "label-map.json").read_text())
    assert [set(label) for label in labels] == [{"index", "word_net_id", "name"}] * 3
    assert [label["name"] for label in labels] == NASTY
    with h5py.File(virelay_project / "dataset.h5") as file:
        assert (file["data"].dtype, file["label"].dtype, file["data"].shape) == ("uint8", "uint16", (150, 3, 24, 24))
        np.testing.assert_array_equal(file["row"], np.arange(FIRST, STOP))
    with h5py.File(virelay_project / "grad-cam-true-label.attributions.h5") as file:
        assert file["attribution"].dtype == "float32" and file["attribution"].shape == (150, 3, 24, 24)
        assert file["label"].dtype.kind == "u" and file["prediction"].shape == (150, 3)
    for path in virelay_project.glob("*.yaml"):
        assert yaml.safe_load(path.read_text())["project"]["dataset"]["path"] == "dataset.h5"


@pytest.mark.parametrize(("n", "n_features"), [(1, 5), (2, 50), (40, 6), (40, 200)])
def test_principal_components_are_those_of_the_covariance(n: int, n_features: int) -> None:
    features = np.random.default_rng(n).normal(size=(n, n_features)).astype(np.float32)
    coordinates, variance = principal_components(features)
    assert coordinates.shape == (n, 8) and variance.shape == (8,)
    if n > 1:
        expected = np.sort(np.linalg.eigvalsh(np.cov(features.T)))[::-1][: min(8, n - 1, n_features)]
        np.testing.assert_allclose(variance[: len(expected)], expected, rtol=1e-3)
        np.testing.assert_allclose(coordinates.var(axis=0, ddof=1), variance, rtol=1e-3, atol=1e-6)


# Filters and destinations


@pytest.mark.parametrize("to", FORMATS)
def test_a_filter_that_matches_nothing_gives_an_empty_export(to: Format, export: Callable[..., Path]) -> None:
    folder = export(to, correct=True, max_gap=-1.0)
    expected = {"parquet": {"rows.parquet"}, "png": set()}
    assert files(folder) == expected[to] if to in expected else files(folder)
    if to == "zarr":
        assert xr.open_zarr(folder / "attributions.zarr", group="grad_cam").sizes["row"] == 0


def test_nothing_is_named_after_a_class_or_a_dataset(export: Callable[..., Path], tmp_path: Path) -> None:
    for to in FORMATS:
        assert all(name.isascii() and "script" not in name for name in files(export(to, label=1, correct=False)))
    assert {path.name for path in tmp_path.iterdir()} == set(FORMATS)


@pytest.mark.parametrize("to", FORMATS)
def test_a_damaged_store_leaves_no_folder_behind(to: Format, root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "attributions.h5"
    copy.write_bytes((root / "latest" / "attributions.h5").read_bytes())
    with h5py.File(copy) as file:
        offsets = [
            file[path].id.get_chunk_info(0).byte_offset + 50 for path in ("integrated_gradients/attribution", "label")
        ]
    for offset in offsets:
        flip_byte(copy, offset)
    with open_store(copy) as store, pytest.raises(StoreCorrupt):
        export_rows(store, store.row_numbers, to, tmp_path / "exported")
    assert [path.name for path in tmp_path.iterdir()] == ["attributions.h5"]


def test_a_folder_in_use_is_refused_and_replaced_whole_if_asked(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "taken"
    folder.mkdir()
    (folder / "mine").write_text("precious")
    with open_store(root) as store:
        with pytest.raises(FileExistsError, match="is there already; give another folder, or --overwrite"):
            export_rows(store, store.rows(), "parquet", folder)
        assert files(folder) == {"mine"}
        export_rows(store, store.rows(), "parquet", folder, overwrite=True)
    assert files(folder) == {"rows.parquet"} and [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_the_default_destination_lies_in_the_root(root: Path) -> None:
    with open_store(root) as store:
        assert destination(store.path, "20261123T020000Z-ab12cd", "zarr", None) == (
            root.resolve() / "exports" / "20261123T020000Z-ab12cd-zarr"
        )


@pytest.mark.parametrize("inside", ["nights", "nights/x/y", "parts/deep", "models", "datasets", ".running"])
def test_what_belongs_to_a_root_is_no_destination(inside: str, root: Path) -> None:
    with pytest.raises(ValueError, match="belongs to the nights"):
        destination(root / "latest" / "attributions.h5", "id", "png", root / inside)


@pytest.mark.parametrize("folder", ["../out", "a/../../out", "../../etc"])
def test_a_relative_folder_does_not_lead_out(
    folder: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="leads out of the current folder; if that is meant, give an absolute path"):
        destination(root / "latest" / "attributions.h5", "id", "png", Path(folder))
    assert destination(root / "latest" / "attributions.h5", "id", "png", Path("a/../b")) == tmp_path.resolve() / "b"


def test_a_store_that_lies_in_no_root_needs_a_destination(tmp_path: Path) -> None:
    for store in (tmp_path / "attributions.h5", "https://127.0.0.1/attributions.h5"):
        with pytest.raises(ValueError, match="say where the export goes"):
            destination(store, "id", "png", None)
    assert destination(tmp_path / "attributions.h5", "../../id", "png", tmp_path / "x") == tmp_path / "x"


# The command


def nightlens(*arguments: object, cwd: Path, prelude: str = "pass") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    call = f"sys.argv = ['nightlens', *{[str(argument) for argument in arguments]}]; from flows.cli import main; main()"
    program = f"import sys; {prelude}; {call}"
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_says_where_and_how_many(root: Path, tmp_path: Path) -> None:
    done = nightlens("export", root, "--to", "png", "out", "--wrong", "--limit", 2, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    n = int(WRONG.sum())
    assert done.stdout == f"{tmp_path / 'out'}: 2 rows of {n}; --limit {n} writes them all\n"
    rows = np.flatnonzero(WRONG)[:2] + FIRST
    assert files(tmp_path / "out") == {f"row-{row:06d}.png" for row in rows}
    done = nightlens("export", root, "--to", "parquet", "none", "--rows", "0:50", cwd=tmp_path)
    assert done.stdout == f"{tmp_path / 'none'}: 0 rows; nothing matches the filter\n"
    done = nightlens("export", root, "--to", "parquet", "some", "--rows", "120:130", "--label", "2", cwd=tmp_path)
    table = pd.read_parquet(tmp_path / "some" / "rows.parquet")
    assert set(table["label"]) == {2} and table["row"].between(120, 129).all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--to", "png", "../out"], "leads out of the current folder"),
        (["--to", "tiff"], "tiff"),
        (["--to", "png", "x", "--label", "unicorn"], "unknown class 'unicorn'"),
        (["--to", "png", "x", "--rows", "5"], "--rows must be A:B"),
        (["--to", "png", "x", "--limit", "0"], "--limit"),
        (["--to", "png", "/proc/x"], "/proc"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_nothing_is_written(
    arguments: list[str], said: str, root: Path, tmp_path: Path
) -> None:
    done = nightlens("export", root, *arguments, cwd=tmp_path)
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1 and not list(tmp_path.iterdir())


def test_a_package_that_is_missing_is_named_with_its_extra(root: Path, tmp_path: Path) -> None:
    for to, package in (("zarr", "zarr"), ("parquet", "pyarrow"), ("virelay", "yaml")):
        done = nightlens("export", root, "--to", to, "out", cwd=tmp_path, prelude=f"sys.modules['{package}'] = None")
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
        assert f"needs {package}" in done.stderr and "pip install 'nightlens[export]'" in done.stderr
