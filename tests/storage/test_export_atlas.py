"""The table for Embedding Atlas, compared with what h5py alone reads of the store; and as Embedding Atlas serves it."""

import base64
import io
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from example_clusters import example_clusters
from example_store import ATTRIBUTES, DIGEST, example_arrays, joined_arrays, write_parts
from flows.commands.stores.export_command import next_step
from foreign_server import asked, asked_json, serving
from free_port import free_port
from places import REPOSITORY
from storage import open_store, part_path, seal_store, write_part
from storage.export import export_rows
from storage.export.embedding import pooled_heat
from storage.export.neighbourhood import N_NEIGHBORS

pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("sklearn", reason="scikit-learn is not installed: the extra `export` has it")

ATLAS = REPOSITORY / ".venv-atlas" / "bin" / "embedding-atlas"
needs_atlas = pytest.mark.skipif(not ATLAS.exists(), reason="Embedding Atlas is not installed: `make atlas`")
CLASS_NAMES = ["../../etc/passwd", 'it\'s "quoted": {a} # - !x\n<script>alert(1)</script>', "naïve 猫 " + "x" * 300]
START, STOP, SIDE = 64, 224, 96
PICTURES = ["image", "integrated_gradients", "grad_cam", "hires_cam"]


@pytest.fixture(scope="module")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the rows 64 to 223, a third of them misclassified, with strategies."""
    folder = tmp_path_factory.mktemp("store")
    parts = write_parts(folder, START, STOP)
    tables = example_clusters(np.arange(START, STOP), joined_arrays(START, STOP)["prediction"])
    path = folder / "attributions.h5"
    seal_store(path, parts, class_names=CLASS_NAMES, attributes=ATTRIBUTES, tables=tables)
    return path


@pytest.fixture(scope="module", params=["all", "wrong"])
def exported(request: pytest.FixtureRequest, store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folder of an export and its rows: all of them, or the misclassified."""
    folder = tmp_path_factory.mktemp("atlas") / "export"
    with open_store(store_path) as store:
        rows = store.rows(correct=None if request.param == "all" else False)
        export_rows(store, rows, "atlas", folder)
    return folder, rows


def predicted(path: Path, name: str, rows: NDArray) -> NDArray:
    """Values for the predicted class, by h5py alone: of misclassified rows from the group of the predicted."""
    group, _, variable = name.rpartition("/")
    with h5py.File(path) as file:
        values, own = file[name][...][rows - START], file["predicted_row"][...]
        for position, row in enumerate(rows):
            if row in own:
                values[position] = file[f"{group}/predicted/{variable}"][np.flatnonzero(own == row)[0]]
    return values


def pixels(cell: dict[str, Any]) -> NDArray:
    """Of each pixel of the image one of the picture, which is enlarged without mixing."""
    picture = np.asarray(Image.open(io.BytesIO(cell["bytes"])))
    assert picture.shape == (SIDE, SIDE, 3)
    factor = SIDE // 24
    np.testing.assert_array_equal(picture, picture[::factor, ::factor].repeat(factor, 0).repeat(factor, 1))
    return picture[::factor, ::factor]


def test_the_table_has_the_columns_of_the_predicted_class(exported: tuple[Path, NDArray], store_path: Path) -> None:
    folder, rows = exported
    table = pq.read_table(folder / "atlas.parquet")
    assert table["row"].to_pylist() == rows.tolist()
    with h5py.File(store_path) as file:
        for name in ("label", "prediction"):
            np.testing.assert_array_equal(table[name].to_numpy(), file[name][...][rows - START])
            assert table[f"{name}_name"].to_pylist() == [CLASS_NAMES[k] for k in file[name][...][rows - START]]
    for name in ("integrated_gradients/gap", "integrated_gradients/score", "grad_cam/cam_max"):
        expected = predicted(store_path, name, rows)
        np.testing.assert_array_equal(table[name.rpartition("/")[2]].to_numpy(), expected, err_msg=name)
    assert set(table["cluster"].to_pylist()) <= {"", "0a", "0b", "2a"}
    # In which no row has a value, for no night came before.
    assert {"likeness", "prediction_before"} & set(table.column_names) == set()
    assert json.loads(table.schema.metadata[b"nightlens"])["run_id"] == ATTRIBUTES["run_id"]


