"""Reading: rows by what is true of them, lazy arrays by row number, and a plain no to every file that is no store."""

import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import h5py
import numpy as np
import pytest

from command import running
from example_store import CLASS_NAMES, chunk_offset, flip_byte, joined_arrays, seal, write_parts
from storage import (
    SCHEMA_VERSION,
    AttributionStore,
    Catalog,
    StoreCorrupt,
    StoreError,
    StoreFormatError,
    StoreIncomplete,
    StoreNotFound,
    StoreVersionError,
    new_night_id,
    open_store,
    resolve_store,
)

FIRST, STOP = 100, 250
ARRAYS = joined_arrays(FIRST, STOP)
ROWS = np.arange(FIRST, STOP)
WRONG = ARRAYS["label"] != ARRAYS["prediction"]
CONFIDENCE = ARRAYS["probability"][np.arange(len(ROWS)), ARRAYS["prediction"]]


@pytest.fixture(scope="module")
def sealed(tmp_path_factory) -> Path:
    """A store of the rows 100-249; tests that damage it work on a copy."""
    folder = tmp_path_factory.mktemp("store")
    seal(folder / "attributions.h5", write_parts(folder / "parts", FIRST, STOP))
    return folder / "attributions.h5"


@pytest.fixture
def copied(sealed: Path, tmp_path: Path) -> Path:
    path = Path(shutil.copy(sealed, tmp_path))
    path.chmod(0o644)
    return path


@pytest.fixture
def store(sealed: Path):
    with open_store(sealed) as store:
        yield store


# What a store says of itself.


def test_repr_tells_what_it_is(sealed: Path) -> None:
    with open_store(sealed) as store:
        text = repr(store)
    for piece in (
        "digits/test",
        "rows 100-249",
        "seed-cnn",
        "20261123T020000Z-ab12cd",
        f"accuracy {1 - WRONG.mean():.2%}",
    ):
        assert piece in text
    assert f"converged {ARRAYS['integrated_gradients/converged'].mean():.2%}" in text
    assert repr(store).endswith("closed>")


def test_attributes_are_decoded(store: AttributionStore) -> None:
    assert store.attributes["configuration"] == {"explain": {"power": 3, "baseline": "black"}}
    assert store.attributes["git_commit"] == "" and store.attributes["schema"] == SCHEMA_VERSION
    assert "rows 100-249" in repr(store.image) and store.image.shape == (150, 24, 24, 3)


def test_columns(store: AttributionStore) -> None:
    assert len(store) == 150 and store.class_names == CLASS_NAMES
    np.testing.assert_array_equal(store.row_numbers, ROWS)
    np.testing.assert_array_equal(store.labels, ARRAYS["label"])
    np.testing.assert_array_equal(store.predictions, ARRAYS["prediction"])
    np.testing.assert_array_equal(store.probabilities, ARRAYS["probability"])
    with pytest.raises(ValueError, match="read-only"):
        store.labels[0] = 1


def test_table(store: AttributionStore) -> None:
    table = store.table()
    np.testing.assert_array_equal(table.index, ROWS)
    assert table.index.name == "row"
    for column in ("gap", "quadrature_error", "score", "score_baseline", "n_gradients", "converged"):
        np.testing.assert_array_equal(table[column], ARRAYS[f"integrated_gradients/{column}"])
    np.testing.assert_array_equal(table["cam_max"], ARRAYS["grad_cam/cam_max"])
    np.testing.assert_array_equal(table["confidence"], CONFIDENCE)
    np.testing.assert_array_equal(table["correct"], ~WRONG)
    assert table.loc[107, "label_name"] == CLASS_NAMES[ARRAYS["label"][7]]
    assert table.loc[107, "prediction_name"] == CLASS_NAMES[ARRAYS["prediction"][7]]
    assert table["converged"].dtype == bool


def test_the_names_in_a_table_are_the_same_under_every_pandas(store: AttributionStore) -> None:
    """Objects, each a str: pandas 3 has a text dtype that pandas 2 has not."""
    table = store.table()
    for column, labels in (("label_name", table["label"]), ("prediction_name", table["prediction"])):
        assert table[column].dtype == np.dtype(object)
        assert {type(name) for name in table[column]} == {str}
        assert table[column].tolist() == [CLASS_NAMES[label] for label in labels]


