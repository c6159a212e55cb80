"""Verification: a sound store has no findings, and whatever is done to one is found, by its own check and its rows.

What is altered with h5py here gets a fresh checksum file, so that the check under test has to find it; damage of the bytes
is tried with the old checksum file and without any.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from command import python
from example_store import (
    ATTRIBUTES,
    CLASS_NAMES,
    DIGEST,
    PART_ROWS,
    chunk_offset,
    example_arrays,
    flip_byte,
    seal,
    write_parts,
)
from places import DATA, SETUP
from storage import (
    SCHEMA_VERSION,
    Finding,
    StoreNotFound,
    open_store,
    part_path,
    seal_store,
    verify_store,
    write_part,
)
from storage.file.layout import FILTERS
from storage.file.rounding import round_significand
from storage.file.schema import BY_PATH, COLUMNS, SHARED_PREDICTED_ROW_SINCE, STORED, VARIABLES

EARLIER = {version: DATA / f"schema-{version}.h5" for version in range(1, SCHEMA_VERSION)}
FIRST, STOP = 100, 250
GAP_TOLERANCE, ERROR_TOLERANCE = 20.0, 0.6
TOLERANCES = {"gap_tolerance": GAP_TOLERANCE, "error_tolerance": ERROR_TOLERANCE}
IG, PREDICTED = "integrated_gradients", "integrated_gradients/predicted"


def judged(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The example with `converged` as the tolerances have it."""
    for group in (IG, PREDICTED):
        difference = np.abs(arrays[f"{group}/score"].astype(float) - arrays[f"{group}/score_baseline"])
        within = np.abs(arrays[f"{group}/gap"]) <= GAP_TOLERANCE * np.maximum(1, difference)
        within &= arrays[f"{group}/quadrature_error"] <= ERROR_TOLERANCE
        arrays[f"{group}/converged"] = within.astype(np.uint8)
    return arrays


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the rows 100-249 in parts of 64; tests work on copies."""
    folder = tmp_path_factory.mktemp("verify")
    parts = []
    for start in range(FIRST, STOP, PART_ROWS):
        stop = min(STOP, start + PART_ROWS)
        parts.append(part_path(folder / "parts", start, stop))
        write_part(parts[-1], start, stop, judged(example_arrays(start, stop)), digest=DIGEST, part_rows=PART_ROWS)
    attributes = ATTRIBUTES | {"configuration": {"integrated_gradients": TOLERANCES}}
    seal_store(folder / "attributions.h5", parts, class_names=CLASS_NAMES, attributes=attributes)
    return folder / "attributions.h5"


@pytest.fixture
def store(sealed: Path, tmp_path: Path) -> Path:
    for path in (sealed, checksum_file(sealed)):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path / sealed.name


def checksum_file(store: Path) -> Path:
    return store.with_name(f"{store.name}.sha256")


def write_checksum(store: Path) -> None:
    checksum_file(store).write_text(f"{hashlib.sha256(store.read_bytes()).hexdigest()}  {store.name}\n")


def alter(store: Path, change: Callable[[h5py.File], Any]) -> tuple[Finding, ...]:
    """The findings after a change with h5py that has all checksums right."""
    with h5py.File(store, "a") as file:
        change(file)
    write_checksum(store)
    return verify_store(store)


def told(findings: tuple[Finding, ...]) -> set[tuple[str, str]]:
    return {(finding.check, finding.where) for finding in findings}


def the_one(findings: tuple[Finding, ...], check: str, where: str) -> Finding:
    (finding,) = [finding for finding in findings if (finding.check, finding.where) == (check, where)]
    return finding


# What is right.


def test_a_sound_store_has_no_findings(store: Path) -> None:
    assert verify_store(store) == ()
    assert verify_store(store.parent) == ()


@pytest.mark.parametrize("n_wrong", [0, 3], ids=["none misclassified", "all misclassified"])
def test_stores_at_the_edges_are_sound(tmp_path: Path, n_wrong: int) -> None:
    seal(tmp_path / "attributions.h5", write_parts(tmp_path / "parts", 0, 3, n_wrong=n_wrong))
    assert verify_store(tmp_path) == ()


def test_a_rounded_store_is_sound_and_one_that_only_says_so_is_not(tmp_path: Path) -> None:
    arrays = example_arrays(0, 12, side=8)
    for group in (IG, PREDICTED):
        arrays[f"{group}/attribution"] = values = round_significand(arrays[f"{group}/attribution"], 12)
        difference = arrays[f"{group}/score"].astype(float) - arrays[f"{group}/score_baseline"]
        gap = values.sum(axis=(1, 2, 3), dtype=float) - difference
        arrays[f"{group}/gap"] = gap.astype(np.float32)
    part = part_path(tmp_path, 0, 12)
    write_part(part, 0, 12, arrays, digest=DIGEST, part_rows=PART_ROWS)
    for bits, expected in ((13, set()), (14, set()), (12, {("values", f"{g}/attribution") for g in (IG, PREDICTED)})):
        store = tmp_path / f"{bits}.h5"
        seal(store, [part], significant_bits=bits)
        assert told(verify_store(store)) == expected


def test_progress_comes_to_its_end(store: Path) -> None:
    seen: dict[str, list[tuple[int, int]]] = {}
    verify_store(store, lambda what, done, total: seen.setdefault(what, []).append((done, total)))
    assert list(seen) == ["sha256", "datasets"]
    for steps in seen.values():
        assert [done for done, _ in steps] == sorted(done for done, _ in steps)
        assert len({total for _, total in steps}) == 1
        assert steps[-1][0] == steps[-1][1] > 0


@pytest.mark.parametrize("schema", EARLIER)
def test_a_store_of_an_earlier_schema_opens_reads_and_verifies(schema: int) -> None:
    arrays = example_arrays(0, 12, side=8)
    assert verify_store(EARLIER[schema]) == ()
    with open_store(EARLIER[schema]) as store:
        about = store.attributes
        assert (about["schema"], about["significant_bits"]) == (schema, 24)
        assert (about["batch_size"], about["precision_error"]) == ((64, {}) if schema >= 3 else (None, None))
        assert (about["precision"], about["contract"], store.contract) == ("float32", {}, {})
        assert about["device"] == ("CPU" if schema >= 6 else None)
        assert about["worth"] == {}
        assert store.has_grad_cam
        assert store.class_names == CLASS_NAMES
        wrong = arrays.pop("predicted_row")
        for path, expected in arrays.items():
            if BY_PATH[path].since <= schema:
                np.testing.assert_array_equal(store.column(path), expected, err_msg=path, strict=True)
        shared = schema >= SHARED_PREDICTED_ROW_SINCE
        for group in (IG, "grad_cam"):
            np.testing.assert_array_equal(store.column("predicted_row" if shared else f"{group}/predicted/row"), wrong)
        np.testing.assert_array_equal(
            store.attributions(wrong, "predicted"), arrays[f"{PREDICTED}/attribution"], strict=True
        )
        newer = [column.name for column in COLUMNS if column.name in STORED and STORED[column.name].since > schema]
        newer.append("likeness")  # of a table that no earlier store has
        table = store.table()
        assert list(table) == [column.name for column in COLUMNS]
        assert table[newer].isna().all(axis=None) and table.drop(columns=newer).notna().all(axis=None)
        np.testing.assert_array_equal(store.attributions(...), arrays[f"{IG}/attribution"])


# Numbers that were altered with the checksums right.


def set_value(path: str, position: int, value: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        before = file[path][position]
        file[path][position] = value(before) if callable(value) else value

    return change


def swap(path: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file[path][:2] = file[path][:2][::-1]

    return change


WRONG = example_arrays(FIRST, FIRST + PART_ROWS)["predicted_row"]
CONVERGED = int(np.flatnonzero(judged(example_arrays(FIRST, FIRST + PART_ROWS))[f"{IG}/converged"])[0])
UNCONVERGED = int(np.flatnonzero(judged(example_arrays(FIRST, FIRST + PART_ROWS))[f"{IG}/converged"] == 0)[0])
RIGHT = next(row for row in range(FIRST, STOP) if row not in WRONG) - FIRST


@pytest.mark.parametrize(
    ("change", "expected", "row"),
    [
        pytest.param(set_value(f"{IG}/gap", 7, lambda v: v + 0.01), {("completeness", f"{IG}/gap")}, 107, id="gap"),
        pytest.param(
            set_value(f"{PREDICTED}/gap", 3, lambda v: v - 0.01),
            {("completeness", f"{PREDICTED}/gap")},
            WRONG[3],
            id="predicted gap",
        ),
        pytest.param(
            set_value(f"{IG}/attribution", 7, lambda v: v * 1.01), {("completeness", f"{IG}/gap")}, 107, id="scaled"
        ),
        pytest.param(
            set_value(f"{IG}/score", 7, lambda v: v + 0.01), {("completeness", f"{IG}/gap")}, 107, id="score"
        ),
        pytest.param(
            set_value("prediction", RIGHT, lambda v: (v + 1) % 3),
            {("values", "prediction"), ("rows", "predicted_row"), ("rows", "predicted_row")},
            FIRST + RIGHT,
            id="prediction",
        ),
        pytest.param(
            set_value("probability", 7, lambda v: np.roll(v, 1)), {("values", "prediction")}, 107, id="probability"
        ),
        pytest.param(
            set_value("label", WRONG[0] - FIRST, 7), {("values", "label")}, WRONG[0], id="no class"
        ),
        pytest.param(
            set_value("grad_cam/cam_max", 7, lambda v: v + 1), {("values", "grad_cam/cam_max")}, 107, id="cam_max"
        ),
        pytest.param(
            set_value("grad_cam/predicted/cam_max", 3, lambda v: v + 1),
            {("values", "grad_cam/predicted/cam_max")},
            WRONG[3],
            id="predicted cam_max",
        ),
        pytest.param(
            set_value("grad_cam/map", 7, lambda v: np.where(v == v.min(), -1e-6, v)),
            {("values", "grad_cam/map")},
            107,
            id="negative map",
        ),
        pytest.param(set_value("row", 7, 999), {("rows", "row")}, 107, id="row"),
        pytest.param(set_value("row", 0, 999), {("rows", "row")}, 100, id="first row"),
        pytest.param(set_value("y", 3, 9), {("rows", "y")}, None, id="coordinate"),
        pytest.param(
            set_value("predicted_row", 0, FIRST + RIGHT), {("rows", "predicted_row")}, WRONG[0], id="other row"
        ),
        pytest.param(swap("predicted_row"), {("rows", "predicted_row")}, WRONG[0], id="unordered"),
        pytest.param(
            set_value("probability", 7, np.nan), {("values", "probability")}, 107, id="not a number"
        ),
        pytest.param(
            set_value(f"{IG}/attribution", 7, np.inf), {("values", f"{IG}/attribution")}, 107, id="infinite"
        ),
        pytest.param(set_value(f"{IG}/converged", 7, 2), {("values", f"{IG}/converged")}, 107, id="no flag"),
        pytest.param(
            set_value(f"{IG}/converged", UNCONVERGED, 1), {("converged", f"{IG}/converged")}, FIRST + UNCONVERGED,
            id="claims to converge",
        ),
        pytest.param(
            set_value(f"{IG}/converged", CONVERGED, 0), {("converged", f"{IG}/converged")}, FIRST + CONVERGED,
            id="claims not to converge",
        ),
        pytest.param(
            set_value(f"{IG}/quadrature_error", CONVERGED, 0.7), {("converged", f"{IG}/converged")}, FIRST + CONVERGED,
            id="error beyond tolerance",
        ),
    ],
)  # fmt: skip
def test_altered_numbers_are_found_by_their_own_check(store: Path, change, expected: set, row: int | None) -> None:
    findings = alter(store, change)
    assert told(findings) == expected
    for finding in findings:
        assert row is None or row in finding.rows


@pytest.mark.parametrize("shift", [1e-3, 1e-5])
def test_a_gap_is_held_to_float32_rounding(store: Path, shift: float) -> None:
    """sum |attribution| is about 1,400 here and so 1.7e-4 is rounding; no row but the shifted one is near it."""
    findings = alter(store, set_value(f"{IG}/gap", 7, lambda value: value + np.float32(shift)))
    assert told(findings) == ({("completeness", f"{IG}/gap")} if shift > 2e-4 else set())


def test_values_at_a_tolerance_may_be_judged_either_way(store: Path) -> None:
    """They were judged in float64 and stored as float32."""
    for tolerance in (np.float32(0.3), np.nextafter(np.float32(0.3), np.float32(1))):

        def change(file: h5py.File, tolerance: np.float32 = tolerance) -> None:
            file[f"{IG}/quadrature_error"][CONVERGED] = tolerance
            section = {"integrated_gradients": {"gap_tolerance": 1e9, "error_tolerance": 0.3}}
            file.attrs["configuration"] = np.bytes_(json.dumps(section))
            for group in (IG, PREDICTED):
                flags = file[f"{group}/quadrature_error"][:] <= np.float32(0.3)
                file[f"{group}/converged"][:] = flags
            file[f"{IG}/converged"][CONVERGED] = 1

        assert alter(store, change) == ()


def test_all_rows_of_all_checks_are_told_at_once(store: Path) -> None:
    def change(file: h5py.File) -> None:
        file[f"{IG}/gap"][[3, 9]] += 1
        file["grad_cam/cam_max"][50] = 99
        file["label"][149] = -1
        del file["grad_cam"].attrs["description"]

    findings = alter(store, change)
    assert the_one(findings, "completeness", f"{IG}/gap").rows == (103, 109)
    assert the_one(findings, "values", "grad_cam/cam_max").rows == (150,)
    assert the_one(findings, "values", "label").rows == (249,)
    assert the_one(findings, "schema", "grad_cam")


# A structure that is not the schema's.


def rewrite(path: str, **options: Any) -> Callable[[h5py.File], None]:
    """The dataset written anew with the same values, texts and scales but other options."""

    def change(file: h5py.File) -> None:
        old, variable = file[path], BY_PATH[path]
        about, chunks, values = dict(old.attrs), old.chunks, old[...]
        del file[path]
        given = {"chunks": chunks, **FILTERS, "maxshape": (None, *values.shape[1:]), "data": values} | options
        new = file.create_dataset(path, **given)
        for name in ("long_name", "units", "description"):
            new.attrs[name] = about[name]
        for axis, dimension, scale in zip(new.dims, variable.dimensions, variable.scales, strict=True):
            axis.attach_scale(file[scale])
            axis.label = dimension

    return change


def attach_another(file: h5py.File) -> None:
    file[f"{IG}/attribution"].dims[1].detach_scale(file["y"])
    file[f"{IG}/attribution"].dims[1].attach_scale(file["x"])


def relabel(file: h5py.File) -> None:
    file[f"{IG}/gap"].dims[0].label = "line"


def set_attribute(path: str, name: str, value: Any) -> Callable[[h5py.File], None]:
    return lambda file: file[path].attrs.__setitem__(name, value)


def lose(path: str, attribute: str | None = None) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        if attribute is None:
            del file[path]
        else:
            del file[path].attrs[attribute]

    return change


@pytest.mark.parametrize(
    ("change", "where", "detail"),
    [
        pytest.param(lambda f: f.create_dataset("extra", data=[1]), "extra", "a dataset that the", id="extra dataset"),
        pytest.param(
            lambda f: f.create_dataset(f"{PREDICTED}/extra", data=[1]), f"{PREDICTED}/extra", "a dataset", id="nested"
        ),
        pytest.param(lambda f: f.create_group("extra"), "extra", "a group that the schema", id="extra group"),
        pytest.param(
            lambda f: f.__setitem__("elsewhere", h5py.ExternalLink("other.h5", "/")), "elsewhere", "a link", id="link"
        ),
        pytest.param(
            set_attribute("/", "note", 3),
            "note",
            f"that schema {SCHEMA_VERSION} does not have",
            id="extra root attribute",
        ),
        pytest.param(set_attribute("label", "note", 3), "label", "note is not in the schema", id="extra attribute"),
        pytest.param(lose("/", "model_sha256"), "model_sha256", "is missing", id="root attribute missing"),
        pytest.param(lose("/", "significant_bits"), "significant_bits", "is missing", id="bits missing"),
        pytest.param(lose("label", "units"), "label", "units to be 'class number', got None", id="units missing"),
        pytest.param(lose(f"{IG}/gap"), f"{IG}/gap", "the dataset is missing", id="dataset missing"),
        pytest.param(
            set_attribute("label", "description", np.bytes_("x")), "label", "got 'x'", id="another description"
        ),
        pytest.param(
            set_attribute("label", "units", "class number"), "label", "units to be", id="text of variable length"
        ),
        pytest.param(set_attribute("/", "run_id", 3), "run_id", "to be text, got 3", id="number for text"),
        pytest.param(set_attribute("/", "schema", np.bytes_("2")), None, "not ours", id="text for number"),
        pytest.param(set_attribute("/", "configuration", np.bytes_("{")), "configuration", "no JSON", id="no JSON"),
        pytest.param(set_attribute("/", "run_id", "x"), "run_id", "variable length", id="root text"),
        pytest.param(rewrite(f"{IG}/gap", dtype="float64"), f"{IG}/gap", "float32, got float64", id="wrong dtype"),
        pytest.param(
            rewrite(f"{IG}/gap", compression=None, compression_opts=None), f"{IG}/gap", "compression = gzip", id="gzip"
        ),
        pytest.param(rewrite(f"{IG}/gap", fletcher32=False), f"{IG}/gap", "fletcher32 = True", id="no Fletcher-32"),
        pytest.param(
            rewrite(f"{IG}/attribution", chunks=(64, 8, 24, 3)), f"{IG}/attribution", "whole rows", id="chunks"
        ),
        pytest.param(lambda f: f["label"].resize(149, axis=0), "label", r"axes \(row 150\), got", id="a row short"),
        pytest.param(
            lambda f: f[f"{IG}/gap"].dims[0].detach_scale(f["row"]), f"{IG}/gap", "scales /row, got none", id="detached"
        ),
        pytest.param(attach_another, f"{IG}/attribution", "/row, /y, /x, /channel, got /row, /x, /x", id="other scale"),
        pytest.param(relabel, f"{IG}/gap", "labelled row, got", id="other label"),
    ],
)
def test_what_the_schema_does_not_say_is_found(store: Path, change, where: str | None, detail: str) -> None:
    findings = alter(store, change)
    expected = {("store", "the file")} if where is None else {("schema", where)}
    assert told(findings) == expected
    assert re.search(detail, findings[0].detail)


def test_a_coordinate_that_is_no_scale_is_found(store: Path) -> None:
    def change(file: h5py.File) -> None:
        del file["cam_x"].attrs["CLASS"]

    assert ("schema", "cam_x") in told(alter(store, change))


def test_the_rest_of_a_store_is_checked_where_datasets_are_missing(store: Path) -> None:
    def change(file: h5py.File) -> None:
        for path in ("prediction", f"{IG}/score", "predicted_row"):
            del file[path]
        file[f"{PREDICTED}/gap"][0] += 1

    findings = alter(store, change)
    missing = {("schema", path) for path in ("prediction", f"{IG}/score", "predicted_row")}
    assert missing | {("completeness", f"{PREDICTED}/gap")} <= told(findings)


# Chunks that are not as they were written.


@pytest.mark.parametrize("with_checksum", [True, False], ids=["sha256", "no sha256"])
@pytest.mark.parametrize("path", [variable.path for variable in VARIABLES])
def test_a_flipped_byte_in_any_dataset_is_found_and_named(store: Path, path: str, with_checksum: bool) -> None:
    flip_byte(store, chunk_offset(store, path, 0))
    if not with_checksum:
        checksum_file(store).unlink()
    findings = verify_store(store)
    finding = the_one(findings, "checksum", path)
    assert ("sha256", "the file") in told(findings)
    variable = BY_PATH[path]
    if variable.is_coordinate or not variable.is_per_row:
        assert "positions 0 to" in finding.detail
    elif variable.is_ragged:
        assert finding.rows[0] == WRONG[0]
    else:
        assert finding.rows[0] == FIRST
        assert len(finding.rows) == (64 if path == f"{IG}/attribution" else 150)


def test_every_damaged_chunk_is_named(store: Path) -> None:
    path = f"{IG}/attribution"
    for position in (0, 128):
        flip_byte(store, chunk_offset(store, path, position))
    flip_byte(store, chunk_offset(store, "grad_cam/map", 0))
    findings = verify_store(store)
    assert told(findings) == {("sha256", "the file"), ("checksum", path), ("checksum", "grad_cam/map")}
    assert the_one(findings, "checksum", path).rows == (*range(100, 164), *range(228, 250))


def test_a_block_of_zeros_is_found(store: Path) -> None:
    """Fletcher-32 of zeros is zero, but no chunk of zeros is one that gzip made."""
    path = f"{IG}/attribution"
    with h5py.File(store) as file:
        chunk = file[path].id.get_chunk_info(1)
    content = bytearray(store.read_bytes())
    for start, stop in ((0, chunk.size), (100, 612)):
        zeroed = bytearray(content)
        zeroed[chunk.byte_offset + start : chunk.byte_offset + stop] = bytes(stop - start)
        store.write_bytes(zeroed)
        write_checksum(store)
        findings = verify_store(store)
        assert told(findings) == {("checksum", path)}
        assert findings[0].rows == tuple(range(164, 228))


def test_swapped_chunks_are_found_although_their_checksums_are_right(store: Path) -> None:
    path = f"{IG}/attribution"
    with h5py.File(store, "a") as file:
        dataset = file[path].id
        first, second = (dataset.read_direct_chunk((row, 0, 0, 0)) for row in (0, 64))
        dataset.write_direct_chunk((0, 0, 0, 0), second[1], second[0])
        dataset.write_direct_chunk((64, 0, 0, 0), first[1], first[0])
    assert told(verify_store(store)) == {("sha256", "the file"), ("completeness", f"{IG}/gap")}
    write_checksum(store)
    (finding,) = verify_store(store)
    assert finding.check == "completeness" and set(finding.rows) == set(range(100, 228))


@pytest.mark.parametrize("value", [np.int64(1), h5py.Empty("int64")], ids=["scalar", "no space"])
@pytest.mark.parametrize("name", ["row", "label"])
def test_a_dataset_without_axes_is_found(name: str, value: object, store: Path) -> None:
    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, data=value)

    details = [finding.detail for finding in alter(store, change) if (finding.check, finding.where) == ("schema", name)]
    shape = "()" if isinstance(value, np.int64) else "None"
    assert any("expected the axes (row" in detail and detail.endswith(f"got the shape {shape}") for detail in details)


def test_a_chunk_that_was_never_written_is_found(store: Path) -> None:
    findings = alter(store, rewrite(f"{IG}/quadrature_error", data=None, shape=(150,), dtype="float32", chunks=(64,)))
    assert the_one(findings, "checksum", f"{IG}/quadrature_error").rows == tuple(range(100, 250))
    assert told(findings) == {("checksum", f"{IG}/quadrature_error")}


def test_a_chunk_without_a_checksum_is_found(store: Path) -> None:
    def change(file: h5py.File) -> None:
        values = file[f"{IG}/gap"][...]
        file[f"{IG}/gap"].id.write_direct_chunk((0,), values.tobytes(), 0b111)

    findings = alter(store, change)
    assert told(findings) == {("checksum", f"{IG}/gap")}
    assert "1 chunk has no checksum" in findings[0].detail


# Any byte, any length.


def chunk_ranges(store: Path) -> list[tuple[str, range]]:
    found: list[tuple[str, range]] = []
    with h5py.File(store) as file:
        for variable in VARIABLES:
            dataset = file[variable.path].id
            infos = [dataset.get_chunk_info(index) for index in range(dataset.get_num_chunks())]
            found += [(variable.path, range(info.byte_offset, info.byte_offset + info.size)) for info in infos]
    return found


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store so small that half of its bytes are metadata."""
    folder = tmp_path_factory.mktemp("small")
    part = part_path(folder, 0, 12)
    write_part(part, 0, 12, example_arrays(0, 12, side=8), digest=DIGEST, part_rows=PART_ROWS)
    seal(folder / "attributions.h5", [part])
    return folder / "attributions.h5"


