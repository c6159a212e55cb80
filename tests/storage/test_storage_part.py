"""Parts: what goes in comes out bit by bit, what must not go in is refused, what is damaged is told."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from example_store import (
    DIGEST,
    PART_ROWS,
    assert_holds,
    chunk_offset,
    example_arrays,
    flip_byte,
    write_parts,
)
from storage import (
    SCHEMA_VERSION,
    StoreFormatError,
    StoreIncomplete,
    check_part,
    part_path,
    read_part_summary,
    write_part,
)
from storage.write import part_writer as part_module


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return write_parts(tmp_path / "parts", 64, 128)[0]


def check(path: Path) -> str | None:
    return check_part(path, digest=DIGEST, start=64, stop=128)


def write(path: Path, arrays: dict) -> None:
    write_part(path, 64, 128, arrays, digest=DIGEST, part_rows=PART_ROWS)


def test_name_tells_the_rows(tmp_path: Path) -> None:
    assert part_path(tmp_path, 0, 256) == tmp_path / "rows-000000-000256.h5"


def test_round_trip_is_bit_exact(part: Path) -> None:
    assert check(part) is None
    assert_holds(part, example_arrays(64, 128) | {"row": np.arange(64, 128)})
    assert [path.name for path in part.parent.iterdir()] == ["rows-000064-000128.h5"]


@pytest.mark.parametrize("n_wrong", [0, 64], ids=["all right", "all wrong"])
def test_any_share_of_misclassified_rows(tmp_path: Path, n_wrong: int) -> None:
    path = write_parts(tmp_path, 64, 128, n_wrong=n_wrong)[0]
    assert check(path) is None
    assert_holds(path, example_arrays(64, 128, n_wrong=n_wrong))


def test_summary(part: Path) -> None:
    summary = read_part_summary(part)
    assert (summary.start, summary.stop, summary.digest, summary.part_rows) == (64, 128, DIGEST, PART_ROWS)
    assert summary.sizes["y"] == 24 and summary.sizes["predicted_row"] == 21


def test_lossless_casts_are_made(tmp_path: Path) -> None:
    arrays = example_arrays(64, 128)
    given = arrays | {
        "label": arrays["label"].astype(np.uint8),
        "integrated_gradients/gap": arrays["integrated_gradients/gap"].astype(np.float64),
        "integrated_gradients/converged": arrays["integrated_gradients/converged"].astype(bool),
    }
    write(tmp_path / "part.h5", given)
    assert_holds(tmp_path / "part.h5", arrays)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        pytest.param("image", lambda a: a / 255, r"image: expected uint8, got float64", id="float image"),
        pytest.param("image", lambda a: a.astype(int) + 200, "without loss", id="image above 255"),
        pytest.param("integrated_gradients/gap", lambda a: a.astype(float) + 0.1, "without loss", id="float64 gap"),
        pytest.param("integrated_gradients/gap", lambda a: a[:-1], "expected 64 along row", id="a row short"),
        pytest.param("image", lambda a: a[:, :-1], "along y", id="image of another size"),
        pytest.param("grad_cam/map", lambda a: a[..., None], "axes", id="an axis too many"),
        pytest.param("label", lambda a: np.where(np.arange(64) == 3, 9, a), "not in 0..2 at rows 67", id="no class"),
        pytest.param("predicted_row", lambda a: a[::-1], "not ascending", id="unordered"),
        pytest.param("predicted_row", lambda a: a - 64, "differ at rows", id="positions for rows"),
        pytest.param(
            "integrated_gradients/converged", lambda a: a * 0 + 2, "expected 0 or 1.* rows 64-127", id="no flag"
        ),
    ],
)
def test_wrong_arrays_are_refused_by_name(tmp_path: Path, name: str, change, message: str) -> None:
    arrays = example_arrays(64, 128)
    with pytest.raises(ValueError, match=message) as refusal:
        write(tmp_path / "part.h5", arrays | {name: change(arrays[name])})
    assert name in str(refusal.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused_by_row(tmp_path: Path, value: float) -> None:
    arrays = example_arrays(64, 128)
    arrays["integrated_gradients/attribution"][[5, 6, 9], 0, 1, 2] = value
    with pytest.raises(ValueError, match="integrated_gradients/attribution: .*finite.* rows 69-70, 73$"):
        write(tmp_path / "part.h5", arrays)


def test_predicted_rows_are_named_by_number_not_position(tmp_path: Path) -> None:
    arrays = example_arrays(64, 128)
    arrays["grad_cam/predicted/cam_max"][1] = np.nan
    with pytest.raises(ValueError, match=f"rows {arrays['predicted_row'][1]}$"):
        write(tmp_path / "part.h5", arrays)


def test_missing_and_unknown_variables_are_named(tmp_path: Path) -> None:
    arrays = example_arrays(64, 128)
    arrays["lable"] = arrays.pop("label")
    with pytest.raises(ValueError, match=r"missing: \['label'\], unknown: \['lable'\]"):
        write(tmp_path / "part.h5", arrays)


@pytest.mark.parametrize(
    ("expected", "reason"),
    [
        ({"digest": "other"}, "expected the digest other"),
        ({"start": 0, "stop": 64}, "expected the rows 0-63, got 64-127"),
    ],
    ids=["digest", "rows"],
)
def test_a_part_of_something_else_is_not_reused(part: Path, expected: dict, reason: str) -> None:
    assert reason in str(check_part(part, **({"digest": DIGEST, "start": 64, "stop": 128} | expected)))


@pytest.mark.parametrize("name", ["image", "label", "integrated_gradients/attribution", "grad_cam/map"])
def test_a_flipped_byte_in_chunk_data_is_told(part: Path, name: str) -> None:
    flip_byte(part, chunk_offset(part, name, 0))
    assert f"{name}, rows 64-" in str(check(part))


def test_a_flipped_byte_in_a_predicted_group_names_its_rows(part: Path) -> None:
    flip_byte(part, chunk_offset(part, "integrated_gradients/predicted/score", 0))
    rows = example_arrays(64, 128)["predicted_row"]
    assert f"integrated_gradients/predicted/score, rows {rows[0]}" in str(check(part))


def test_no_flipped_byte_anywhere_changes_a_value_silently(tmp_path: Path) -> None:
    path = part_path(tmp_path, 0, 4)
    arrays = example_arrays(0, 4, side=2)
    write_part(path, 0, 4, arrays, digest=DIGEST, part_rows=4)
    whole = path.read_bytes()
    told = 0
    for offset in np.random.default_rng(7).choice(len(whole), 150, replace=False):
        path.write_bytes(whole)
        flip_byte(path, int(offset))
        if check_part(path, digest=DIGEST, start=0, stop=4) is None:
            assert_holds(path, arrays)
        else:
            told += 1
    assert told > 20


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.999], ids=["empty", "stub", "half", "tail lost"])
def test_truncated_parts_are_told(part: Path, share: float) -> None:
    whole = part.read_bytes()
    part.write_bytes(whole[: int(share * len(whole))])
    assert str(part) in str(check(part))


def test_missing_foreign_and_newer_parts_are_told(part: Path, tmp_path: Path) -> None:
    assert "no such file" in str(check(tmp_path / "none.h5"))
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["x"] = [1, 2]
    assert "not ours" in str(check(tmp_path / "foreign.h5"))
    with h5py.File(part, "a") as file:
        file.attrs["schema"] = SCHEMA_VERSION + 1
    assert f"expected schema {SCHEMA_VERSION}, got schema {SCHEMA_VERSION + 1}; install a newer nightlens" in str(
        check(part)
    )
    with h5py.File(part, "a") as file:
        file.attrs["schema"] = 1
    assert (
        f"expected schema {SCHEMA_VERSION}, got schema 1; use the nightlens that wrote it, or compute its rows again"
        in str(check(part))
    )


def test_a_dataset_that_was_never_written_is_told(part: Path) -> None:
    with h5py.File(part, "a") as file:
        like = file["label"]
        del file["label"]
        file.create_dataset("label", like.shape, like.dtype, chunks=(16,), fletcher32=True)
    assert "expected 4 chunks, got 0" in str(check(part))


@pytest.mark.parametrize("name", ["row", "label", "image", "y"])
def test_a_dataset_without_axes_is_refused_in_one_line(name: str, part: Path) -> None:
    with h5py.File(part, "a") as file:
        value = np.zeros((), file[name].dtype)
        del file[name]
        file[name] = value
    with pytest.raises(StoreFormatError, match=rf"expected {name} of shape \(.*\), got \(\); restore"):
        read_part_summary(part)
    assert f"expected {name} of shape" in str(check(part))


def test_incomplete_part_is_no_part(part: Path) -> None:
    with h5py.File(part, "a") as file:
        file.attrs["complete"] = 0
    with pytest.raises(StoreIncomplete, match="expected complete = 1, got 0"):
        read_part_summary(part)


@pytest.mark.parametrize("step", ["lay_out", "index_coordinates", "check_part"])
def test_a_failure_while_writing_leaves_what_was_there(part: Path, monkeypatch, step: str) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    before = part.read_bytes()
    monkeypatch.setattr(part_module, step, full)
    with pytest.raises(OSError, match="No space left"):
        write(part, example_arrays(64, 128, n_wrong=0))
    assert part.read_bytes() == before
    assert list(part.parent.iterdir()) == [part]


def test_writing_again_replaces(part: Path) -> None:
    write(part, example_arrays(64, 128, n_wrong=0))
    assert_holds(part, example_arrays(64, 128, n_wrong=0))