# Rows by what is true of them.


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ({}, np.ones(150, bool)),
        ({"label": "dog"}, ARRAYS["label"] == 1),
        ({"label": 1}, ARRAYS["label"] == 1),
        ({"label": np.int64(0)}, ARRAYS["label"] == 0),
        ({"prediction": "naïve 猫"}, ARRAYS["prediction"] == 2),
        ({"correct": True}, ~WRONG),
        ({"correct": False}, WRONG),
        ({"min_confidence": 0.5}, CONFIDENCE >= 0.5),
        ({"converged": False}, ARRAYS["integrated_gradients/converged"] == 0),
        ({"max_gap": 20.0}, np.abs(ARRAYS["integrated_gradients/gap"]) <= 20),
        ({"label": "cat", "correct": False, "converged": True}, None),
        ({"min_confidence": 2.0}, np.zeros(150, bool)),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "rows",
)
def test_rows(store: AttributionStore, question: dict, expected) -> None:
    if expected is None:
        expected = (ARRAYS["label"] == 0) & WRONG & (ARRAYS["integrated_gradients/converged"] == 1)
        assert expected.any()
    found = store.rows(**question)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, ROWS[expected])


@pytest.mark.parametrize("unknown", ["bird", 3, -1, "1"])
def test_unknown_class_lists_the_known_ones(store: AttributionStore, unknown) -> None:
    with pytest.raises(ValueError, match="unknown class .*0: 'cat', 1: 'dog', 2: 'naïve 猫'"):
        store.rows(label=unknown)


# Lazy arrays by row number.


@pytest.mark.parametrize(
    ("index", "positions"),
    [
        pytest.param(100, 0, id="first"),
        pytest.param(np.int32(249), 149, id="last"),
        pytest.param(slice(None), slice(None), id="all"),
        pytest.param(slice(120, 130), slice(20, 30), id="slice"),
        pytest.param(slice(None, 110), slice(0, 10), id="slice from the first"),
        pytest.param(slice(50, 110), slice(0, 10), id="slice from before the first"),
        pytest.param(slice(240, 999), slice(140, 150), id="slice beyond the last"),
        pytest.param(slice(0, 50), slice(0, 0), id="slice before the first"),
        pytest.param(slice(110, 200, 7), slice(10, 100, 7), id="stepped slice"),
        pytest.param(slice(None, None, -1), slice(None, None, -1), id="reversed"),
        pytest.param(slice(110, 50, -2), slice(10, None, -2), id="reversed to before the first"),
        pytest.param(slice(50, None, -1), slice(0, 0), id="reversed from before the first"),
        pytest.param([249, 100, 171, 100], [149, 0, 71, 0], id="unsorted and repeated"),
        pytest.param(np.array([165], dtype=np.uint8), [65], id="unsigned"),
        pytest.param([], [], id="empty"),
        pytest.param(WRONG, WRONG, id="mask"),
        pytest.param(ROWS[WRONG][::-1], np.flatnonzero(WRONG)[::-1], id="array"),
        pytest.param(..., ..., id="ellipsis"),
    ],
)
def test_indexing_by_row_number(store: AttributionStore, index, positions) -> None:
    positions = np.array(positions, dtype=int) if isinstance(positions, list) else positions
    for view, name in (
        (store.image, "image"),
        (store.integrated_gradients, "integrated_gradients/attribution"),
        (store.grad_cam, "grad_cam/map"),
    ):
        np.testing.assert_array_equal(view[index], ARRAYS[name][positions], strict=True)