def test_pictures_are_of_the_row_and_of_what_was_predicted(exported: tuple[Path, NDArray], store_path: Path) -> None:
    folder, rows = exported
    table = pq.read_table(folder / "atlas.parquet")
    with h5py.File(store_path) as file:
        images = file["image"][...][rows - START]
    heats = predicted(store_path, "integrated_gradients/attribution", rows).sum(axis=3)
    maps = predicted(store_path, "grad_cam/map", rows)
    for position, row in enumerate(rows):
        cells = {name: table[name][position].as_py() for name in PICTURES}
        assert {cell["path"] for cell in cells.values()} == {f"row-{row}-{name}.png" for name in PICTURES}
        np.testing.assert_array_equal(pixels(cells["image"]), images[position])
        drawn, heat = pixels(cells["integrated_gradients"]).astype(int), heats[position]
        strong = np.abs(heat) > 0.2 * np.abs(heat).max()
        assert ((drawn[..., 1] > drawn[..., 0]) == (heat > 0))[strong].all()
        if maps[position].any():
            assert (pixels(cells["grad_cam"]) != images[position]).any()
    assert json.loads((folder / "atlas.json").read_text())["columnStyles"]["grad_cam"]["renderer"] == "image"


def test_neighbours_are_those_of_every_pair_compared(exported: tuple[Path, NDArray], store_path: Path) -> None:
    folder, rows = exported
    table = pq.read_table(folder / "atlas.parquet")
    heat = pooled_heat(predicted(store_path, "integrated_gradients/attribution", rows)).astype(np.float64)
    distance = 1 - heat @ heat.T
    np.fill_diagonal(distance, np.inf)
    expected = np.argsort(distance, axis=1)[:, :N_NEIGHBORS]
    found = table["neighbors"].to_pylist()
    assert [one["ids"] for one in found] == expected.tolist()
    nearest = np.take_along_axis(distance, expected, axis=1)
    np.testing.assert_allclose([one["distances"] for one in found], nearest, atol=1e-5)
    counted = np.bincount(expected.ravel(), minlength=len(rows))
    assert table["n_neighbor_of"].to_pylist() == counted.tolist()


def test_rows_that_are_alike_lie_near(store_path: Path, tmp_path: Path) -> None:
    """On the plane most rows have the row most like them nearer than nearly all others. The same twice."""
    with open_store(store_path) as store:
        for name in ("one", "again"):
            export_rows(store, store.row_numbers, "atlas", tmp_path / name)
    table, again = (pq.read_table(tmp_path / name / "atlas.parquet") for name in ("one", "again"))
    assert table.equals(again)
    places = np.column_stack([table["projection_x"].to_numpy(), table["projection_y"].to_numpy()])
    far = np.linalg.norm(places[:, None] - places[None], axis=2)
    ranks = far.argsort(axis=1).argsort(axis=1)
    first = np.array([one["ids"][0] for one in table["neighbors"].to_pylist()])
    assert np.isfinite(places).all()
    assert np.median(ranks[np.arange(len(first)), first]) < 0.15 * len(first)


@pytest.mark.parametrize("n_rows", [0, 1, 2, 5])
def test_a_handful_of_rows_has_its_places_and_neighbours(store_path: Path, tmp_path: Path, n_rows: int) -> None:
    with open_store(store_path) as store:
        export_rows(store, store.row_numbers[:n_rows], "atlas", tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "atlas.parquet")
    assert table["row"].to_pylist() == list(range(START, START + n_rows))
    assert [len(one["ids"]) for one in table["neighbors"].to_pylist()] == [max(0, n_rows - 1)] * n_rows
    assert np.isfinite(table["projection_x"].to_numpy()).all()