def flipped(small: Path, folder: Path, n_changes: int, seed: int) -> list[dict[str, Any]]:
    """What became of random flipped bits, each judged in a process of its own."""
    random = np.random.default_rng(seed)
    offsets = random.choice(small.stat().st_size, n_changes, replace=False).tolist()
    changes = [[offset, 1 << int(random.integers(8))] for offset in offsets]
    done = python(SETUP / "flips.py", small, folder, input=json.dumps(changes))
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["offset"] for result in results] == offsets, done.stderr
    assert all(result["outcome"] in ("equal", "refused") for result in results), (results, done.stderr)
    return results


@pytest.mark.slow
def test_any_flipped_bit_is_found_or_harmless_and_none_crashes_or_hangs(small: Path, tmp_path: Path) -> None:
    """Without the checksum file, so that the other checks have to find it."""
    chunks, n_in_chunks = chunk_ranges(small), 0
    for result in flipped(small, tmp_path, 200, seed=20261123):
        named = {(check, where) for check, where, _ in result["findings"]} - {("sha256", "the file")}
        assert named or result["outcome"] == "equal", result
        for path in (path for path, span in chunks if result["offset"] in span):
            n_in_chunks += 1
            assert ("checksum", path) in named, result
    assert 40 < n_in_chunks < 160


