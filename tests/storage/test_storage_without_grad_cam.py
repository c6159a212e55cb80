"""Stores without Grad-CAM: Integrated Gradients alone, in every way a store is written, read, verified and exported.

The same example night as elsewhere, its arrays without those of Grad-CAM; both layouts.
"""

import hashlib
import json
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from test_storage_listing import listed

from example_store import (
    ATTRIBUTES,
    CLASS_NAMES,
    DIGEST,
    PART_ROWS,
    assert_holds,
    example_arrays,
    joined_arrays,
    write_parts,
)
from file_server import served
from storage import (
    AttributionStore,
    StoreCorrupt,
    StoreFormatError,
    check_part,
    open_store,
    part_path,
    read_part_summary,
    seal_store,
    verify_store,
    write_part,
)
from storage.draw.figures import render, signed_heat, summary_figure
from storage.draw.row_pictures import explained_rows, row_pictures
from storage.export import export_rows
from storage.file.methods import METHODS
from storage.file.schema import SCHEMA_VERSION, VARIABLES, present, variables_of
from storage.file.schema_listing import ONLY_VIRTUAL, full_listing

FIRST, STOP = 100, 250
ARRAYS = joined_arrays(FIRST, STOP, grad_cam=False)
RESOLVED = {"configuration": {"resolved": {"grad_cam_layer": ""}}}


def seal_example(folder: Path, layout: Any = "single", **changed: object) -> Path:
    path = folder / "attributions.h5"
    parts = write_parts(folder / "parts", FIRST, STOP, grad_cam=False)
    seal_store(path, parts, class_names=CLASS_NAMES, attributes=ATTRIBUTES | RESOLVED | changed, layout=layout)
    return path


