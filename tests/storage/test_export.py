"""Exports as Zarr, Parquet and PNG, compared with what h5py alone reads of the store, and folders whole or not at all."""

import json
import shlex
import subprocess
import tracemalloc
from pathlib import Path
from typing import Any

import h5py
import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from command import printed_by_python, python
from example_store import ATTRIBUTES, DIGEST, PART_ROWS, chunk_offset, example_arrays, flip_byte, write_parts
from flows.commands.stores.export_command import next_step
from lesser_systems import refusing
from storage import StoreCorrupt, open_store, part_path, seal_store, write_part
from storage.export import Format, default_destination, embedding, export_rows, prepared_destination, virelay_project
from storage.export.destination import whole_folder
from storage.write.leaving_out import write_without_images

START, STOP = 64, 224
# No path, no markup and no table may be hurt by these.
CLASS_NAMES = ["../../etc/passwd", 'it\'s "quoted": {a} # - !x\n<script>alert(1)</script>', "naïve 猫 " + "x" * 300]


@pytest.fixture(scope="module")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the rows 64 to 223, a third of them misclassified."""
    folder = tmp_path_factory.mktemp("store")
    path = folder / "attributions.h5"
    seal_store(path, write_parts(folder, START, STOP), class_names=CLASS_NAMES, attributes=ATTRIBUTES)
    return path


def read_all(path: Path) -> dict[str, NDArray]:
    """Every dataset of the store, texts decoded."""
    arrays: dict[str, NDArray] = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: arrays.update({name: item[...]}) if hasattr(item, "shape") else None)
        arrays["class_name"] = file["class_name"].asstr()[...]
    return arrays


def text(node: h5py.Group | h5py.Dataset, attribute: str) -> Any:
    value = node.attrs[attribute]
    return value.decode() if isinstance(value, bytes) else value


def wrong_rows(path: Path) -> NDArray[np.int64]:
    with h5py.File(path) as file:
        return np.flatnonzero(file["label"][...] != file["prediction"][...]) + START


@pytest.mark.parametrize("chosen", ["all", "some", "none"])
def test_zarr_holds_what_the_store_holds(store_path: Path, tmp_path: Path, chosen: str) -> None:
    zarr = pytest.importorskip("zarr")
    rows = {"all": np.arange(START, STOP), "some": np.arange(70, 203, 3), "none": np.arange(0)}[chosen]
    with open_store(store_path) as store:
        export_rows(store, rows, "zarr", tmp_path / "out")
    group = zarr.open_group(tmp_path / "out" / "attributions.zarr", mode="r")
    expected = read_all(store_path)
    found = {name: node for name, node in group.members(max_depth=None) if hasattr(node, "shape")}
    assert set(found) == set(expected)
    with h5py.File(store_path) as file:
        for name, values in expected.items():
            scale = file[name].dims[0][0].name if len(file[name].dims[0]) else f"/{name}"
            if scale in ("/row", "/predicted_row"):
                values = values[np.isin(file[scale][...], rows)]
            np.testing.assert_array_equal(found[name][...], values, err_msg=name)
            assert found[name].dtype == values.dtype or name == "class_name"
            for attribute in ("long_name", "units", "description"):
                assert found[name].attrs[attribute] == text(file[name], attribute), name
        assert {n: group.attrs[n] for n in ATTRIBUTES} == {n: text(file, n) for n in ATTRIBUTES}
        for name in ("grad_cam", "integrated_gradients/predicted"):
            assert group[name].attrs["description"] == text(file[name], "description")
    assert all(size >= 1 for array in found.values() for size in array.chunks)


def test_xarray_opens_the_zarr_group_with_coordinates(store_path: Path, tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    import xarray as xr

    with open_store(store_path) as store:
        export_rows(store, store.row_numbers, "zarr", tmp_path / "out")
    expected = read_all(store_path)
    groups = xr.open_groups(tmp_path / "out" / "attributions.zarr", engine="zarr")
    assert xr.open_zarr(tmp_path / "out" / "attributions.zarr", consolidated=True).sizes == groups["/"].sizes
    assert set(groups["/"].coords) == {"row", "predicted_row", "y", "x", "channel", "class", "cam_y", "cam_x"}
    assert groups["/"].label.dtype == np.int64
    assert groups["/"].class_name.values.tolist() == CLASS_NAMES
    assert groups["/integrated_gradients"].attribution.dims == ("row", "y", "x", "channel")
    tree = xr.open_datatree(tmp_path / "out" / "attributions.zarr", engine="zarr")
    predicted = tree["/integrated_gradients/predicted"].to_dataset()
    row = int(expected["predicted_row"][-1])
    np.testing.assert_array_equal(
        predicted.attribution.sel(predicted_row=row), expected["integrated_gradients/predicted/attribution"][-1]
    )


@pytest.mark.parametrize("chosen", ["all", "wrong", "none"])
def test_parquet_holds_a_line_per_row(store_path: Path, tmp_path: Path, chosen: str) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    rows = {"all": np.arange(START, STOP), "wrong": wrong_rows(store_path), "none": np.arange(0)}[chosen]
    with open_store(store_path) as store:
        export_rows(store, rows, "parquet", tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "rows.parquet")
    expected = {name: values[rows - START] for name, values in read_all(store_path).items() if len(values) == 160}
    columns = {name: table[name].to_numpy() for name in table.column_names}
    np.testing.assert_array_equal(columns["row"], rows)
    for name in (
        "label",
        "prediction",
        "integrated_gradients/gap",
        "integrated_gradients/converged",
        "grad_cam/cam_max",
    ):
        np.testing.assert_array_equal(columns[name.rpartition("/")[2]], expected[name], err_msg=name)
    assert columns["label_name"].tolist() == [CLASS_NAMES[number] for number in expected["label"]]
    assert columns["prediction_name"].tolist() == [CLASS_NAMES[number] for number in expected["prediction"]]
    about = json.loads(table.schema.metadata[b"nightlens"])
    assert about["run_id"] == ATTRIBUTES["run_id"] and about["configuration"] == ATTRIBUTES["configuration"]


@pytest.mark.filterwarnings("ignore:Glyph")
def test_png_draws_each_row_under_its_number(store_path: Path, tmp_path: Path) -> None:
    rows, seen = np.array([64, 99, 223]), []
    with open_store(store_path) as store:
        export_rows(store, rows, "png", tmp_path / "out", advance=seen.append)
        store.figure(99).savefig(tmp_path / "expected.png", dpi=100)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"row-064.png", "row-099.png", "row-223.png", "export.json"}
    drawn = matplotlib.image.imread(tmp_path / "out" / "row-099.png")
    np.testing.assert_array_equal(drawn, matplotlib.image.imread(tmp_path / "expected.png"))
    assert sum(seen) == 3


@pytest.mark.parametrize(("format", "package"), [("atlas", "pyarrow"), ("tensorboard", "tensorboard")])
def test_a_store_without_images_is_exported_without_them(
    store_path: Path, tmp_path: Path, format: Format, package: str
) -> None:
    pytest.importorskip(package)
    rows, seen = np.array([64, 99, 223]), list[int]()
    with open_store(store_path) as store:
        write_without_images(store, tmp_path / "attributions.h5")
    with open_store(tmp_path / "attributions.h5") as store:
        export_rows(store, rows, format, tmp_path / "out", advance=seen.append)
    assert sum(seen) == 3
    if format == "atlas":
        table = pd.read_parquet(tmp_path / "out" / "atlas.parquet")
        assert "image" not in table and "integrated_gradients" in table
        assert "image" not in json.loads((tmp_path / "out" / "atlas.json").read_text())["columnStyles"]
    else:
        projector = tmp_path / "out" / "explanations"
        assert len((projector / "heat.tsv").read_text().splitlines()) == 3
        assert not (projector / "sprite.png").exists()


@pytest.mark.parametrize("to", ["virelay", "atlas", "tensorboard"])
def test_the_line_that_opens_an_export_is_for_a_shell(tmp_path: Path, to: str) -> None:
    folder = tmp_path / "a b; c"
    words = shlex.split(next_step(to, folder, has_images=False))
    assert [word for word in words if word.startswith(f"{folder}")]
    assert "--image" not in words


def test_the_mark_says_what_was_exported(store_path: Path, tmp_path: Path) -> None:
    with open_store(store_path) as store:
        export_rows(store, store.rows(correct=False), "zarr", tmp_path / "out", chosen={"correct": False})
    mark = json.loads((tmp_path / "out" / "export.json").read_text())
    assert (mark["format"], mark["n_rows"]) == ("zarr", len(wrong_rows(store_path)))
    assert mark["chosen"] == {"correct": False} and mark["store"]["run_id"] == ATTRIBUTES["run_id"]


@pytest.fixture(scope="module")
def short_and_long(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Stores of 1,600 and 3,200 rows; what the longer has more is 11 MB of attributions alone."""
    folders = []
    arrays = example_arrays(0, PART_ROWS, n_wrong=0)
    for n_rows in (25 * PART_ROWS, 50 * PART_ROWS):
        folders.append(tmp_path_factory.mktemp(f"rows-{n_rows}"))
        starts = range(0, n_rows, PART_ROWS)
        parts = [part_path(folders[-1], start, start + PART_ROWS) for start in starts]
        for start, part in zip(starts, parts, strict=True):
            write_part(part, start, start + PART_ROWS, arrays, digest=DIGEST, part_rows=PART_ROWS)
        seal_store(folders[-1] / "attributions.h5", parts, class_names=CLASS_NAMES, attributes=ATTRIBUTES)
    return folders


