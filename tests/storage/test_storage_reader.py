"""The reader beside its slow twins: NumPy's indexing, plain means, PIL and TensorFlow for the enlarged maps, h5netcdf."""

import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
from PIL import Image

from example_store import CLASS_NAMES, chunk_offset, flip_byte, joined_arrays, seal, write_parts
from storage import AttributionStore, StoreCorrupt, open_store
from storage.read import row_means
from storage.read.class_names import class_number
from storage.read.row_means import mean_over_rows
from storage.read.upsampling import upsample

FIRST, STOP = 100, 250
ARRAYS = joined_arrays(FIRST, STOP)
WRONG = ARRAYS["label"] != ARRAYS["prediction"]
IG, CAM = "integrated_gradients/attribution", "grad_cam/map"


def for_target(path: str, target: str) -> np.ndarray:
    """The whole array that a target means: for "predicted" the misclassified rows are replaced."""
    values = ARRAYS[path].copy()
    if target == "predicted":
        group, _, name = path.partition("/")
        values[WRONG] = ARRAYS[f"{group}/predicted/{name}"]
    return values


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reader")
    seal(folder / "attributions.h5", write_parts(folder / "parts", FIRST, STOP))
    return folder / "attributions.h5"


@pytest.fixture
def store(sealed: Path):
    with open_store(sealed) as store:
        yield store


# Indexing, against NumPy on the whole array.


def is_mask(index: object) -> bool:
    return isinstance(index, np.ndarray) and index.dtype.kind == "b"


def random_index(random: np.random.Generator, shape: tuple[int, ...]) -> tuple:
    """A NumPy index of the whole array, at random: ints, slices, masks, arrays, Ellipsis, in any combination."""

    def a_slice(size: int) -> slice:
        bounds = [None if random.random() < 0.2 else int(i) for i in random.integers(0, size + 3, 2)]
        return slice(*bounds, int(random.choice([-3, -1, 1, 2, 5])) if random.random() < 0.7 else None)

    first = {
        0: lambda: int(random.integers(shape[0])),
        1: lambda: a_slice(shape[0]),
        2: lambda: random.random(shape[0]) < 0.1,
        3: lambda: random.integers(0, shape[0], random.integers(0, 9)),
        4: lambda: ...,
    }[int(random.integers(5))]()
    index: list = [first]
    n_array = len(first) if isinstance(first, np.ndarray) and not is_mask(first) else 4
    n_others = int(random.integers(len(shape)))
    for size in shape[len(shape) - n_others :] if first is ... else shape[1 : 1 + n_others]:
        kind = random.integers(4 if not is_mask(first) else 2)
        index.append(
            [int(random.integers(-size, size)), a_slice(size), random.integers(0, size, n_array), a_slice(size)][kind]
        )
    return tuple(index)


def by_number(index: tuple) -> tuple:
    """The same index with row numbers for positions."""
    first, *rest = index
    if isinstance(first, slice):
        start, stop = (None if bound is None else bound + FIRST for bound in (first.start, first.stop))
        first = slice(start, stop, first.step)
    elif not (first is ... or is_mask(first)):
        first = first + FIRST
    return (first, *rest)


@pytest.mark.parametrize("target", ["true", "predicted"])
@pytest.mark.parametrize("path", [IG, CAM])
def test_random_selections_are_those_of_numpy(store: AttributionStore, path: str, target: str) -> None:
    random, whole = np.random.default_rng(11), for_target(path, target)
    read = store.attributions if path == IG else store.maps
    view = store.integrated_gradients if path == IG else store.grad_cam
    for _ in range(150):
        index = random_index(random, whole.shape)
        if target == "true":
            np.testing.assert_array_equal(view[by_number(index)], whole[index], strict=True, err_msg=str(index))
        rows = by_number(index)[0]
        np.testing.assert_array_equal(read(rows, target), whole[index[0]], strict=True, err_msg=str(index))


