"""The layout virtual: the same store over linked parts, and never a number where a part is missing, cut, or another one."""

import errno
import hashlib
import os
import pickle
import re
import shutil
import signal
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

from command import printed_by, printed_by_python, python
from environment import clean_environment
from example_store import (
    ATTRIBUTES,
    CLASS_NAMES,
    DIGEST,
    PART_ROWS,
    assert_holds,
    chunk_offset,
    example_arrays,
    flip_byte,
    joined_arrays,
    write_parts,
)
from file_server import served
from places import REPOSITORY, SETUP
from storage import (
    AttributionStore,
    Catalog,
    Finding,
    StoreCorrupt,
    StoreError,
    StoreFormatError,
    StoreIncomplete,
    open_store,
    part_path,
    pruning,
    remove,
    seal_store,
    verify_store,
    write_part,
)
from storage.file.added_tables import PARTS
from storage.file.schema import VARIABLES
from storage.file.schema_listing import ONLY_VIRTUAL, ONLY_WITH_CLUSTERS
from storage.nights.night_entries import begin_run
from storage.read.parts.linked_parts import PICTURES
from storage.read.parts.part_files import KEPT_OPEN
from storage.write import filling as fill_module
from storage.write import part_links as links_module
from storage.write import sealing as seal_module

FIRST, STOP = 100, 250
ARRAYS = joined_arrays(FIRST, STOP) | {"row": np.arange(FIRST, STOP)}
IG = "integrated_gradients/attribution"
MIDDLE = "attributions.parts/rows-000164-000228.h5"


def seal_virtual(path: Path, parts: list[Path]) -> seal_module.SealSummary:
    return seal_store(path, parts, class_names=CLASS_NAMES, attributes=ATTRIBUTES, layout="virtual")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parts of the rows 100-249, sealed once as a single file and once virtual, neither to be changed."""
    root = tmp_path_factory.mktemp("virtual")
    parts = write_parts(root / "parts", FIRST, STOP)
    seal_store(root / "single" / "attributions.h5", parts, class_names=CLASS_NAMES, attributes=ATTRIBUTES)
    seal_virtual(root / "night" / "attributions.h5", parts)
    return root


@pytest.fixture
def night(root: Path, tmp_path: Path) -> Path:
    """A copy of the virtual night's folder, to be spoilt."""
    return shutil.copytree(root / "night", tmp_path / "copied")


@pytest.fixture
def parts(root: Path, tmp_path: Path) -> list[Path]:
    """Copies of the parts, in the order of their rows."""
    return sorted(shutil.copytree(root / "parts", tmp_path / "parts").iterdir())


# The same store.