@pytest.mark.slow
@pytest.mark.parametrize("format", ["virelay", "zarr"])
def test_memory_does_not_grow_with_rows(
    short_and_long: list[Path], tmp_path: Path, format: Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("zarr")
    monkeypatch.setattr(virelay_project, "BLOCK_BYTES", 1 << 19)
    monkeypatch.setattr(embedding, "BLOCK_ROWS", 64)
    peaks = []
    for folder in short_and_long:
        with open_store(folder) as store:
            tracemalloc.start()
            export_rows(store, store.row_numbers, format, tmp_path / folder.name)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    # Chunks of a few bytes a row still grow towards their full MiB, and how many are unpacked at once is a matter of luck.
    assert peaks[1] < peaks[0] + 5e6


# Destinations.


def test_default_destination_is_in_the_root_or_beside_the_store(tmp_path: Path) -> None:
    root, night = tmp_path / "root", "20261123T020000Z-ab12cd"
    in_root = default_destination(root / "nights" / night / "attributions.h5", "another", "zarr")
    assert in_root == root / "exports" / f"{night}-zarr"
    assert default_destination(tmp_path / "a.h5", night, "png") == tmp_path / "exports" / f"{night}-png"
    assert default_destination(tmp_path / "a.h5", "../../x", "png") == tmp_path / "exports" / "a-png"


@pytest.mark.parametrize("path", ["../out", "a/../../out", "link/../out"])
def test_a_relative_path_does_not_climb_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "here" / "link").symlink_to(tmp_path / "elsewhere" / "deep")
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ValueError, match="leaves the current folder by '..'"):
        prepared_destination(Path(path), tmp_path / "attributions.h5")
    assert prepared_destination(Path("a/../out"), tmp_path / "attributions.h5") == tmp_path / "here" / "out"