@pytest.mark.parametrize(
    "index",
    [
        (),
        (..., 0),
        (..., 2, slice(None, None, -1)),
        (slice(None), None, 3),
        (slice(0, 0), 2, ..., 1),
        (..., slice(3, 5), 1, 2, 0),
        (slice(None), np.eye(24, dtype=bool)),
        (np.arange(24), np.arange(24), ..., [0]),
    ],
    ids=["nothing", "... one", "... two", "new axis", "empty", "... all", "mask of y and x", "arrays"],
)
def test_ellipsis_and_other_axes(store: AttributionStore, index: tuple) -> None:
    expected = ARRAYS["image"][index]
    if index and index[0] is ... and len(index) == 5:
        index = (..., slice(index[1].start + FIRST, index[1].stop + FIRST), *index[2:])
    elif index and isinstance(index[0], np.ndarray):
        index = (index[0] + FIRST, *index[1:])
    np.testing.assert_array_equal(store.image[index], expected, strict=True)


def test_indices_outside_are_numpys_errors(store: AttributionStore) -> None:
    for index in ((100, 24), (slice(None), 0, 0, 0, 0), (100, 0, 0, 7)):
        with pytest.raises(IndexError):
            store.image[index]


def test_a_column_of_pixels_does_not_hold_the_whole_array(store: AttributionStore, monkeypatch) -> None:
    read: list[int] = []
    gather = AttributionStore.gather

    def watch(self: AttributionStore, path: str, positions: np.ndarray) -> np.ndarray:
        read.append(len(positions))
        return gather(self, path, positions)

    monkeypatch.setattr(row_means, "BLOCK_BYTES", 40 * 24 * 24 * 3 * 4)
    monkeypatch.setattr(AttributionStore, "gather", watch)
    np.testing.assert_array_equal(store.integrated_gradients[:, 3, 4, 1], ARRAYS[IG][:, 3, 4, 1])
    assert read == [40, 40, 40, 30]


def test_nothing_selected_is_empty_everywhere(store: AttributionStore) -> None:
    none = store.rows(min_confidence=2)
    assert store.attributions(none, "predicted").shape == (0, 24, 24, 3)
    assert store.maps(none, "predicted").shape == (0, 4, 5)
    assert store.upsampled_cam(none).shape == (0, 24, 24)
    assert store.image[none, 2].shape == (0, 24, 3)
    assert len(store.certificate("predicted", none)) == 0 == len(store.table(none))
    assert list(store.table(none).columns) == list(store.table().columns)
    with pytest.raises(ValueError, match="1 to 50 rows for one figure, got 0"):
        store.figure(none)
    assert store.attributions(none, progress=True).shape == (0, 24, 24, 3)


def test_table_of_some_rows(store: AttributionStore) -> None:
    rows = store.rows(correct=False)[::-1]
    assert store.table(rows).equals(store.table().loc[rows])


# Means and enlarged maps.


@pytest.mark.parametrize("target", ["true", "predicted"])
@pytest.mark.parametrize("label", [None, "dog", 1, 2], ids=str)
def test_means_are_those_of_numpy(store: AttributionStore, label, target: str, monkeypatch) -> None:
    monkeypatch.setattr(row_means, "BLOCK_BYTES", 7 * 24 * 24 * 3 * 8)
    chosen = np.ones(150, bool) if label is None else ARRAYS["label"] == (1 if label == "dog" else label)
    for mean, path in ((store.mean_attribution, IG), (store.mean_map, CAM)):
        expected = for_target(path, target)[chosen].astype(np.float64).mean(axis=0)
        found = mean(label, target)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)


def test_means_are_summed_in_float64() -> None:
    values = np.full((1 << 14, 1), 0.1, np.float32)
    assert mean_over_rows(values.__getitem__, np.arange(len(values)), (1,))[0] == pytest.approx(
        np.float32(0.1), abs=1e-14
    )