def test_further_axes_and_whole_array(store: AttributionStore) -> None:
    image = ARRAYS["image"]
    np.testing.assert_array_equal(store.image[105, 2:4, :, 0], image[5, 2:4, :, 0], strict=True)
    np.testing.assert_array_equal(store.image[[105, 101], ..., 1], image[[5, 1], ..., 1], strict=True)
    np.testing.assert_array_equal(np.asarray(store.image), image, strict=True)
    np.testing.assert_array_equal(store.image[[105, 101], [1, 2]], image[[5, 1], [1, 2]], strict=True)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        pytest.param(99, "row 99 is not in this store, which has rows 100-249", id="before"),
        pytest.param(250, "row 250 is not in this store", id="after"),
        pytest.param(-1, "row -1 is not in this store", id="from the end"),
        pytest.param([100, 300], "row 300 is not", id="in an array"),
        pytest.param(slice(-10, None), "not counted from the end", id="slice from the end"),
        pytest.param(np.ones(149, bool), r"mask of shape \(150,\)", id="short mask"),
        pytest.param([100.0], "expected a row number", id="float"),
        pytest.param("cat", "expected a row number", id="text"),
        pytest.param([[100]], "expected a row number", id="two axes"),
    ],
)
def test_rows_outside_are_refused(store: AttributionStore, index, message: str) -> None:
    with pytest.raises(IndexError, match=message):
        store.image[index]


# Both targets for all rows.


@pytest.mark.parametrize(
    "index", [slice(None), ROWS[::-1], ROWS[WRONG], ROWS[~WRONG]], ids=["all", "back", "wrong", "right"]
)
def test_predicted_target_is_served_for_all_rows(store: AttributionStore, index) -> None:
    for read, group, name in (
        (store.attributions, "integrated_gradients", "attribution"),
        (store.maps, "grad_cam", "map"),
    ):
        expected = ARRAYS[f"{group}/{name}"].copy()
        positions = index - FIRST if isinstance(index, np.ndarray) else index
        np.testing.assert_array_equal(read(index), expected[positions])
        expected[WRONG] = ARRAYS[f"{group}/predicted/{name}"]
        np.testing.assert_array_equal(read(index, target="predicted"), expected[positions])


def test_certificate_of_both_targets(store: AttributionStore) -> None:
    true, predicted = store.certificate(), store.certificate("predicted")
    np.testing.assert_array_equal(true["gap"], ARRAYS["integrated_gradients/gap"])
    np.testing.assert_array_equal(predicted["gap"][~WRONG], ARRAYS["integrated_gradients/gap"][~WRONG])
    np.testing.assert_array_equal(predicted["gap"][WRONG], ARRAYS["integrated_gradients/predicted/gap"])
    total = store.attributions(..., target="predicted").sum(axis=(1, 2, 3))
    np.testing.assert_allclose(total, predicted["score"] - predicted["score_baseline"] + predicted["gap"], atol=1e-3)


def test_single_row_of_the_predicted_target(store: AttributionStore) -> None:
    row = int(ROWS[WRONG][3])
    expected = ARRAYS["integrated_gradients/predicted/attribution"][3]
    np.testing.assert_array_equal(store.attributions(row, target="predicted"), expected, strict=True)


def test_without_misclassified_rows_both_targets_are_one(tmp_path: Path) -> None:
    seal(tmp_path / "attributions.h5", write_parts(tmp_path / "parts", 0, 3, n_wrong=0))
    with open_store(tmp_path) as store:
        np.testing.assert_array_equal(store.attributions(..., target="predicted"), store.integrated_gradients[...])
        assert store.certificate("predicted").equals(store.certificate())
        assert store.rows(correct=False).shape == (0,)
        assert store.maps(store.rows(correct=False), target="predicted").shape == (0, 4, 5)


def test_unknown_target(store: AttributionStore) -> None:
    with pytest.raises(ValueError, match='"true" or "predicted", got \'label\''):
        store.maps([100], target="label")  # type: ignore[arg-type]


def test_reading_after_closing(sealed: Path) -> None:
    with open_store(sealed) as store:
        view = store.image
    with pytest.raises(ValueError, match="the store is closed"):
        view[100]


# Files that are no store.