@pytest.mark.parametrize("folder", ["nights", "nights/x", "parts/d/x", "models/x", "datasets/x", "latest/x"])
def test_folders_of_the_nights_are_refused(tmp_path: Path, folder: str) -> None:
    (tmp_path / "nights" / "n").mkdir(parents=True)
    (tmp_path / "latest").symlink_to("nights/n")
    with pytest.raises(ValueError, match="where nightlens keeps its"):
        prepared_destination(tmp_path / folder, tmp_path / "nights" / "n" / "attributions.h5")
    assert prepared_destination(tmp_path / "exports" / "models", tmp_path / "nights" / "n" / "attributions.h5")


def test_what_is_not_an_export_is_never_overwritten(store_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert prepared_destination(out, store_path) == out
    (out / "thesis.tex").touch()
    with pytest.raises(FileExistsError, match="no export of nightlens"):
        prepared_destination(out, store_path, overwrite=True)
    with pytest.raises(FileExistsError, match="is a file"):
        prepared_destination(out / "thesis.tex", store_path)
    with pytest.raises(ValueError, match="holds the store"):
        prepared_destination(store_path.parent, store_path, overwrite=True)


def test_an_earlier_export_is_replaced_when_asked(store_path: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    out = tmp_path / "out"
    with open_store(store_path) as store:
        export_rows(store, store.row_numbers, "parquet", out)
        (out / "old").touch()
        with pytest.raises(FileExistsError, match="--overwrite"):
            prepared_destination(out, store_path)
        export_rows(store, store.row_numbers[:5], "parquet", prepared_destination(out, store_path, overwrite=True))
    assert {path.name for path in out.iterdir()} == {"rows.parquet", "export.json"}
    assert json.loads((out / "export.json").read_text())["n_rows"] == 5
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_damaged_row_ends_the_export_and_leaves_the_earlier_one(tmp_path: Path) -> None:
    path, out = tmp_path / "attributions.h5", tmp_path / "exports" / "out"
    seal_store(path, write_parts(tmp_path / "parts", 0, 128), class_names=CLASS_NAMES, attributes=ATTRIBUTES)
    with open_store(path) as store:
        export_rows(store, store.row_numbers[:5], "zarr", out)
    before = (out / "export.json").read_text()
    flip_byte(path, chunk_offset(path, "integrated_gradients/attribution", 100))
    with open_store(path) as store, pytest.raises(StoreCorrupt, match="integrated_gradients/attribution, rows"):
        export_rows(store, store.row_numbers, "zarr", out)
    assert (out / "export.json").read_text() == before
    assert [folder.name for folder in out.parent.iterdir()] == ["out"]


IN_A_PROCESS = """
import resource, sys
from pathlib import Path
from storage import open_store
from storage.export import export_rows
{before}
with open_store({store!r}) as store:
    export_rows(store, store.row_numbers, {format!r}, Path({out!r}), advance={advance})
"""


def in_a_process(
    store: Path, out: Path, format: str, before: str = "", advance: str = "print"
) -> subprocess.CompletedProcess:
    code = IN_A_PROCESS.format(store=str(store), out=str(out), format=format, before=before, advance=advance)
    return python("-c", code)


@pytest.mark.parametrize(
    ("format", "limit"), [("virelay", 20_000), ("virelay", 2_000_000), ("zarr", 20_000), ("png", 20_000)]
)
def test_a_full_disk_is_one_error_and_leaves_nothing(store_path: Path, tmp_path: Path, format: str, limit: int) -> None:
    done = in_a_process(
        store_path, tmp_path / "out", format, f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit},) * 2)"
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"OSError: [Errno 27] File too large: '{tmp_path / 'out'}'"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", ["virelay", "zarr", "png"])
def test_a_killed_export_never_looks_finished(store_path: Path, tmp_path: Path, format: str) -> None:
    before = "import os, signal"
    done = in_a_process(store_path, tmp_path / "out", format, before, "lambda n: os.kill(os.getpid(), signal.SIGKILL)")
    assert done.returncode == -9
    assert not (tmp_path / "out").exists()
    assert all(path.name.startswith(".out.") and not (path / "export.json").exists() for path in tmp_path.iterdir())