def test_a_class_without_rows_is_named(tmp_path: Path) -> None:
    seal(tmp_path / "attributions.h5", write_parts(tmp_path / "parts", 0, 1, n_wrong=0))
    with open_store(tmp_path) as store:
        absent = CLASS_NAMES[(store.labels[0] + 1) % 3]
        for mean in (store.mean_map, store.mean_attribution):
            with pytest.raises(ValueError, match=f"class '{absent}' has no rows in this store, rows 0-0"):
                mean(absent)
            with pytest.raises(ValueError, match="unknown class 'bird'"):
                mean("bird")


@pytest.mark.parametrize("size", [(24, 24), (32, 32), (33, 17), (4, 5), (8, 40)], ids=str)
def test_enlarged_maps_are_those_of_pil_and_tensorflow(size: tuple[int, int]) -> None:
    tf = pytest.importorskip("tensorflow")
    maps = ARRAYS[CAM][:20] * np.float32(1e-3)
    enlarged = upsample(maps, *size)
    assert enlarged.dtype == np.float32 and enlarged.shape == (20, *size)
    pil = [np.asarray(Image.fromarray(m).resize(size[::-1], Image.Resampling.BILINEAR)) for m in maps]
    np.testing.assert_allclose(enlarged, pil, atol=3e-9)
    theirs = tf.image.resize(maps[..., None], size, method="bilinear")[..., 0]
    np.testing.assert_allclose(enlarged, theirs, atol=3e-9)


def test_enlarged_maps_closed_forms() -> None:
    assert not upsample(np.zeros((2, 4, 4), np.float32), 32, 32).any()
    np.testing.assert_array_equal(upsample(np.full((1, 4, 5), 7, np.float32), 32, 20), np.full((1, 32, 20), 7))
    np.testing.assert_allclose(upsample(np.array([[0.0, 4.0]], np.float32), 1, 4), [[0, 1, 3, 4]])
    same = ARRAYS[CAM][:3]
    np.testing.assert_array_equal(upsample(same, 4, 5), same)


def test_enlarged_maps_of_a_store(store: AttributionStore) -> None:
    for target in ("true", "predicted"):
        expected = upsample(for_target(CAM, target), 24, 24)
        np.testing.assert_array_equal(store.upsampled_cam(..., target), expected)
    np.testing.assert_array_equal(store.upsampled_cam(107), upsample(ARRAYS[CAM][7], 24, 24))


# Classes.


def test_unknown_class_of_a_thousand_stays_short() -> None:
    names = [f"class number {number}" for number in range(1000)]
    with pytest.raises(ValueError, match=r"the 1,000 classes begin with .*alike are .*'class number 7'") as refusal:
        class_number(names, "clas number 7")
    assert len(str(refusal.value)) < 1500
    assert class_number(names, "class number 999") == 999 == class_number(names, np.int64(999))


# xarray.


def test_to_xarray_holds_everything(store: AttributionStore) -> None:
    with store.to_xarray() as data:
        assert dict(data.sizes) == {
            "row": 150, "y": 24, "x": 24, "channel": 3, "class": 3, "cam_y": 4, "cam_x": 5, "predicted_row": WRONG.sum(),
        }  # fmt: skip
        for path in ARRAYS:
            if path == "predicted_row":
                continue
            name = ("predicted_" if "predicted/" in path else "") + path.rpartition("/")[2]
            np.testing.assert_array_equal(data[name].values, ARRAYS[path], err_msg=name)
            assert {"long_name", "units", "description"} <= data[name].attrs.keys()
        np.testing.assert_array_equal(data.row, np.arange(FIRST, STOP))
        np.testing.assert_array_equal(data.predicted_row, np.flatnonzero(WRONG) + FIRST)
        assert data.class_name.values.tolist() == CLASS_NAMES and data.class_name.dims == ("class",)
        assert {"label", "prediction", "class_name", "cam_y", "channel"} <= set(data.coords)
        assert data.attrs["dataset_name"] == "digits" and data.attrs["complete"] == 1
    with pytest.raises(ValueError, match="the store is closed"):
        store.image[100]