def make_unsealed(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file.attrs.modify("complete", np.int64(0))


def make_newer(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file.attrs["schema"] = SCHEMA_VERSION + 1


def make_ancient(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file.attrs["schema"] = 0


def make_foreign(path: Path) -> None:
    path.unlink()
    with h5py.File(path, "w") as file:
        file["image"] = [1, 2]


def lose_dataset(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["integrated_gradients/gap"]


def change_dtype(path: Path) -> None:
    with h5py.File(path, "a") as file:
        values = file["label"][:].astype(float)
        del file["label"]
        file["label"] = values


def shorten(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["grad_cam/cam_max"].resize(149, axis=0)


def make_single(name: str, dtype: object = None) -> Callable[[Path], None]:
    """Puts one number without any axis, or with a dtype and no data nothing at all, in place of a dataset."""

    def spoil(path: Path) -> None:
        with h5py.File(path, "a") as file:
            value = h5py.Empty(dtype) if dtype else np.zeros((), file[name].dtype)
            del file[name]
            file.create_dataset(name, data=value)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        pytest.param(Path.unlink, StoreNotFound, "no such file", id="missing"),
        pytest.param(lambda p: os.truncate(p, 0), StoreFormatError, "an empty file", id="empty"),
        pytest.param(lambda p: p.write_text("row,label\n"), StoreFormatError, "expected an HDF5 file", id="not HDF5"),
        pytest.param(make_foreign, StoreFormatError, "not ours", id="foreign HDF5"),
        pytest.param(lambda p: os.truncate(p, 100_000), StoreCorrupt, "truncated", id="truncated"),
        pytest.param(lambda p: os.truncate(p, p.stat().st_size - 1), StoreCorrupt, "truncated", id="a byte short"),
        pytest.param(make_unsealed, StoreIncomplete, "expected complete = 1, got 0", id="unsealed"),
        pytest.param(
            make_newer,
            StoreVersionError,
            f"got schema {SCHEMA_VERSION + 1}; install a newer nightlens",
            id="newer schema",
        ),
        pytest.param(
            make_ancient,
            StoreVersionError,
            f"1 to {SCHEMA_VERSION}, got schema 0; use the nightlens that",
            id="schema 0",
        ),
        pytest.param(lose_dataset, StoreFormatError, "integrated_gradients/gap is missing", id="dataset missing"),
        pytest.param(change_dtype, StoreFormatError, "label to be int64, got float64", id="wrong dtype"),
        pytest.param(shorten, StoreFormatError, r"cam_max of shape \(150,\), got \(149,\)", id="a row lost"),
        pytest.param(make_single("label"), StoreFormatError, r"label of shape \(150,\), got \(\)", id="scalar label"),
        pytest.param(make_single("row"), StoreFormatError, r"row of shape \('\?',\), got \(\)", id="scalar row"),
        pytest.param(make_single("image"), StoreFormatError, r"image of shape .*, got \(\)", id="scalar image"),
        pytest.param(make_single("label", "int64"), StoreFormatError, r"label of shape .*, got None", id="no space"),
    ],
)
def test_what_is_no_store_is_refused(copied: Path, spoil, error: type[StoreError], message: str) -> None:
    spoil(copied)
    with pytest.raises(error, match=message) as refusal:
        open_store(copied)
    assert str(copied) in str(refusal.value)


def test_a_store_can_be_open_elsewhere_in_the_process(sealed: Path) -> None:
    with h5py.File(sealed) as file, open_store(sealed) as store, open_store(sealed) as again:
        np.testing.assert_array_equal(file["image"][0], store.image[100])
        np.testing.assert_array_equal(again.image[100], store.image[100])


def test_a_file_that_is_being_written_is_incomplete(copied: Path) -> None:
    code = "import h5py, sys; file = h5py.File(sys.argv[1], 'a'); print('open', flush=True); input()"
    with running("-c", code, copied) as writer:
        assert writer.stdout and writer.stdout.readline() == "open\n"
        with pytest.raises(StoreIncomplete, match="still being written"):
            open_store(copied)
        writer.communicate("\n")
    open_store(copied).close()


def test_a_part_is_no_store(sealed: Path) -> None:
    part = next((sealed.parent / "parts").iterdir())
    with pytest.raises(StoreFormatError, match="got one of its parts; open attributions.h5"):
        open_store(part)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        pytest.param("integrated_gradients/attribution", lambda s: s.attributions(...), id="attributions"),
        pytest.param("image", lambda s: s.image[[200, 170]], id="image"),
        pytest.param("grad_cam/map", lambda s: s.maps(170), id="maps"),
        pytest.param("label", lambda s: s.rows(label=1), id="labels"),
        pytest.param("integrated_gradients/gap", lambda s: s.table(), id="table"),
    ],
)
def test_a_flipped_byte_is_an_error_with_a_name(copied: Path, name: str, read) -> None:
    flip_byte(copied, chunk_offset(copied, name, 64))
    with open_store(copied) as store, pytest.raises(StoreCorrupt, match=f"{name}, rows "):
        read(store)


def test_only_damaged_rows_are_lost(copied: Path) -> None:
    flip_byte(copied, chunk_offset(copied, "integrated_gradients/attribution", 64))
    with open_store(copied) as store:
        with pytest.raises(StoreCorrupt, match="attribution, rows 164-227: "):
            store.attributions(slice(None))
        np.testing.assert_array_equal(
            store.attributions([100, 249]), ARRAYS["integrated_gradients/attribution"][[0, 149]]
        )


def test_damaged_predicted_rows_are_named_by_row(copied: Path) -> None:
    flip_byte(copied, chunk_offset(copied, "integrated_gradients/predicted/attribution", 0))
    row = ROWS[WRONG][0]
    with open_store(copied) as store, pytest.raises(StoreCorrupt, match=f"predicted/attribution, rows {row}: "):
        store.attributions(row, target="predicted")


# Where things lie.


@pytest.fixture
def catalog(sealed: Path, tmp_path: Path) -> Catalog:
    """A root with two sealed nights and one that is not."""
    catalog = Catalog(tmp_path)
    for name in ("20261123T020000Z-aa", "20261124T020000Z-bb", "20261125T020000Z-cc"):
        catalog.night_dir(name).mkdir(parents=True)
        if not name.endswith("cc"):
            shutil.copy(sealed, catalog.night_dir(name))
    return catalog


def test_latest_moves_and_is_relative(catalog: Catalog) -> None:
    assert catalog.latest() is None
    first, second = catalog.list_nights()
    for night in (first, second):
        catalog.point_latest(night)
        assert catalog.latest() == night
    assert os.readlink(catalog.root / "latest") == f"nights/{second.name}"
    assert sorted(path.name for path in catalog.root.iterdir()) == ["latest", "nights"]


def test_a_store_is_found_by_file_night_latest_or_root(catalog: Catalog) -> None:
    night = catalog.list_nights()[0]
    catalog.point_latest(night)
    expected = (night / "attributions.h5").resolve()
    for path in (night / "attributions.h5", night, catalog.root / "latest", catalog.root, str(catalog.root)):
        assert resolve_store(path) == expected


def test_what_cannot_be_found_says_what_to_do(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(StoreNotFound, match="20261124T020000Z-bb"):
        resolve_store(catalog.root)
    with pytest.raises(StoreNotFound, match="nightlens run"):
        resolve_store(catalog.night_dir("20261125T020000Z-cc"))
    with pytest.raises(StoreNotFound, match="no such file or folder"):
        resolve_store(tmp_path / "nowhere")


def test_latest_never_points_astray(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(StoreNotFound, match="seal the night"):
        catalog.point_latest(catalog.night_dir("20261125T020000Z-cc"))
    with pytest.raises(ValueError, match="expected a night in"):
        catalog.point_latest(tmp_path)
    night = catalog.list_nights()[0]
    catalog.point_latest(night)
    shutil.rmtree(night)
    with pytest.raises(StoreNotFound, match="points to nights/20261123T020000Z-aa"):
        catalog.latest()


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "/etc", "", ".hidden", "a\n", "x" * 129, "a\\b"], ids=repr)
def test_names_that_climb_out_are_refused(tmp_path: Path, name: str) -> None:
    catalog = Catalog(tmp_path)
    for use in (catalog.night_dir, catalog.parts_dir, lambda n: new_night_id(datetime(2026, 1, 1, tzinfo=UTC), n)):
        with pytest.raises(ValueError, match="expected a"):
            use(name)


def test_night_ids_are_utc_and_sort_by_time() -> None:
    tokyo = timezone(timedelta(hours=9))
    assert new_night_id(datetime(2026, 11, 23, 11, tzinfo=tokyo), "ab12cd") == "20261123T020000Z-ab12cd"
    with pytest.raises(ValueError, match="time zone"):
        new_night_id(datetime(2026, 11, 23, 2), "ab12cd")