def test_what_a_killed_export_left_is_removed_by_the_next_but_not_by_a_parallel_one(
    store_path: Path, tmp_path: Path
) -> None:
    pytest.importorskip("zarr")
    in_a_process(store_path, tmp_path / "out", "zarr", "import os", "lambda n: os.kill(os.getpid(), 9)")
    abandoned = next(tmp_path.iterdir())
    seen: list[set[str]] = []
    with open_store(store_path) as store, whole_folder(tmp_path / "out", {}) as writing:
        assert set(tmp_path.iterdir()) == {writing} != {abandoned}
        export_rows(
            store, store.row_numbers[:2], "zarr", tmp_path / "out", advance=lambda _: seen.append({*tmp_path.iterdir()})
        )
        assert writing.is_dir() and writing in seen[0]
        (tmp_path / "out").rename(tmp_path / "first")
    assert {path.name for path in tmp_path.iterdir()} == {"first", "out"}


REPLACED = """
import os, signal, sys
from itertools import count
from pathlib import Path
from storage.export.destination import prepared_destination, whole_folder

def export(out, name):
    with whole_folder(prepared_destination(out, Path("attributions.h5"), overwrite=True), {"name": name}) as folder:
        (folder / name).mkdir()
        (folder / name / "row.png").write_text(name)

def die_at(number, below):
    n_met = count()
    def met(event, arguments):
        if event in ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir") and str(arguments[0]).startswith(below):
            if next(n_met) == number:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(met)

for number in count():
    folder = Path(sys.argv[1], f"{number:02d}")
    export(folder / "out", "old")
    if (child := os.fork()) == 0:
        die_at(number, str(folder))
        export(folder / "out", "new")
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
"""


