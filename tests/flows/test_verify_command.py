"""`nightlens verify` as people meet it: exit codes, one clear line or a table, and no TensorFlow unless it is needed."""

import os
import re
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest

from command import IMPORT_TIMES, libraries_loaded, nightlens
from example_store import chunk_offset, flip_byte, seal, write_parts
from places import REPOSITORY


def verify(*arguments: object, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return nightlens("verify", *arguments, options=options)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "attributions.h5"
    seal(path, write_parts(tmp_path / "parts", 0, 150))
    path.chmod(0o644)
    return path


def test_a_sound_store_is_a_line_and_exit_code_0_without_tensorflow_and_prefect(store: Path) -> None:
    done = verify(store.parent, options=IMPORT_TIMES)
    assert (done.returncode, done.stdout) == (0, f"{store}: sound\n")
    assert "✓ sha256" in done.stderr and "✓ datasets" in done.stderr
    assert not libraries_loaded(done) & {"tensorflow", "keras", "prefect", "pandas"}


def test_findings_are_a_table_and_exit_code_1(store: Path) -> None:
    flip_byte(store, chunk_offset(store, "integrated_gradients/attribution", 64))
    flip_byte(store, chunk_offset(store, "label", 0))
    done = verify(store)
    assert done.returncode == 1
    assert "3 findings" in done.stdout
    for row in (
        r"sha256 +│ the file +│ +│ expected [0-9a-f]{64}, got",
        r"checksum +│ integrated_gradients/attribution +│ 64-127 +│ the checksum or the data is wrong",
        r"checksum +│ label +│ 0-149 +│",
    ):
        assert re.search(row, done.stdout), done.stdout
    assert "sound" not in done.stdout


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        pytest.param(lambda path: path.write_text("row,label\n"), "expected an HDF5 file", id="not HDF5"),
        pytest.param(lambda path: os.truncate(path, 0), "an empty file", id="empty"),
        pytest.param(lambda path: os.truncate(path, 5_000), "the file is truncated", id="truncated"),
        pytest.param(lambda path: set_root(path, "schema", 99), "got schema 99; install a newer", id="newer"),
        pytest.param(lambda path: set_root(path, "complete", 0), "expected complete = 1, got 0", id="unsealed"),
    ],
)
def test_a_file_that_is_no_store_is_one_line(store: Path, spoil, line: str) -> None:
    spoil(store)
    store.with_name("attributions.h5.sha256").unlink()
    done = verify(store)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 1
    assert line in done.stdout and str(store) in done.stdout
    assert "Traceback" not in done.stderr


def set_root(path: Path, name: str, value: int) -> None:
    with h5py.File(path, "a") as file:
        file.attrs[name] = np.int64(value)


def test_other_hdf5_files_are_one_line_too(store: Path, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = [1]
    part = next((tmp_path / "parts").iterdir())
    for path, line in ((tmp_path / "other.h5", "not ours"), (part, "got one of its parts; verify attributions.h5")):
        done = verify(path)
        assert (done.returncode, len(done.stdout.splitlines())) == (1, 1)
        assert line in done.stdout


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nowhere.h5"], "nowhere.h5: no such file or folder"),
        (["tests/data/schema-1.h5", "--recompute", "0"], "'--recompute'.* greater than or equal to 1"),
        (["tests/data/schema-1.h5", "--recompute", "-3"], "'--recompute'.* greater than or equal to 1"),
        (["tests/data/schema-1.h5", "--seed", "3"], "--seed: only of use with --recompute K"),
        (["tests/data/schema-1.h5", "--recompute", "2"], "does not record where its model and dataset are"),
    ],
    ids=["nothing there", "zero rows", "negative rows", "seed alone", "schema 1"],
)
def test_bad_arguments_are_one_line_and_exit_code_2(arguments: list[str], line: str) -> None:
    done = verify(*[REPOSITORY / a if a.startswith("tests") else a for a in arguments])
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(line, done.stderr.splitlines()[-1]), done.stderr
    assert done.stderr.splitlines()[-1].startswith("nightlens: ")


def test_a_folder_without_a_store_is_exit_code_2(tmp_path: Path) -> None:
    done = verify(tmp_path)
    assert done.returncode == 2
    assert "no night was sealed here yet" in done.stderr
