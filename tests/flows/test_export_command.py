"""`nightlens export` as people type it: filters, the default folder, one clear line for what is refused."""

import json
import re
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest

from command import python
from example_store import ATTRIBUTES, write_parts
from storage import Catalog, seal_store

NIGHT = "20261123T020000Z-ab12cd"
CLASS_NAMES = ["1", "dog", "cat <b>"]
MODULES = "import sys; from flows.cli import main\ntry: main()\nfinally: print(*sys.modules, file=sys.stderr)"
WITHOUT = "import sys; sys.modules[%r] = None; from flows.cli import main; main()"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a night of the rows 64 to 223; the class 0 is called "1"."""
    catalog = Catalog(tmp_path_factory.mktemp("folder") / "nightlens-data")
    night = catalog.night_dir(NIGHT)
    night.mkdir(parents=True)
    parts = write_parts(catalog.parts_dir("d1935c"), 64, 224)
    seal_store(night / "attributions.h5", parts, class_names=CLASS_NAMES, attributes=ATTRIBUTES)
    catalog.point_latest(night)
    return catalog.root


def export(
    root: Path, *arguments: object, code: str = "from flows.cli import main; main()"
) -> subprocess.CompletedProcess:
    return python("-c", code, "export", *arguments, cwd=root.parent)


def exported_rows(folder: Path) -> list[int]:
    return sorted(int(path.stem.partition("-")[2]) for path in folder.glob("row-*.png"))


def parquet_rows(folder: Path) -> list[int]:
    pq = pytest.importorskip("pyarrow.parquet")
    return pq.read_table(folder / "rows.parquet")["row"].to_pylist()


def test_an_export_says_that_there_is_no_grad_cam(tmp_path: Path) -> None:
    parts = write_parts(tmp_path / "parts", 0, 20, grad_cam=False)
    seal_store(tmp_path / "attributions.h5", parts, class_names=CLASS_NAMES, attributes=ATTRIBUTES)
    done = export(tmp_path, tmp_path, "--to", "parquet", tmp_path / "out")
    assert (done.returncode, done.stderr) == (
        0,
        "this night has no Grad-CAM: Integrated Gradients alone are exported\n",
    )
    assert parquet_rows(tmp_path / "out") == list(range(20))


def test_the_default_folder_is_in_the_root(root: Path) -> None:
    done = export(root, root.name, "--to", "parquet")
    assert (done.returncode, done.stderr) == (0, "")
    folder = root / "exports" / f"{NIGHT}-parquet"
    assert done.stdout.startswith(f"{folder}: 160 rows, ")
    assert parquet_rows(folder) == list(range(64, 224))
    again = export(root, root.name, "--to", "parquet")
    assert again.returncode == 2
    assert again.stderr.splitlines() == [
        f"nightlens: {folder} holds an earlier export; replace it by --overwrite or give another folder"
    ]
    assert export(root, root.name, "--to", "parquet", "--rows", "70:80", "--overwrite").returncode == 0
    assert parquet_rows(folder) == list(range(70, 80))


FILTERS = {
    "label by name": (["--label", "dog"], lambda v: v["label"] == 1),
    "label by a name that looks like a number": (["--label", "1"], lambda v: v["label"] == 0),
    "label by number": (["--label", "2"], lambda v: v["label"] == 2),
    "wrong and sure": (["--wrong", "--min-confidence", "0.5"], lambda v: (v["wrong"]) & (v["confidence"] >= 0.5)),
    "correct": (["--correct", "--prediction", "cat <b>"], lambda v: ~v["wrong"] & (v["prediction"] == 2)),
    "converged": (["--converged", "--max-gap", "20"], lambda v: (v["converged"] == 1) & (abs(v["gap"]) <= 20)),
    "not converged, of some rows": (
        ["--not-converged", "--rows", "100:"],
        lambda v: (v["converged"] == 0) & (v["row"] >= 100),
    ),
}


@pytest.mark.parametrize("name", FILTERS)
def test_filters_choose_the_rows(root: Path, tmp_path: Path, name: str) -> None:
    pytest.importorskip("pyarrow")
    options, condition = FILTERS[name]
    done = export(root, root.name, tmp_path / "out", "--to", "parquet", *options)
    assert done.returncode == 0, done.stderr
    with h5py.File(root / "latest" / "attributions.h5") as file:
        values = {name: file[name][...] for name in ("row", "label", "prediction")}
        values |= {name: file[f"integrated_gradients/{name}"][...] for name in ("gap", "converged")}
        values["confidence"] = np.take_along_axis(file["probability"][...], values["prediction"][:, None], 1)[:, 0]
    values["wrong"] = values["label"] != values["prediction"]
    expected = values["row"][condition(values)].tolist()
    assert 0 < len(expected) < 160
    assert parquet_rows(tmp_path / "out") == expected


def test_pictures_are_limited_and_it_says_so(root: Path, tmp_path: Path) -> None:
    done = export(root, root.name, tmp_path / "out", "--to", "png", "--rows", ":80", "--limit", "2")
    assert done.returncode == 0
    assert done.stderr.splitlines()[0] == "the first 2 of 16 matching rows; --limit 16 takes all"
    assert exported_rows(tmp_path / "out") == [64, 65]


@pytest.mark.parametrize("format", ["virelay", "zarr", "parquet", "png"])
def test_no_matching_row_is_an_empty_export_that_says_so(root: Path, tmp_path: Path, format: str) -> None:
    for package in ("yaml", "zarr", "pyarrow"):
        pytest.importorskip(package)
    done = export(root, root.name, tmp_path / "out", "--to", format, "--rows", "0:64")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{tmp_path / 'out'}: no row matches, so this {format} export is empty\n"
    assert (tmp_path / "out" / "export.json").is_file()


REFUSED = {
    "class": (["--to", "png", "--label", "mouse"], r"unknown class 'mouse'; the classes are .*"),
    "rows": (["--to", "png", "--rows", "-1:5"], r"--rows: expected A:B with whole numbers .*, got '-1:5'"),
    "format": (["--to", "docx"], r"Invalid value for '--to': .*'docx' is not one of .*"),
    "climbing": (["../out", "--to", "png"], r"\.\./out leaves the current folder by '\.\.'; .*"),
    "nights": (
        ["nightlens-data/nights/x", "--to", "png"],
        r"nightlens-data/nights/x is in .*, where nightlens keeps .*",
    ),
    "no folder can be made there": (
        ["/proc/out", "--to", "png", "--limit", "200"],
        r"/proc/out: No such file or directory",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_one_line(root: Path, name: str) -> None:
    arguments, message = REFUSED[name]
    done = export(root, root.name, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(f"nightlens: {message}\n", done.stderr), done.stderr


@pytest.mark.parametrize(
    ("format", "package", "extra"), [("zarr", "zarr", "export"), ("tensorboard", "tensorboard", "tensorboard")]
)
def test_a_missing_package_names_the_extra(root: Path, tmp_path: Path, format: str, package: str, extra: str) -> None:
    done = export(root, root.name, tmp_path / "out", "--to", format, code=WITHOUT % package)
    assert done.returncode == 2
    needs = f"--to {format} needs {package}, which is not installed: pip install 'nightlens[{extra}]'"
    assert done.stderr.splitlines()[-1] == f"nightlens: {needs}"
    assert list(tmp_path.iterdir()) == []


def test_curves_come_from_the_record_beside_the_model(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    done = export(root, root.name, tmp_path / "out", "--to", "tensorboard", "--limit", "3", "--rows", "70:")
    assert done.returncode == 0
    assert "no record of the training of seed-cnn is there: no curves\n" in done.stderr
    assert done.stdout.splitlines()[-1] == f"open it: tensorboard --logdir {tmp_path / 'out'}"
    record = {"sha256": ATTRIBUTES["model_sha256"], "history": {"loss": [2.0, 1.0], "val_loss": [3.0, 2.0]}}
    with_model = seal_with_model(tmp_path, record)
    done = export(root, with_model, tmp_path / "with", "--to", "tensorboard")
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.parent.name for path in (tmp_path / "with").rglob("*.nightlens")} == {
        "train",
        "validation",
        "explanations",
    }


def seal_with_model(folder: Path, record: dict[str, object]) -> Path:
    """A store of 20 rows, and the record of its model's training where the store says that the model is."""
    (folder / "seed-cnn.json").write_text(json.dumps(record))
    parts = write_parts(folder / "parts", 0, 20)
    resolved = {"resolved": {"model_path": str(folder / "seed-cnn.keras")}}
    path = folder / "attributions.h5"
    seal_store(path, parts, class_names=CLASS_NAMES, attributes=ATTRIBUTES | {"configuration": resolved})
    return path


def test_it_needs_neither_tensorflow_nor_prefect(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    done = export(root, root.name, tmp_path / "out", "--to", "virelay", "--limit", "3", code=MODULES)
    loaded = {name.partition(".")[0] for name in done.stderr.split()}
    assert "h5py" in loaded and not loaded & {"tensorflow", "keras", "prefect"}
