"""Sealing: all rows once, bit by bit, readable by others, and never half a store under the final name."""

import hashlib
import shutil
import signal
import stat
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray

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
    seal,
    write_parts,
)
from places import REPOSITORY, SETUP
from storage import (
    Catalog,
    StoreCorrupt,
    StoreFormatError,
    StoreIncomplete,
    open_store,
    part_path,
    seal_store,
    write_part,
)
from storage.file.layout import FILTERS
from storage.file.schema import BY_PATH, VARIABLES
from storage.write import filling as fill_module
from storage.write import sealing as seal_module

STRANGE_NAMES = [
    pytest.param('it\'s "quoted"', id="quotes"),
    pytest.param("a/b\\c", id="slashes"),
    pytest.param("two\nlines\t", id="newline"),
    pytest.param("<script>alert(1)</script>", id="HTML"),
    pytest.param("猫 🐈 naïve", id="unicode"),
    pytest.param("x" * 299 + "é", id="300 characters"),
    pytest.param("", id="empty"),
    pytest.param(" padded ", id="spaces"),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "night" / "attributions.h5"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three parts, the last one short: rows 0-149."""
    return write_parts(tmp_path_factory.mktemp("written"), 0, 150)[0].parent


@pytest.fixture
def parts(written: Path, tmp_path: Path) -> list[Path]:
    """These parts as copies, in the order of their rows."""
    return sorted(shutil.copytree(written, tmp_path / "parts").iterdir())


def assert_nothing_left(path: Path, parts: list[Path]) -> None:
    assert list(path.parent.glob("*")) == []
    assert all(part.is_file() for part in parts)


@pytest.mark.parametrize(
    ("start", "stop", "n_wrong"),
    [
        pytest.param(0, 150, None, id="three parts, a short last one"),
        pytest.param(0, 128, None, id="two whole parts"),
        pytest.param(0, 5, None, id="one short part"),
        pytest.param(0, 1, 0, id="one row"),
        pytest.param(1000, 1150, None, id="rows A to B"),
        pytest.param(0, 150, 0, id="none misclassified"),
    ],
)
def test_sealed_is_what_went_into_the_parts(tmp_path: Path, path: Path, start: int, stop: int, n_wrong) -> None:
    parts = write_parts(tmp_path / "parts", start, stop, n_wrong=n_wrong)
    summary = seal(path, parts[::-1])
    assert_holds(path, joined_arrays(start, stop, n_wrong=n_wrong) | {"row": np.arange(start, stop)})
    assert (summary.rows, summary.bytes, summary.path) == (stop - start, path.stat().st_size, path)


def test_both_ways_of_copying_are_used(parts: list[Path], path: Path) -> None:
    seal(path, parts)
    with h5py.File(path) as file, h5py.File(parts[0]) as part:
        name = "integrated_gradients/attribution"
        assert file[name].chunks == part[name].chunks
        assert file[name].id.read_direct_chunk((0, 0, 0, 0)) == part[name].id.read_direct_chunk((0, 0, 0, 0))
        assert file["label"].chunks == (150,) and part["label"].chunks == (64,)
        for variable in VARIABLES:
            dataset = file[variable.path]
            assert (dataset.compression, dataset.shuffle, dataset.fletcher32) == ("gzip", True, True), variable.path


@pytest.mark.parametrize("layout", ["single", "virtual"])
def test_a_part_is_opened_for_its_sizes_and_for_its_rows_and_no_more(
    layout: str, parts: list[Path], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, opens = list[str](), h5py.File.__init__

    def note(self: h5py.File, name: object, *args: object, **options: object) -> None:
        opened.append(Path(str(name)).name)
        opens(self, name, *args, **options)

    monkeypatch.setattr(h5py.File, "__init__", note)
    seal_store(path, parts, class_names=CLASS_NAMES, attributes=ATTRIBUTES, layout=layout)
    assert {part.name: opened.count(part.name) for part in parts} == {part.name: 2 for part in parts}


def test_parts_with_odd_sizes(tmp_path: Path, path: Path) -> None:
    paths = [part_path(tmp_path, first, first + 90) for first in (0, 90)]
    for first, part in zip((0, 90), paths, strict=True):
        write_part(part, first, first + 90, example_arrays(first, first + 90), digest=DIGEST, part_rows=90)
    seal(path, paths)
    expected = [example_arrays(first, first + 90)["image"] for first in (0, 90)]
    assert_holds(path, {"image": np.concatenate(expected)})


@pytest.mark.parametrize("n_wrong", [None, 0], ids=["some misclassified", "none misclassified"])
@pytest.mark.parametrize("start", [0, 100])
def test_xarray_opens_every_group(tmp_path: Path, path: Path, n_wrong: int | None, start: int) -> None:
    seal(path, write_parts(tmp_path / "parts", start, start + 70, n_wrong=n_wrong))
    expected = joined_arrays(start, start + 70, n_wrong=n_wrong) | {"row": np.arange(start, start + 70)}
    groups = xarray.open_groups(path, engine="h5netcdf")
    assert set(groups) == {"/"} | {f"/{variable.group}" for variable in VARIABLES if variable.group}
    for name, array in expected.items():
        variable = BY_PATH[name]
        found = groups[f"/{variable.group}"][name.rpartition("/")[2]]
        assert found.dims == variable.dimensions
        assert (found.attrs["units"], found.attrs["long_name"]) == (variable.units, variable.long_name)
        np.testing.assert_array_equal(found.values, array, err_msg=name)
    axes = {"row", "predicted_row", "y", "x", "channel", "class", "cam_y", "cam_x"}
    assert {name: set(group.coords) for name, group in groups.items()} == dict.fromkeys(groups, set()) | {"/": axes}
    np.testing.assert_array_equal(groups["/"].coords["predicted_row"], expected["predicted_row"])
    np.testing.assert_array_equal(groups["/"].coords["x"], np.arange(24))
    assert groups["/"].class_name.values.tolist() == CLASS_NAMES


def test_every_axis_has_its_scale_and_label(parts: list[Path], path: Path) -> None:
    seal(path, parts)
    with h5py.File(path) as file:
        for variable in VARIABLES:
            if not variable.is_coordinate:
                axes = file[variable.path].dims
                assert tuple(axis.label for axis in axes) == variable.dimensions
                assert tuple(axis[0].name.lstrip("/") for axis in axes) == variable.scales


@pytest.mark.parametrize("name", STRANGE_NAMES)
def test_strange_texts_survive(parts: list[Path], path: Path, name: str) -> None:
    attributes = ATTRIBUTES | {"model_name": name, "configuration": {"name": name}}
    seal_store(path, parts, class_names=["cat", name, "dog"], attributes=attributes)
    with open_store(path) as store:
        assert store.class_names == ["cat", name, "dog"]
        assert store.attributes["model_name"] == name
        assert store.attributes["configuration"] == {"name": name}
    with h5py.File(path) as file:
        assert file["class_name"].dtype.kind == "S"
        assert file["class_name"][1].decode() == name


def test_no_text_is_of_variable_length(parts: list[Path], path: Path) -> None:
    """The heap of variable-length texts has no checksum; only HDF5's own dimension-scale attributes use it."""
    seal(path, parts)
    ours: list[str] = []

    def visit(name: str, node: h5py.Group | h5py.Dataset) -> None:
        for key in node.attrs:
            if not key.startswith("DIMENSION_") and node.attrs.get_id(key).dtype.kind == "O":
                ours.append(f"{name}:{key}")

    with h5py.File(path) as file:
        visit("/", file)
        file.visititems(visit)
    assert ours == []


def test_checksum_file_and_mode(parts: list[Path], path: Path) -> None:
    summary = seal(path, parts)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == summary.sha256
    printed_by("sha256sum", "-c", "--strict", "attributions.h5.sha256", cwd=path.parent)
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert sorted(file.name for file in path.parent.iterdir()) == ["attributions.h5", "attributions.h5.sha256"]


@pytest.mark.parametrize(
    ("chosen", "expected_rows", "message"),
    [
        pytest.param([0, 2], None, "rows 64-127 are missing", id="a hole"),
        pytest.param([0, 1], (0, 150), "rows 128-149 are missing", id="the last one missing"),
        pytest.param([1, 2], (0, 150), "rows 0-63 are missing", id="the first one missing"),
        pytest.param([0, 1, 1, 2], None, "rows 64-127 are there more than once", id="twice"),
        pytest.param([0, 1, 2], (0, 128), "rows 128-149 are not among them", id="one too many"),
        pytest.param([], None, "got none", id="no parts"),
    ],
)
def test_missing_and_repeated_rows_are_named(parts, path: Path, chosen, expected_rows, message: str) -> None:
    given = [parts[index] for index in chosen]
    with pytest.raises(StoreIncomplete, match=message):
        seal_store(path, given, class_names=CLASS_NAMES, attributes=ATTRIBUTES, expected_rows=expected_rows)
    assert_nothing_left(path, parts)


def test_overlapping_parts_are_named(tmp_path: Path, parts: list[Path], path: Path) -> None:
    extra = part_path(tmp_path, 120, 140)
    write_part(extra, 120, 140, example_arrays(120, 140), digest=DIGEST, part_rows=PART_ROWS)
    with pytest.raises(StoreIncomplete, match="rows 120-139 are there more than once"):
        seal(path, [*parts, extra])


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        pytest.param({}, {"digest": "other", "part_rows": PART_ROWS}, "expected digest d1935c", id="digest"),
        pytest.param({}, {"digest": DIGEST, "part_rows": 32}, "expected part_rows 64", id="part_rows"),
        pytest.param({"side": 8}, {"digest": DIGEST, "part_rows": PART_ROWS}, "expected y 24", id="image size"),
    ],
)
def test_parts_that_do_not_belong_together(tmp_path: Path, parts, path: Path, arrays, options, message) -> None:
    write_part(parts[2], 128, 150, example_arrays(128, 150, **arrays), **options)
    with pytest.raises(StoreFormatError, match=message):
        seal(path, parts)
    assert_nothing_left(path, parts)