def exported(folder: Path) -> str | None:
    """The name of the export that is whole in a folder, None where there is no folder."""
    if not folder.exists():
        return None
    name = json.loads((folder / "export.json").read_text())["name"]
    assert {str(path.relative_to(folder)) for path in folder.rglob("*")} == {"export.json", name, f"{name}/row.png"}
    return str(name)


@pytest.mark.parametrize("exchanges", [True, False], ids=["in-one-step", "in-two"])
def test_an_export_that_is_killed_anywhere_loses_no_earlier_one(exchanges: bool, tmp_path: Path) -> None:
    """Killed before every call that opens, makes, renames or removes something; `in-two` where names cannot be exchanged."""
    environment = None if exchanges else refusing(tmp_path, "EINVAL", "renameat2")
    nights = tmp_path / "killed"
    printed_by_python(REPLACED, nights, environment=environment)
    folders = sorted(nights.iterdir())
    found = [exported(folder / "out") for folder in folders]
    assert len(found) > 10 and found[0] == "old" and found[-1] == "new"
    between = [] if exchanges else [None]
    assert found == ["old"] * found.count("old") + between + ["new"] * found.count("new")
    assert [path.name for path in folders[-1].iterdir()] == ["out"], "the one that was not killed"
    for folder, name in zip(folders, found, strict=True):
        with pytest.raises(FileExistsError, match="holds an earlier export"):
            prepared_destination(folder / "out", Path("attributions.h5"))
        assert exported(folder / "out") == (name or "old"), "what was aside is put back"
        with whole_folder(folder / "out", {"name": "newest"}) as written:
            (written / "newest").mkdir()
            (written / "newest" / "row.png").touch()
        assert exported(folder / "out") == "newest"
        assert [path.name for path in folder.iterdir()] == ["out"]


def test_an_earlier_export_of_another_name_is_not_put_back(tmp_path: Path) -> None:
    aside = tmp_path / ".out.zarr.0a1b2c3d.earlier"
    aside.mkdir()
    (aside / "export.json").write_text("{}")
    assert prepared_destination(tmp_path / "out", Path("attributions.h5")) == tmp_path / "out"
    assert not (tmp_path / "out").exists() and aside.is_dir()


def test_importing_storage_loads_nothing_of_the_formats() -> None:
    code = "import sys, storage; print(sorted({'pandas', 'matplotlib', 'xarray', 'zarr', 'yaml', 'pyarrow'} & {*sys.modules}))"
    assert printed_by_python(code) == "[]\n"