def test_to_xarray_is_lazy(store: AttributionStore, monkeypatch) -> None:
    read: list[tuple[str, int]] = []
    gather = AttributionStore.gather

    def watch(self: AttributionStore, path: str, positions: np.ndarray) -> np.ndarray:
        read.append((path, len(positions)))
        return gather(self, path, positions)

    monkeypatch.setattr(AttributionStore, "gather", watch)
    data = store.to_xarray()
    some = data.attribution.sel(row=[249, 101])[:, 3:5, ::-1, 1]
    some = some.isel(x=slice(0, 4))
    assert not {path for path, _ in read} & {IG, "image", CAM, "probability"}
    read.clear()
    np.testing.assert_array_equal(some, ARRAYS[IG][[149, 1]][:, 3:5, ::-1, 1][..., :4])
    assert read == [(IG, 2)]


def test_to_xarray_selects_as_numpy(store: AttributionStore) -> None:
    data, image = store.to_xarray(), ARRAYS["image"]
    np.testing.assert_array_equal(data.image[::-7, 3, [5, 5, 2]], image[::-7, 3][:, [5, 5, 2]])
    np.testing.assert_array_equal(data.image[7], image[7])
    np.testing.assert_array_equal(data.image[[5, 3], :, [1, 0]].shape, (2, 24, 2, 3))
    points = xr.DataArray([1, 2], dims="point")
    np.testing.assert_array_equal(data.image.isel(row=points, y=points), image[[1, 2], [1, 2]])
    np.testing.assert_array_equal(data.image[data.label == 1], image[ARRAYS["label"] == 1])
    expected = [ARRAYS[IG][ARRAYS["label"] == k].mean(axis=0, dtype=np.float64) for k in range(3)]
    np.testing.assert_allclose(data.attribution.astype(float).groupby("label").mean(), expected)


def test_to_xarray_can_be_saved(store: AttributionStore, tmp_path: Path) -> None:
    store.to_xarray().to_netcdf(tmp_path / "copy.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "copy.nc", engine="h5netcdf") as copy:
        np.testing.assert_array_equal(copy.attribution, ARRAYS[IG])
        assert copy.attrs["run_id"] == store.attributes["run_id"]


def test_damage_is_named_through_xarray(sealed: Path, tmp_path: Path) -> None:
    path = tmp_path / "attributions.h5"
    path.write_bytes(sealed.read_bytes())
    flip_byte(path, chunk_offset(path, IG, 64))
    with open_store(path).to_xarray() as data, pytest.raises(StoreCorrupt, match="attribution, rows 170: "):
        _ = data.attribution.sel(row=170).values


# Threads and processes.


def test_a_pickled_store_opens_itself_again(store: AttributionStore) -> None:
    with pickle.loads(pickle.dumps(store)) as again:
        assert again is not store and again.path == store.path
        np.testing.assert_array_equal(again.attributions(...), ARRAYS[IG])


def test_many_threads_read_one_store(store: AttributionStore) -> None:
    def read(seed: int) -> bool:
        rows = np.random.default_rng(seed).integers(FIRST, STOP, 9)
        table = store.table(rows)
        same = np.array_equal(store.attributions(rows, "predicted"), for_target(IG, "predicted")[rows - FIRST])
        return same and np.array_equal(table.index, rows)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(100)))


def test_closing_while_others_read_is_an_error_and_no_wrong_number(sealed: Path) -> None:
    store, started = open_store(sealed), threading.Event()

    def read() -> str:
        try:
            while True:
                np.testing.assert_array_equal(store.attributions(...), ARRAYS[IG])
                started.set()
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        started.wait(30)
        store.close()
        for reader in readers:
            assert "the store is closed" in reader.result(timeout=60)


def test_processes_that_read_are_not_in_each_others_way(sealed: Path) -> None:
    with h5py.File(sealed) as file, open_store(sealed) as store:
        child = os.fork()
        if child == 0:
            same = np.array_equal(store.attributions(...), ARRAYS[IG])
            os._exit(0 if same else 1)
        assert os.waitpid(child, 0)[1] == 0
        np.testing.assert_array_equal(store.attributions(...), file[IG][...])