def test_with_the_checksum_file_every_flipped_bit_is_found(small: Path, tmp_path: Path) -> None:
    shutil.copy(checksum_file(small), tmp_path / "flipped.h5.sha256")
    for result in flipped(small, tmp_path, 30, seed=5):
        assert ["sha256", "the file"] in [found[:2] for found in result["findings"]], result


def test_any_truncation_is_found(small: Path, tmp_path: Path) -> None:
    whole = small.read_bytes()
    cut = tmp_path / "attributions.h5"
    lengths = [1, 7, 8, 9, 40, 96, 100, len(whole) - 1, *range(500, len(whole), 1_999)]
    for length in lengths:
        cut.write_bytes(whole[:length])
        (finding,) = verify_store(cut)
        assert finding.check == "store", (length, finding)
        shutil.copy(checksum_file(small), checksum_file(cut))
        assert told(verify_store(cut)) == {("sha256", "the file"), ("store", "the file")}
        checksum_file(cut).unlink()


# The checksum file, and files that are no stores.


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        pytest.param(None, "no checksum file attributions.h5.sha256 beside", id="missing"),
        pytest.param("", "expected a line of sha256sum", id="empty"),
        pytest.param("c0ffee  attributions.h5\n", "expected a line of sha256sum", id="short"),
        pytest.param(b"\xff" * 80, "expected a line of sha256sum", id="no text"),
        pytest.param(f"{'0' * 64}  attributions.h5\n", "expected 0000.*the bytes are not those", id="another"),
    ],
)
def test_a_checksum_file_that_does_not_vouch_is_a_finding(store: Path, content, detail: str) -> None:
    if content is None:
        checksum_file(store).unlink()
    else:
        checksum_file(store).write_bytes(content if isinstance(content, bytes) else content.encode())
    (finding,) = verify_store(store)
    assert finding.check == "sha256"
    assert re.search(detail, finding.detail)