def test_large_grey_images_become_small_pictures(tmp_path: Path) -> None:
    arrays = example_arrays(0, 4, side=200)
    for name in ("image", "integrated_gradients/attribution", "integrated_gradients/predicted/attribution"):
        arrays[name] = arrays[name][..., :1]
    part = part_path(tmp_path, 0, 4)
    write_part(part, 0, 4, arrays, digest=DIGEST, part_rows=4)
    seal_store(tmp_path / "attributions.h5", [part], class_names=CLASS_NAMES, attributes=ATTRIBUTES)
    with open_store(tmp_path) as store:
        export_rows(store, store.row_numbers, "atlas", tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "atlas.parquet")
    pictures = [Image.open(io.BytesIO(cell["bytes"])) for name in PICTURES for cell in table[name].to_pylist()]
    assert {(picture.size, picture.mode) for picture in pictures} == {((SIDE, SIDE), "RGB")}


# Embedding Atlas itself.


@pytest.fixture(scope="module")
def served(exported: tuple[Path, NDArray], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, NDArray]]:
    """Its server, started as the line under the export says."""
    folder, rows = exported
    cache, port = tmp_path_factory.mktemp("cache"), free_port()
    options = shlex.split(next_step("atlas", folder).rpartition("; embedding-atlas ")[2])
    command = [ATLAS, *options, "--host", "127.0.0.1", "--port", port, "--no-auto-port"]
    with serving(command, port, "/data/metadata.json", cache / "log", XDG_CACHE_HOME=str(cache)) as address:
        yield address, rows


def query(address: str, sql: str) -> Any:
    return asked_json(f"{address}/data/query", {"type": "json", "sql": sql})


@needs_atlas
def test_embedding_atlas_has_pictures_places_and_neighbours(served: tuple[str, NDArray], store_path: Path) -> None:
    address, rows = served
    about = asked_json(f"{address}/data/metadata.json")["props"]
    assert about["data"] == {
        "id": "__row_index__",
        "projection": {"x": "projection_x", "y": "projection_y"},
        "neighbors": "neighbors",
        "image": "image",
        "importance": "n_neighbor_of",
    }
    assert set(about["initialState"]["columnStyles"]) > set(PICTURES)
    types = {line["column_name"]: line["column_type"] for line in query(address, "DESCRIBE dataset")}
    assert {types[name] for name in PICTURES} == {"STRUCT(bytes BLOB, path VARCHAR)"}
    assert types["neighbors"] == "STRUCT(ids BIGINT[], distances FLOAT[])"
    lines = query(address, "SELECT row, __row_index__ AS id, neighbors.ids AS ids, label_name FROM dataset ORDER BY id")
    assert [(line["row"], line["id"]) for line in lines] == list(zip(rows.tolist(), range(len(rows)), strict=True))
    assert {len(line["ids"]) for line in lines} == {N_NEIGHBORS}
    with open_store(store_path) as store:
        assert [line["label_name"] for line in lines] == [CLASS_NAMES[k] for k in store.labels[rows - START]]


@needs_atlas
def test_embedding_atlas_serves_the_store_s_images(served: tuple[str, NDArray], store_path: Path) -> None:
    address, rows = served
    (line,) = query(address, f"SELECT base64(image.bytes) AS image FROM dataset WHERE row = {rows[-1]}")
    picture = Image.open(io.BytesIO(base64.b64decode(line["image"])))
    with open_store(store_path) as store:
        np.testing.assert_array_equal(np.asarray(picture)[::4, ::4], store.image[int(rows[-1])])


@needs_atlas
def test_embedding_atlas_shows_its_page(served: tuple[str, NDArray]) -> None:
    assert re.search(r"<title>[^<]*Atlas", asked(f"{served[0]}/").decode())