READERS: dict[str, Callable[[AttributionStore], object]] = {
    "columns": lambda s: [s.row_numbers, s.labels, s.predictions, s.probabilities, s.confidences],
    "every variable": lambda s: [s.column(variable.path) for variable in s.variables],
    "rows": lambda s: s.rows(label="cat", correct=False, converged=True),
    "certificate": lambda s: s.certificate("predicted").to_numpy(),
    "table": lambda s: s.table().drop(columns=["label_name", "prediction_name", "likeness"]).to_numpy(),  # NaN, here
    "image": lambda s: s.image[...],
    "one image": lambda s: s.image[170, 4:20],
    "any order": lambda s: s.integrated_gradients[[249, 100, 170, 170, 163, 164]],
    "none": lambda s: s.integrated_gradients[[]],
    "slice": lambda s: s.grad_cam[160:230:3],
    "predicted": lambda s: s.attributions(..., target="predicted"),
    "predicted maps": lambda s: s.maps([249, 101, 200], target="predicted"),
    "upsampled": lambda s: s.upsampled_cam([101, 240]),
    "means": lambda s: [s.mean_map("dog"), s.mean_attribution(None, "predicted")],
    "xarray": lambda s: [v.values for v in s.to_xarray().variables.values() if v.dtype.kind != "U"],
    "pickled": lambda s: pickle.loads(pickle.dumps(s)).attributions([100, 249]),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_every_reader_reads_the_same(root: Path, read: Callable[[AttributionStore], object]) -> None:
    with open_store(root / "single") as single, open_store(root / "night") as virtual:
        expected, came = read(single), read(virtual)
        for one, other in zip(*((v if isinstance(v, list) else [v]) for v in (expected, came)), strict=True):
            np.testing.assert_array_equal(other, one, strict=True)
        assert repr(virtual) == repr(single) and virtual.attributes == single.attributes


@pytest.mark.parametrize(
    ("start", "stop", "n_wrong"),
    [(0, 128, 0), (5, 6, 0), (0, 3, 3), (64, 200, None)],
    ids=["none misclassified", "one row", "all misclassified", "a short last part"],
)
def test_stores_at_the_edges_are_read_and_sound(tmp_path: Path, start: int, stop: int, n_wrong: int | None) -> None:
    seal_virtual(tmp_path / "attributions.h5", write_parts(tmp_path / "parts", start, stop, n_wrong=n_wrong))
    expected = joined_arrays(start, stop, n_wrong=n_wrong)
    assert_holds(tmp_path / "attributions.h5", expected)
    with open_store(tmp_path) as store:
        for path, array in expected.items():
            np.testing.assert_array_equal(store.column(path), array, err_msg=path, strict=True)
    assert verify_store(tmp_path) == ()


def test_parts_without_misclassified_rows_between_others(tmp_path: Path) -> None:
    """Parts of nothing, something, nothing: positions at the seams belong to the right one."""
    paths, arrays = [], []
    for first, n_wrong in ((0, 0), (8, 3), (16, 0), (24, 8), (32, 0)):
        arrays.append(example_arrays(first, first + 8, n_wrong=n_wrong))
        paths.append(part_path(tmp_path / "parts", first, first + 8))
        write_part(paths[-1], first, first + 8, arrays[-1], digest=DIGEST, part_rows=8)
    seal_virtual(tmp_path / "attributions.h5", paths)
    assert_holds(tmp_path / "attributions.h5", {n: np.concatenate([a[n] for a in arrays]) for n in arrays[0]})
    with open_store(tmp_path) as store:
        for name in arrays[0]:
            np.testing.assert_array_equal(store.column(name), np.concatenate([a[name] for a in arrays]), err_msg=name)
    assert verify_store(tmp_path) == ()


def test_threads_read_one_store_at_once(root: Path) -> None:
    random = np.random.default_rng(1)
    wanted = [random.integers(FIRST, STOP, 9) for _ in range(24)]
    with open_store(root / "night") as store, ThreadPoolExecutor(6) as pool:
        for rows, values in zip(wanted, pool.map(store.attributions, wanted), strict=True):
            np.testing.assert_array_equal(values, ARRAYS[IG][rows - FIRST])


def test_few_files_are_open_at_a_time(tmp_path: Path) -> None:
    n_parts = KEPT_OPEN + 4
    paths = [part_path(tmp_path / "parts", first, first + 1) for first in range(n_parts)]
    for first, path in enumerate(paths):
        arrays = example_arrays(first, first + 1, side=8)
        write_part(path, first, first + 1, arrays, digest=DIGEST, part_rows=1)
    seal_virtual(tmp_path / "attributions.h5", paths)

    def n_open() -> int:
        links = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
        return sum("attributions.parts" in link for link in links)

    with open_store(tmp_path) as store:
        assert n_open() == 0
        assert len(store.attributions(...)) == n_parts
        assert n_open() == KEPT_OPEN
    assert n_open() == 0


def test_a_closed_store_says_so(root: Path) -> None:
    with open_store(root / "night") as store:
        store.attributions([100])
    with pytest.raises(ValueError, match="the store is closed"):
        store.attributions([100])


# In other people's programs.


def test_h5py_reads_everything_through_the_virtual_datasets(root: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert_holds(root / "night" / "attributions.h5", ARRAYS)
    with h5py.File(root / "night" / "attributions.h5") as file:
        virtual = {v.path for v in VARIABLES if file[v.path].is_virtual}
        assert virtual == {variable.path for variable in PICTURES} and len(virtual) == 7
        assert file[PARTS.group]["start"][:].tolist() == [100, 164, 228]


def test_xarray_opens_every_group(root: Path) -> None:
    groups = xr.open_groups(root / "night" / "attributions.h5", engine="h5netcdf")
    for path, array in ARRAYS.items():
        group, _, name = path.rpartition("/")
        np.testing.assert_array_equal(groups[f"/{group}"][name].values, array, err_msg=path, strict=True)
    assert groups["/"]["image"].dims == ("row", "y", "x", "channel")
    assert groups["/parts"]["name"].values[1] == MIDDLE


@pytest.mark.skipif(not shutil.which("h5dump"), reason="h5dump is not installed: apt-get install hdf5-tools")
def test_h5dump_reads_through_the_virtual_datasets(root: Path) -> None:
    shown = printed_by(
        "h5dump",
        "-y",
        "-w",
        "1",
        "-d",
        "/image",
        "-s",
        "64,0,0,0",
        "-c",
        "1,1,24,3",
        root / "night" / "attributions.h5",
    )
    numbers = re.findall(r"\d+", shown.partition("DATA {")[2].partition("}")[0])
    assert [int(number) for number in numbers] == ARRAYS["image"][64, 0].ravel().tolist()


@pytest.mark.skipif(not shutil.which("ncdump"), reason="ncdump is not installed: apt-get install netcdf-bin")
def test_ncdump_reads_through_the_virtual_datasets(root: Path) -> None:
    shown = printed_by(
        "ncdump", "-p", "9,17", "-v", "/grad_cam/cam_max,/grad_cam/map", root / "night" / "attributions.h5"
    )
    assert "row = UNLIMITED ; // (150 currently)" in shown and "float map(row, cam_y, cam_x) ;" in shown
    values = re.search(r"\bmap =([^;]+);", shown)
    assert values
    found = np.array(values[1].split(","), float).astype(np.float32).reshape(150, 4, 5)
    np.testing.assert_array_equal(found, ARRAYS["grad_cam/map"])


def test_the_table_of_the_parts_is_what_the_listing_says(root: Path) -> None:
    from test_storage_listing import GOLDEN, listed

    with h5py.File(root / "night" / "attributions.h5") as file:
        found = listed(file, within=f"/{PARTS.group}")
    expected = GOLDEN.read_text().partition(ONLY_VIRTUAL)[2].partition(f"\n{ONLY_WITH_CLUSTERS}")[0]
    assert found.partition("\n\ngroup")[2] == expected.partition("\n\ngroup")[2]


# The night's folder.


def test_parts_are_linked_read_only_and_summed(root: Path) -> None:
    night, parts = root / "night", sorted((root / "parts").iterdir())
    assert sorted(path.name for path in night.iterdir()) == [
        "attributions.h5",
        "attributions.h5.sha256",
        "attributions.parts",
    ]
    linked = sorted((night / "attributions.parts").iterdir())
    assert [path.name for path in linked] == [path.name for path in parts]
    assert all(os.path.samefile(*pair) for pair in zip(linked, parts, strict=True))
    assert {stat.S_IMODE(path.stat().st_mode) for path in (*linked, night / "attributions.h5")} == {0o444}
    printed_by("sha256sum", "-c", "--strict", "attributions.h5.sha256", cwd=night)
    assert (night / "attributions.h5").stat().st_size < sum(path.stat().st_size for path in parts) / 10
    with open_store(night) as store:
        assert store.n_bytes == sum(path.stat().st_size for path in (night / "attributions.h5", *linked))


def test_a_moved_night_is_whole(night: Path, tmp_path: Path, monkeypatch) -> None:
    moved = tmp_path / "elsewhere" / "last night"
    moved.parent.mkdir()
    night.rename(moved)
    (tmp_path / "link").symlink_to(moved)
    monkeypatch.chdir(tmp_path / "elsewhere")
    for path in (moved, Path("last night/attributions.h5"), tmp_path / "link"):
        with open_store(path) as store:
            np.testing.assert_array_equal(store.attributions(...), ARRAYS[IG])
        assert verify_store(path) == ()
    assert_holds(tmp_path / "link" / "attributions.h5", ARRAYS)


def test_what_happens_to_the_parts_under_the_root_does_not_matter(tmp_path: Path, parts: list[Path]) -> None:
    seal_virtual(tmp_path / "night" / "attributions.h5", parts)
    write_part(parts[1], 164, 228, example_arrays(164, 228, n_wrong=5), digest=DIGEST, part_rows=PART_ROWS)
    parts[0].unlink()
    assert verify_store(tmp_path / "night") == ()
    assert_holds(tmp_path / "night" / "attributions.h5", ARRAYS)


def test_prune_removes_the_parts_and_the_night_keeps_them(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    folder = catalog.night_dir(str(ATTRIBUTES["run_id"]))
    parts = write_parts(catalog.parts_dir("unreferred"), FIRST, STOP)
    plan = {"digest": "another", "start": FIRST, "stop": STOP, "part_rows": PART_ROWS, "model_sha256": "c0de"}
    begin_run(catalog, folder.name, parameters={}, plan=plan)
    seal_virtual(folder / "attributions.h5", parts)
    (folder / "night.json").write_text('{"n_rows": 150, "accuracy": 0.5}')
    (folder / "attributions.parts.partial").mkdir()
    killed = catalog.night_dir("20261124T020000Z-ffffff")  # between naming its parts and its store
    begin_run(catalog, killed.name, parameters={}, plan=plan)
    shutil.copytree(folder / "attributions.parts", killed / "attributions.parts")
    with pruning(catalog, keep=1) as decided:
        assert {removal.path for removal in decided.removals} == {
            parts[0].parent,
            folder / "attributions.parts.partial",
            killed / "attributions.parts",
        }
        assert decided.removals[0].bytes == sum(part.stat().st_size for part in parts)
        assert decided.bytes == decided.removals[-1].bytes, "every other file has a name that stays"
        remove(catalog, decided.removals)
    assert not parts[0].exists() and verify_store(folder) == ()
    with open_store(folder) as store:
        np.testing.assert_array_equal(store.attributions(...), ARRAYS[IG])


def test_pruning_counts_what_loses_all_of_its_names(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    parts = write_parts(catalog.parts_dir("unreferred"), FIRST, STOP)
    with pruning(catalog, keep=1) as decided:
        assert decided.bytes == sum(part.stat().st_size for part in parts) == decided.removals[0].bytes


# Sealing.


def assert_nothing_left(night: Path, parts: list[Path]) -> None:
    assert list(night.glob("*")) == []
    assert all(part.is_file() for part in parts)


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM, errno.EMLINK], ids=errno.errorcode.get)
def test_where_no_links_are_possible_parts_are_copied_and_counted(tmp_path, parts, monkeypatch, code: int) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(code, os.strerror(code), str(target))

    monkeypatch.setattr(os, "link", refuse)
    summary = seal_virtual(tmp_path / "night" / "attributions.h5", parts)
    assert summary.n_copied == 3
    assert summary.bytes == sum(p.stat().st_size for p in (tmp_path / "night").rglob("*.h5"))
    assert not os.path.samefile(parts[0], tmp_path / "night" / "attributions.parts" / parts[0].name)
    assert verify_store(tmp_path / "night") == ()


@pytest.mark.parametrize("code", [errno.EACCES, errno.ENOSPC], ids=errno.errorcode.get)
def test_another_refusal_is_an_error_and_leaves_nothing(tmp_path, parts, monkeypatch, code: int) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(code, os.strerror(code), str(target))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(OSError, match=os.strerror(code)):
        seal_virtual(tmp_path / "night" / "attributions.h5", parts)
    assert_nothing_left(tmp_path / "night", parts)


@pytest.mark.parametrize(
    ("name", "row"), [(IG, 164), ("integrated_gradients/predicted/attribution", None), ("label", 164)]
)
def test_a_part_damaged_after_its_check_is_never_sealed(tmp_path: Path, parts, name: str, row: int | None) -> None:
    if row is None:
        with h5py.File(parts[1]) as file:
            row = file["predicted_row"][0]
    flip_byte(parts[1], chunk_offset(parts[1], name, 0))
    with pytest.raises(StoreCorrupt, match=f"rows-000164-000228.h5: {name}, rows {row}[-,]"):
        seal_virtual(tmp_path / "night" / "attributions.h5", parts)
    assert_nothing_left(tmp_path / "night", parts)


@pytest.mark.parametrize(
    ("module", "step"),
    [
        (links_module, "link_or_copy"),
        (links_module, "sync"),
        (fill_module.checked, "checked_chunks"),
        (fill_module, "_append_part"),
        (seal_module, "name_parts"),
        (seal_module, "_write_checksum"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_failure_in_the_middle_leaves_only_the_parts(tmp_path: Path, parts, monkeypatch, module, step: str) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, step, interrupted)
    path = tmp_path / "night" / "attributions.h5"
    with pytest.raises(KeyboardInterrupt):
        seal_virtual(path, parts)
    assert_nothing_left(path.parent, parts)
    monkeypatch.undo()
    seal_virtual(path, parts)


@pytest.mark.parametrize("step", ["_append_part", "name_parts", "_write_checksum", "replaced"])
def test_a_killed_seal_leaves_no_store_and_can_be_repeated(tmp_path: Path, parts: list[Path], step: str) -> None:
    """Killed while it is filled, before the parts have their name, after it, and before the store has its own."""
    path = tmp_path / "night" / "attributions.h5"
    spoil = f"storage.write.{'filling' if step == '_append_part' else 'sealing'}.{step} = die"
    if step == "replaced":
        spoil = "storage.write.sealing.Path.chmod = lambda p, _: die() if p.suffix == '.partial' else None"
    code = f"""
import os, pathlib, signal
import storage.write.filling, storage.write.sealing, test_virtual
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
{spoil}
test_virtual.seal_virtual(pathlib.Path({str(path)!r}), [pathlib.Path(p) for p in {[str(p) for p in parts]!r}])
"""
    killed = python("-c", code, environment=clean_environment(path=[REPOSITORY, SETUP, Path(__file__).parent]))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not path.exists() and all(part.is_file() for part in parts)
    assert list(path.parent.glob("attributions.parts*")), "the kill came too early to be one"
    seal_virtual(path, parts)
    assert verify_store(path) == ()
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name, f"{path.name}.sha256", "attributions.parts"]


MEMORY = """
import re, sys
from pathlib import Path
from example_store import CLASS_NAMES, ATTRIBUTES
from storage import seal_store
parts = sorted(Path(sys.argv[1]).iterdir())[: int(sys.argv[3])]
seal_store(Path(sys.argv[2]), parts, class_names=CLASS_NAMES, attributes=ATTRIBUTES, layout=sys.argv[4])
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.fixture(scope="module")
def large_parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve parts of about 5 MB each."""
    folder = tmp_path_factory.mktemp("large")
    for first in range(0, 12 * 16, 16):
        arrays = example_arrays(first, first + 16, side=144)
        write_part(part_path(folder, first, first + 16), first, first + 16, arrays, digest=DIGEST, part_rows=16)
    return folder


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak since exec is told by Linux's /proc only")
@pytest.mark.parametrize("layout", ["single", "virtual"])
def test_memory_of_a_seal_does_not_grow_with_the_rows(large_parts: Path, tmp_path: Path, layout: str) -> None:
    def peak_mb(n_parts: int) -> float:
        store = tmp_path / f"{n_parts}" / "attributions.h5"
        environment = clean_environment(path=[REPOSITORY, SETUP])
        return int(printed_by_python(MEMORY, large_parts, store, n_parts, layout, environment=environment)) / 1024

    part_mb = next(large_parts.iterdir()).stat().st_size / 2**20
    few, many = peak_mb(6), peak_mb(12)
    assert many - few < 2 * part_mb, f"{few:.0f} MB for 6 parts of {part_mb:.0f} MB, {many:.0f} MB for 12"


# Parts that are not what they were.


def the_one(findings: tuple[Finding, ...], check: str, where: str) -> Finding:
    (finding,) = [finding for finding in findings if (finding.check, finding.where) == (check, where)]
    return finding


def test_a_missing_part_is_never_zeros(night: Path) -> None:
    (night / MIDDLE).unlink()
    with pytest.raises(StoreIncomplete, match=f"{MIDDLE}, rows 164-227, is missing; copy the store's folder"):
        open_store(night)
    finding = the_one(verify_store(night), "part", MIDDLE)
    assert finding.rows == tuple(range(164, 228)) and "is missing" in finding.detail
    assert {finding.check for finding in verify_store(night)} == {"part"}, "what is told once is not told again"
    with h5py.File(night / "attributions.h5") as file:
        assert np.isnan(file[IG][64:128]).all() and np.isfinite(file[IG][:64]).all(), "h5py alone meets no number"


def test_a_store_copied_without_its_parts_is_told_in_a_line(night: Path) -> None:
    shutil.rmtree(night / "attributions.parts")
    with pytest.raises(
        StoreIncomplete, match="rows-000100-000164.h5 and 2 more parts, rows 100-249, are missing"
    ) as told:
        open_store(night / "attributions.h5")
    assert "\n" not in str(told.value)
    assert len([finding for finding in verify_store(night) if finding.check == "part"]) == 3


def test_a_truncated_part_is_an_error(night: Path) -> None:
    (night / MIDDLE).chmod(0o644)
    os.truncate(night / MIDDLE, (night / MIDDLE).stat().st_size - 1)
    with pytest.raises(
        StoreCorrupt, match=f"{MIDDLE}, rows 164-227: expected .* bytes, got .*: it is truncated or was"
    ):
        open_store(night)
    findings = verify_store(night)
    assert the_one(findings, "part", MIDDLE).rows == the_one(findings, "sha256", MIDDLE).rows == tuple(range(164, 228))


def replace_part(night: Path, arrays: dict, digest: str = DIGEST, rows: tuple[int, int] = (164, 228)) -> None:
    """Put another part into the place of the one in the middle, of the same size."""
    n_bytes = (night / MIDDLE).stat().st_size
    (night / MIDDLE).unlink()
    write_part(night / MIDDLE, *rows, arrays, digest=digest, part_rows=PART_ROWS)
    surplus = n_bytes - (night / MIDDLE).stat().st_size
    assert surplus >= 0
    with (night / MIDDLE).open("ab") as stream:
        stream.write(bytes(surplus))


def test_a_part_of_another_configuration_is_an_error(night: Path) -> None:
    replace_part(night, example_arrays(164, 228), digest="other!")
    with open_store(night) as store:
        with pytest.raises(StoreCorrupt, match="rows 164-227: .*expected digest d1935c, got other!: it was replaced"):
            store.attributions([100, 170])
        np.testing.assert_array_equal(store.attributions([100, 240]), ARRAYS[IG][[0, 140]])
    findings = verify_store(night)
    assert "expected digest" in the_one(findings, "part", MIDDLE).detail
    assert the_one(findings, "sha256", MIDDLE).rows == tuple(range(164, 228))


def test_a_part_with_other_misclassified_rows_is_an_error(night: Path) -> None:
    replace_part(night, example_arrays(164, 228, n_wrong=5))
    with open_store(night) as store, pytest.raises(StoreCorrupt, match="rows 164-227: expected .* of 21 rows, got 5"):
        store.maps(..., target="predicted")
    assert {"part", "sha256"} <= {finding.check for finding in verify_store(night)}


@pytest.mark.parametrize("with_table", [True, False], ids=["sizes differ", "sizes agree"])
def test_parts_that_changed_places_are_an_error(night: Path, tmp_path: Path, with_table: bool) -> None:
    one, other = night / "attributions.parts/rows-000100-000164.h5", night / MIDDLE
    shutil.move(one, tmp_path / "aside")
    shutil.move(other, one)
    shutil.move(tmp_path / "aside", other)
    if not with_table:
        alter(
            night,
            lambda f: f[f"{PARTS.group}/bytes"].__setitem__(slice(0, 2), [p.stat().st_size for p in (one, other)]),
        )
        with (
            open_store(night) as store,
            pytest.raises(StoreCorrupt, match="rows 164-227: .*expected start 164, got 100"),
        ):
            store.image[200]
    else:
        with pytest.raises(StoreCorrupt, match="truncated or was replaced"):
            open_store(night)
    assert {"part", "sha256"} <= {finding.check for finding in verify_store(night)}


def test_a_flipped_byte_of_a_picture_is_an_error_with_its_rows(night: Path) -> None:
    flip_byte(night / MIDDLE, chunk_offset(night / MIDDLE, IG, 0))
    with h5py.File(night / MIDDLE) as file:
        n_rows = file[IG].chunks[0]
    with open_store(night) as store:
        with pytest.raises(StoreCorrupt, match=rf"{MIDDLE}: {IG}, rows 165, 170: the checksum"):
            store.attributions([101, 170, 165])
        np.testing.assert_array_equal(store.image[170], ARRAYS["image"][70])
        np.testing.assert_array_equal(store.attributions([101, 249]), ARRAYS[IG][[1, 149]])
    findings = verify_store(night)
    assert the_one(findings, "checksum", IG).rows == tuple(range(164, 164 + n_rows))
    assert the_one(findings, "sha256", MIDDLE).rows == tuple(range(164, 228))
    assert len(findings) == 2


def test_a_flipped_byte_that_no_reader_meets_is_found(night: Path) -> None:
    flip_byte(night / MIDDLE, chunk_offset(night / MIDDLE, "label", 0))
    with open_store(night) as store:
        np.testing.assert_array_equal(store.attributions(...), ARRAYS[IG])
    assert the_one(verify_store(night), "sha256", MIDDLE)


def test_a_part_that_is_lost_while_the_store_is_open_is_an_error(night: Path) -> None:
    with open_store(night) as store:
        (night / MIDDLE).unlink()
        with pytest.raises(StoreIncomplete, match=f"part {MIDDLE}, rows 164-227, is missing"):
            store.maps(...)
        np.testing.assert_array_equal(store.maps([100]), ARRAYS["grad_cam/map"][:1])


# A table that is not what it was.


def alter(night: Path, change: Callable[[h5py.File], object]) -> None:
    """Change the store's file by h5py, and have its checksum file vouch for it."""
    path = night / "attributions.h5"
    path.chmod(0o644)
    with h5py.File(path, "a") as file:
        change(file)
    sums = path.with_name("attributions.h5.sha256")
    _, *others = sums.read_text().splitlines(keepends=True)
    sums.write_text("".join([f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n", *others]))


def set_table(name: str, position: int, value: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file[f"{PARTS.group}/{name}"][position] = value

    return change


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda f: f.__delitem__(PARTS.group), StoreFormatError, "image is in other files, and the table parts of them"),
        (lambda f: f.__delitem__(f"{PARTS.group}/stop"), StoreFormatError, "the dataset parts/stop is missing"),
        (set_table("name", 1, b"../parts/rows-000164-000228.h5"), StoreFormatError, "expected a file FOLDER/rows-000164"),
        (set_table("name", 1, b"../rows-000164-000228.h5"), StoreFormatError, "expected a file FOLDER/rows-000164"),
        (set_table("name", 1, b"/rows-000164-000228.h5"), StoreFormatError, "expected a file FOLDER/rows-000164"),
        (set_table("stop", 1, 229), StoreFormatError, "expected a file FOLDER/rows-000164-000229.h5"),
        (lambda f: [set_table("start", 0, 101)(f), set_table("name", 0, b"a/rows-000101-000164.h5")(f)], StoreCorrupt,
         "expected parts of rows 100-249, got parts of the rows 101-249"),
        (lambda f: [set_table("start", 1, 165)(f), set_table("name", 1, b"a/rows-000165-000228.h5")(f)], StoreCorrupt,
         "part a/rows-000165-000228.h5, rows 165-227 does not follow part"),
    ],
    ids=["no table", "no column", "path", "parent", "absolute", "another range", "first row", "gap"],
)  # fmt: skip
def test_a_table_that_is_wrong_is_an_error(night: Path, change, error: type[StoreError], message: str) -> None:
    alter(night, change)
    with pytest.raises(error, match=message):
        open_store(night)
    assert verify_store(night)


def test_a_mapping_that_leads_elsewhere_is_found(night: Path) -> None:
    """Our reader does not go by it, but h5py's does."""

    def swap(file: h5py.File) -> None:
        old = file["image"]
        layout = h5py.VirtualLayout(old.shape, old.dtype)
        names = [name.decode() for name in file[f"{PARTS.group}/name"][:]]
        for first, name in ((0, names[1]), (64, names[0])):
            layout[first : first + 64] = h5py.VirtualSource(name, "image", shape=(64, 24, 24, 3))
        layout[128:] = h5py.VirtualSource(names[2], "image", shape=(22, 24, 24, 3))
        scales = [axis[0] for axis in old.dims]
        about = {name: old.attrs[name] for name in ("long_name", "units", "description")}
        texts = {name: old.attrs.get_id(name).dtype for name in about}
        labels = [axis.label for axis in old.dims]
        for axis, scale in zip(old.dims, scales, strict=True):
            axis.detach_scale(scale)
        del file["image"]
        new = file.create_virtual_dataset("image", layout)
        for name, text in about.items():
            new.attrs.create(name, text, dtype=texts[name])
        for axis, scale, label in zip(new.dims, scales, labels, strict=True):
            axis.attach_scale(scale)
            axis.label = label

    alter(night, swap)
    with open_store(night) as store:
        np.testing.assert_array_equal(store.image[...], ARRAYS["image"])
    findings = verify_store(night)
    assert {(finding.check, finding.where) for finding in findings} == {("schema", "image")}
    assert f"expected positions 0-63 from image in {MIDDLE.replace('164-000228', '100-000164')}" in findings[0].detail


@pytest.mark.parametrize("spoil", [lambda lines: lines[:-1], lambda lines: [*lines, lines[-1]]], ids=["short", "long"])
def test_a_checksum_file_without_the_parts_is_found(night: Path, spoil: Callable[[list[str]], list[str]]) -> None:
    sums = night / "attributions.h5.sha256"
    sums.write_text("".join(spoil(sums.read_text().splitlines(keepends=True))))
    (finding,) = verify_store(night)
    assert finding.check == "sha256" and "those of its 3 parts" in finding.detail


# By address.


@pytest.fixture
def server(root: Path) -> Iterator[object]:
    pytest.importorskip("fsspec")
    pytest.importorskip("aiohttp")
    with served(root) as server:
        yield server


def test_parts_are_read_by_ranges_beside_the_store(server) -> None:
    with open_store(f"{server.address}/night?signature=secret") as store:
        before = server.n_bytes
        np.testing.assert_array_equal(store.attributions([249, 100]), ARRAYS[IG][[149, 0]])
        assert server.n_bytes - before < store.n_bytes
        np.testing.assert_array_equal(store.maps(..., target="true"), ARRAYS["grad_cam/map"])
        assert store.n_bytes == sum(path.stat().st_size for path in (server.folder / "night").rglob("*.h5"))


def test_a_part_that_is_not_there_is_named_when_it_is_read(server, night: Path) -> None:
    (night / MIDDLE).unlink()
    server.folder = night
    with open_store(f"{server.address}/attributions.h5?signature=secret") as store:
        np.testing.assert_array_equal(store.maps([100]), ARRAYS["grad_cam/map"][:1])
        with pytest.raises(StoreIncomplete, match=f"attributions.h5: the part {MIDDLE}, rows 164-227, is miss") as told:
            store.maps([170])
    assert "secret" not in str(told.value)


def test_a_part_of_another_size_is_named_when_it_is_read(server, night: Path) -> None:
    shutil.copyfile(night / "attributions.parts/rows-000228-000250.h5", night.parent / "other")
    (night / MIDDLE).unlink()
    (night.parent / "other").rename(night / MIDDLE)
    server.folder = night
    with open_store(server.address) as store, pytest.raises(StoreCorrupt, match="rows 164-227: expected .* bytes, got"):
        store.image[[164]]