def test_a_short_part_in_the_middle_is_refused(tmp_path: Path, path: Path) -> None:
    parts = write_parts(tmp_path, 0, 50) + write_parts(tmp_path, 50, 114)
    with pytest.raises(StoreFormatError, match="expected 64 rows in every part but the last, got 50"):
        seal(path, parts)


@pytest.mark.parametrize(
    "name",
    ["integrated_gradients/attribution", "label", "integrated_gradients/predicted/attribution"],
    ids=["copied raw", "rewritten", "ragged"],
)
def test_a_part_damaged_after_its_check_is_never_sealed(parts: list[Path], path: Path, name: str) -> None:
    with h5py.File(parts[1]) as file:
        row = file["predicted_row"][0] if "predicted" in name else 64
    flip_byte(parts[1], chunk_offset(parts[1], name, 0))
    with pytest.raises(StoreCorrupt, match=f"rows-000064-000128.h5: {name}, rows {row}[-,]"):
        seal(path, parts)
    assert_nothing_left(path, parts)


def test_a_chunk_lost_after_its_check_is_never_sealed_as_zeros(parts: list[Path], path: Path) -> None:
    with h5py.File(parts[1], "a") as file:
        like = file["label"]
        del file["label"]
        file.create_dataset("label", like.shape, like.dtype, chunks=like.chunks, maxshape=(None,), **FILTERS)
    with pytest.raises(StoreCorrupt, match="rows-000064-000128.h5: label: expected 1 chunks, got 0"):
        seal(path, parts)
    assert_nothing_left(path, parts)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        pytest.param({"modle": "x"}, ValueError, r"unknown: \['modle'\]", id="misspelt"),
        pytest.param({"model_name": 3}, ValueError, "model_name: expected a text, got 3", id="number"),
        pytest.param({"significant_bits": "24"}, ValueError, "significant_bits: expected an integer", id="text"),
        pytest.param({"model_name": "a\0"}, ValueError, "NUL", id="NUL"),
        pytest.param({"configuration": {"x": {1}}}, TypeError, "not JSON serializable", id="no JSON"),
    ],
)
def test_bad_attributes_are_refused(parts, path: Path, changed, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        seal(path, parts, **changed)
    assert_nothing_left(path, parts)


def test_class_names_must_match_the_model(parts: list[Path], path: Path) -> None:
    with pytest.raises(ValueError, match="expected 3 class names, got 2"):
        seal_store(path, parts, class_names=["a", "b"], attributes=ATTRIBUTES)


@pytest.mark.parametrize("step", ["_append_part", "put_chunk", "sync", "_write_checksum", "hashlib"])
def test_a_failure_in_the_middle_leaves_only_the_parts(parts: list[Path], path: Path, monkeypatch, step: str) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    if step == "hashlib":
        monkeypatch.setattr(seal_module.hashlib, "file_digest", killed)
    else:
        module = fill_module if hasattr(fill_module, step) else seal_module
        monkeypatch.setattr(module, step, killed)
    with pytest.raises(KeyboardInterrupt):
        seal(path, parts)
    assert_nothing_left(path, parts)
    monkeypatch.undo()
    seal(path, parts)


def test_a_failed_renaming_leaves_no_checksum_file(parts: list[Path], path: Path, monkeypatch) -> None:
    replace = seal_module.Path.chmod

    def refuse(self: Path, mode: int) -> None:
        if self.name.endswith(".partial"):
            raise OSError(30, "Read-only file system")
        replace(self, mode)

    monkeypatch.setattr(seal_module.Path, "chmod", refuse)
    with pytest.raises(OSError, match="Read-only"):
        seal(path, parts)
    assert_nothing_left(path, parts)


def test_complete_is_set_last_and_named_after_that(parts: list[Path], path: Path, monkeypatch) -> None:
    seen: list[tuple[str, int, bool]] = []
    put_chunk, checksum = fill_module.put_chunk, seal_module._write_checksum

    def watch_chunk(target: h5py.Dataset, first: int, packed: bytes, filter_mask: int) -> None:
        put_chunk(target, first, packed, filter_mask)
        seen.append(("fill", int(target.file.attrs["complete"]), path.exists()))

    def watch_checksum(checksum_file: Path, partial: Path, *others: object) -> str:
        with h5py.File(partial) as file:
            seen.append(("checksum", int(file.attrs["complete"]), path.exists()))
        return checksum(checksum_file, partial, *others)

    monkeypatch.setattr(fill_module, "put_chunk", watch_chunk)
    monkeypatch.setattr(seal_module, "_write_checksum", watch_checksum)
    seal(path, parts)
    assert set(seen[:-1]) == {("fill", 0, False)}
    assert seen[-1] == ("checksum", 1, False)


@pytest.mark.parametrize("step", ["_append_part", "sync", "_write_checksum"])
def test_a_killed_seal_leaves_no_store_and_can_be_repeated(parts: list[Path], path: Path, step: str) -> None:
    code = f"""
import os, pathlib, signal
import storage.write.filling, storage.write.sealing, example_store
module = storage.write.filling if hasattr(storage.write.filling, "{step}") else storage.write.sealing
module.{step} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
example_store.seal(pathlib.Path({str(path)!r}), {[str(part) for part in parts]!r})
"""
    killed = python("-c", code, environment=clean_environment(path=[REPOSITORY, SETUP]))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not path.exists()
    if step != "_write_checksum":
        with pytest.raises(
            StoreIncomplete, match="the file was not closed: it is still being written, or its writer was"
        ):
            open_store(path.with_name("attributions.h5.partial"))
    seal(path, parts)
    assert_holds(path, joined_arrays(0, 150))


@pytest.mark.parametrize("limit", [1_000, 300_000, 1_000_000])
def test_a_full_disk_is_an_oserror_and_leaves_only_the_parts(parts: list[Path], path: Path, limit: int) -> None:
    """In a process of its own: HDF5 itself would end it with a segmentation fault."""
    code = f"""
import pathlib, resource, signal
import example_store as example
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    example.seal(pathlib.Path({str(path)!r}), {[str(part) for part in parts]!r})
except OSError as error:
    print("seal:", error)
resource.setrlimit(resource.RLIMIT_FSIZE, (min(100_000, {limit}), {limit}))
try:
    example.write_parts(pathlib.Path({str(path.parent)!r}), 0, 64)
except OSError as error:
    print("part:", error)
"""
    printed = printed_by_python(code, environment=clean_environment(path=[REPOSITORY, SETUP]))
    assert printed.splitlines() == ["seal: [Errno 27] File too large", "part: [Errno 27] File too large"]
    assert_nothing_left(path, parts)


def test_a_leftover_of_a_killed_seal_is_replaced(parts: list[Path], path: Path) -> None:
    path.parent.mkdir()
    leftover = path.with_name("attributions.h5.partial")
    leftover.write_bytes(b"half a store")
    leftover.chmod(0o444)
    seal(path, parts)
    assert not leftover.exists()


def test_a_sealed_store_is_never_replaced(parts: list[Path], path: Path) -> None:
    seal(path, parts)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="is sealed already"):
        seal(path, parts)
    assert path.read_bytes() == before
    printed_by("sha256sum", "-c", "--status", "attributions.h5.sha256", cwd=path.parent)


def test_sealing_twice_gives_the_same_arrays(parts: list[Path], path: Path, tmp_path: Path) -> None:
    seal(path, parts)
    shutil.rmtree(path.parent)
    seal(path, parts)
    assert_holds(path, joined_arrays(0, 150))
    assert Catalog(tmp_path).list_nights() == []