@pytest.fixture(scope="module", params=["single", "virtual"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return seal_example(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture
def store(path: Path) -> Iterator[AttributionStore]:
    with open_store(path) as opened:
        yield opened


# What of maps is in the root group of a file.
NODES = {"cam_y", "cam_x", *(method.group for method in METHODS if method.is_map)}


# Parts.


def test_a_part_has_no_dataset_group_or_axis_of_grad_cam(tmp_path: Path) -> None:
    (part,) = write_parts(tmp_path, 0, 64, grad_cam=False)
    assert_holds(part, example_arrays(0, 64, grad_cam=False))
    with h5py.File(part) as file:
        assert not NODES & set(file)
    summary = read_part_summary(part)
    assert not summary.maps and "cam_y" not in summary.sizes
    assert check_part(part, digest=DIGEST, start=0, stop=64) is None


@pytest.mark.parametrize("kept", ["grad_cam/map", "grad_cam/predicted/cam_max"])
def test_grad_cam_is_given_whole_or_not_at_all(tmp_path: Path, kept: str) -> None:
    arrays = {k: v for k, v in example_arrays(0, 64).items() if not k.startswith("grad_cam/") or k == kept}
    with pytest.raises(ValueError, match=r"missing: \['grad_cam/.*unknown: \[\]"):
        write_part(tmp_path / "part.h5", 0, 64, arrays, digest=DIGEST, part_rows=PART_ROWS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("lost", ["cam_y", "grad_cam/map", "grad_cam/predicted/map", "grad_cam"])
def test_a_part_that_lost_a_piece_of_grad_cam_is_not_taken_for_one_without(tmp_path: Path, lost: str) -> None:
    (part,) = write_parts(tmp_path, 0, 64)
    with h5py.File(part, "a") as file:
        del file[lost]
    assert "is missing" in str(check_part(part, digest=DIGEST, start=0, stop=64))


@pytest.mark.parametrize(
    ("first_has", "expected"),
    [
        (True, "of every row, as in rows-000000-000064.h5, got of no row"),
        (False, "of no row, as in .*, got of ev"),
    ],
    ids=["without after with", "with after without"],
)
@pytest.mark.parametrize("layout", ["single", "virtual"])
def test_parts_that_disagree_are_not_sealed(tmp_path: Path, layout: Any, first_has: bool, expected: str) -> None:
    parts = write_parts(tmp_path / "parts", 0, 64, grad_cam=first_has)
    parts.append(part_path(tmp_path / "parts", 64, 128))
    arrays = example_arrays(64, 128, grad_cam=not first_has)
    write_part(parts[-1], 64, 128, arrays, digest=DIGEST, part_rows=PART_ROWS)
    with pytest.raises(StoreFormatError, match=rf"rows-000064-000128.h5: expected maps {expected}"):
        seal_store(tmp_path / "a.h5", parts, class_names=CLASS_NAMES, attributes=ATTRIBUTES, layout=layout)
    assert not (tmp_path / "a.h5").exists()


# The sealed store.


def test_the_sealed_store_holds_the_parts_and_is_sound(path: Path) -> None:
    with h5py.File(path) as file:
        assert not NODES & set(file)
    assert_holds(path, ARRAYS)
    assert verify_store(path) == ()


def test_it_is_what_the_listing_says_without_grad_cam(tmp_path: Path) -> None:
    with h5py.File(seal_example(tmp_path)) as file:
        assert listed(file) == full_listing(maps=False).partition(f"\n{ONLY_VIRTUAL}")[0]


def write_checksum(path: Path) -> None:
    path.with_name(f"{path.name}.sha256").write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n")


def lose(*names: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        for name in names:
            del file[name]

    return change


@pytest.mark.parametrize(
    ("change", "layer", "where", "detail"),
    [
        pytest.param(lose("grad_cam"), "conv", "grad_cam/map", "is missing", id="the group"),
        pytest.param(lose("cam_y"), "conv", "cam_y", "is missing", id="an axis"),
        pytest.param(
            lose(*NODES),
            "conv",
            "maps",
            "expected maps of the layer 'conv'",
            id="all of it",
        ),
        pytest.param(lambda file: None, "", "maps", "expected no maps, .* got maps", id="none was configured"),
    ],
)
def test_verify_finds_grad_cam_that_was_lost(
    tmp_path: Path, change: Callable[[h5py.File], None], layer: str, where: str, detail: str
) -> None:
    path, configuration = tmp_path / "attributions.h5", {"resolved": {"grad_cam_layer": layer}}
    parts = write_parts(tmp_path / "parts", 0, 64)
    seal_store(path, parts, class_names=CLASS_NAMES, attributes=ATTRIBUTES | {"configuration": configuration})
    path.chmod(0o644)
    with h5py.File(path, "a") as file:
        change(file)
    write_checksum(path)
    found = [finding for finding in verify_store(path) if finding.where == where]
    assert [finding.check for finding in found] == ["schema"]
    assert re.search(detail, found[0].detail)


def test_a_part_of_a_virtual_store_that_has_lost_its_maps_is_told(tmp_path: Path) -> None:
    path, parts = tmp_path / "attributions.h5", write_parts(tmp_path / "parts", 0, 64)
    seal_store(path, parts, class_names=CLASS_NAMES, attributes=ATTRIBUTES, layout="virtual")
    (there,) = (tmp_path / "attributions.parts").iterdir()
    size = there.stat().st_size
    there.unlink()
    write_part(there, 0, 64, example_arrays(0, 64, grad_cam=False), digest=DIGEST, part_rows=PART_ROWS)
    with there.open("ab") as stream:
        stream.truncate(size)
    with open_store(path) as store, pytest.raises(StoreCorrupt, match="expected maps, got none: it was replaced"):
        store.maps([3])


# Reading.


def test_it_reads_as_every_store_but_for_the_maps(store: AttributionStore) -> None:
    assert not store.has_grad_cam
    np.testing.assert_array_equal(store.attributions(...), ARRAYS["integrated_gradients/attribution"])
    np.testing.assert_array_equal(store.image[...], ARRAYS["image"])
    wrong = store.rows(correct=False)
    np.testing.assert_array_equal(
        store.attributions(wrong, "predicted"), ARRAYS["integrated_gradients/predicted/attribution"]
    )
    assert store.mean_attribution(0).shape == (24, 24, 3)
    assert repr(store).endswith(", no Grad-CAM>")
    assert len(pickle.loads(pickle.dumps(store))) == STOP - FIRST


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda store: store.grad_cam, id="grad_cam"),
        pytest.param(lambda store: store.maps([120]), id="maps"),
        pytest.param(lambda store: store.maps([120], "predicted"), id="maps, predicted"),
        pytest.param(lambda store: store.upsampled_cam(120), id="upsampled_cam"),
        pytest.param(lambda store: store.mean_map("cat"), id="mean_map"),
        pytest.param(lambda store: store.values("grad_cam/cam_max", np.array([120])), id="values"),
        pytest.param(lambda store: store.column("grad_cam/cam_max"), id="column"),
    ],
)
def test_asking_for_maps_is_one_clear_line(store: AttributionStore, ask: Callable[[AttributionStore], Any]) -> None:
    with pytest.raises(ValueError, match=r"this night has no Grad-CAM, .* ask store\.has_grad_cam first") as raised:
        ask(store)
    assert "\n" not in str(raised.value)


def test_no_map_is_counted_as_empty(store: AttributionStore) -> None:
    table = store.table()
    assert table["cam_max"].isna().all() and table["cam_max"].dtype == np.float32
    assert (table["cam_max"] == 0).sum() == 0


def test_xarray_has_neither_maps_nor_their_axes(path: Path) -> None:
    with open_store(path).to_xarray() as dataset:
        assert not {"map", "cam_max", "predicted_map"} & set(dataset.variables)
        assert not {"cam_y", "cam_x"} & set(dataset.dims)
        assert dataset["attribution"].dims == ("row", "y", "x", "channel")
        assert dataset["predicted_attribution"].dims == ("predicted_row", "y", "x", "channel")
        np.testing.assert_array_equal(dataset["gap"], ARRAYS["integrated_gradients/gap"])


def test_it_is_read_at_an_address(path: Path) -> None:
    pytest.importorskip("aiohttp")
    with served(path.parent) as server, open_store(f"{server.address}/{path.name}") as store:
        assert not store.has_grad_cam
        np.testing.assert_array_equal(store.attributions([103]), ARRAYS["integrated_gradients/attribution"][3:4])


# Pictures.


@pytest.mark.filterwarnings("ignore:Glyph")
def test_a_row_is_drawn_without_the_panel_of_the_map(store: AttributionStore) -> None:
    figure = store.figure(103)
    assert [ax.get_title() for ax in figure.axes if ax.images] == ["Image", "Integrated Gradients"]
    render(figure)
    image, heat = (ax.images[0].get_array() for ax in figure.axes if ax.images)
    np.testing.assert_allclose(image[..., :3] * 255, store.image[103], atol=1e-4)
    np.testing.assert_array_equal(heat, signed_heat(store.attributions([103])[0])[0])
    assert [method for _, method, _ in row_pictures(store, [103, 104], 50)] == ["integrated-gradients"] * 2
    assert [[method.group for method in shown.pictures] for shown in explained_rows(store, [103, 104])] == [
        ["integrated_gradients"]
    ] * 2


def test_a_summary_has_two_pictures_a_row(store: AttributionStore) -> None:
    rows = list(range(100, 112))
    explained = [(method, store.view(method)[rows]) for method in store.methods]
    figure = summary_figure(store.image[rows], explained, [str(row) for row in rows])
    (ax,) = figure.axes
    assert len(ax.images) == 2 * len(rows)
    assert [text.get_text() for text in ax.texts if text.get_rotation()] == ["Image", "Integrated Gradients"] * 2
    render(figure)


# Exports.


def exported(store: AttributionStore, to: Any, folder: Path) -> dict[str, Any]:
    export_rows(store, store.row_numbers[:20], to, folder)
    return json.loads((folder / "export.json").read_text())


def test_zarr_has_no_group_of_grad_cam(store: AttributionStore, tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    assert exported(store, "zarr", tmp_path / "out")["grad_cam"] is False
    group = zarr.open_group(tmp_path / "out" / "attributions.zarr", mode="r")
    assert not NODES & set(group)
    assert {name for name, node in group.members(max_depth=None) if hasattr(node, "shape")} == {
        variable.path for variable in variables_of(SCHEMA_VERSION, maps=False)
    }
    assert json.loads(group.attrs["contract"]) == {}


def test_parquet_has_a_column_of_nan(store: AttributionStore, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    exported(store, "parquet", tmp_path / "out")
    table = parquet.read_table(tmp_path / "out" / "rows.parquet").to_pandas()
    assert table["cam_max"].isna().all() and table["gap"].notna().all()


def test_virelay_has_the_projects_of_integrated_gradients(store: AttributionStore, tmp_path: Path) -> None:
    exported(store, "virelay", tmp_path / "out")
    stems = {file.stem for file in (tmp_path / "out").glob("*.yaml")}
    assert stems == {"integrated-gradients-true", "integrated-gradients-predicted"}
    assert not list((tmp_path / "out").glob("grad-cam*"))
    with h5py.File(tmp_path / "out" / "integrated-gradients-true.attribution.h5") as file:
        expected = np.moveaxis(ARRAYS["integrated_gradients/attribution"][:20], 3, 1)
        np.testing.assert_array_equal(file["attribution"][...], expected)


@pytest.mark.filterwarnings("ignore:Glyph")
def test_png_has_a_picture_a_row(store: AttributionStore, tmp_path: Path) -> None:
    exported(store, "png", tmp_path / "out")
    assert len(list((tmp_path / "out").glob("row-*.png"))) == 20


def test_what_is_optional_are_maps_and_their_axes() -> None:
    optional = {variable.path for variable in VARIABLES} - {
        variable.path for variable in present(VARIABLES, maps=False)
    }
    assert {path.partition("/")[0] for path in optional} == NODES
    assert optional == {variable.path for variable in VARIABLES if variable.path.partition("/")[0] in NODES}