def make_foreign(path: Path) -> None:
    path.unlink()
    with h5py.File(path, "w") as file:
        file["image"] = [1, 2]


@pytest.mark.parametrize(
    ("spoil", "detail"),
    [
        pytest.param(lambda path: path.write_text("row,label\n"), "expected an HDF5 file", id="not HDF5"),
        pytest.param(lambda path: os.truncate(path, 0), "an empty file", id="empty"),
        pytest.param(make_foreign, "this HDF5 file is not ours", id="foreign"),
        pytest.param(
            lambda path: alter(path, set_attribute("/", "schema", SCHEMA_VERSION + 1)), "install a newer", id="newer"
        ),
        pytest.param(lambda path: alter(path, set_attribute("/", "complete", 0)), "complete = 1, got 0", id="unsealed"),
        pytest.param(lambda path: alter(path, set_attribute("/", "part_rows", 64)), "one of its parts", id="part"),
        pytest.param(lambda path: alter(path, lose("/", "complete")), "'complete'.* missing", id="no complete"),
    ],
)
def test_what_is_no_store_is_one_finding(store: Path, spoil, detail: str) -> None:
    spoil(store)
    checksum_file(store).unlink()
    (finding,) = verify_store(store)
    assert (finding.check, finding.where) == ("store", "the file")
    assert re.search(detail, finding.detail)


def test_a_folder_without_a_store_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFound, match="no night was sealed here"):
        verify_store(tmp_path)


def test_a_finding_reads_as_a_line() -> None:
    finding = Finding("values", "grad_cam/map", "negative values", (3, 4, 9))
    assert str(finding) == "values: grad_cam/map, rows 3-4, 9: negative values"
