"""`nightlens pack` and `nightlens unpack` as people meet them: what they print, one clear line, and no TensorFlow."""

import re
from pathlib import Path

import pytest

from command import IMPORT_TIMES, libraries_loaded, nightlens
from packed_night import NIGHT, night_to_hand_over


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("there") / "nightlens-data"
    night_to_hand_over(root)
    return root


def test_from_a_night_to_a_row_on_another_machine(root: Path, tmp_path: Path) -> None:
    done = nightlens("pack", root / "latest", cwd=tmp_path, options=IMPORT_TIMES)
    file = f"{NIGHT}.nightlens.zip"
    said = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(rf"{re.escape(str(tmp_path / file))}: night {NIGHT}, \d+ files, \d+\.\d MB", said[0])
    assert said[2] == f"whoever gets it: nightlens unpack {file}"
    assert not libraries_loaded(done) & {"tensorflow", "keras", "prefect"}
    done = nightlens("unpack", file, cwd=tmp_path, options=IMPORT_TIMES)
    assert done.returncode == 0, done.stderr
    here = done.stdout.splitlines()
    assert re.fullmatch(rf"nightlens-data/nights/{NIGHT}: \d+ files, \d+\.\d MB, every checksum as packed", here[0])
    assert here[1] == said[1] and re.fullmatch("manifest sha256 [0-9a-f]{64}", here[1])
    assert here[2:] == [
        "nightlens-data/models/seed-cnn.keras: the model",
        "look at it: nightlens browse nightlens-data",
    ]
    assert not libraries_loaded(done) & {"tensorflow", "keras", "prefect"}
    for command in (["show", "nightlens-data", "--row", "7"], ["verify", "nightlens-data"], ["nights"]):
        assert nightlens(*command, cwd=tmp_path).returncode == 0, command
    assert (tmp_path / "row-7.png").is_file()


def test_a_night_is_named_by_its_id_too_and_leaves_out_what_it_is_told_to(root: Path, tmp_path: Path) -> None:
    options = ("--without", "images", "--without", "model")
    done = nightlens("pack", NIGHT, "small.zip", "--root", root, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"small.zip: night {NIGHT}, without images and model, 8 files" in done.stdout
    done = nightlens("unpack", "small.zip", "there", cwd=tmp_path)
    assert "8 files, without images and model" in done.stdout
    done = nightlens("report", "there", cwd=tmp_path)
    assert done.returncode == 0 and "report.html: " in done.stdout
    assert (
        "this store was handed over without its images" in (tmp_path / "there" / "latest" / "report.html").read_text()
    )
    done = nightlens("show", "there", "--row", "7", cwd=tmp_path)
    assert done.returncode == 0 and "drawn without its images" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["pack", "20990101T000000Z-000000"], "has no night '20990101T000000Z-000000'"),
        (["pack", "ROOT", "--without", "labels"], "expected model or images to be left out, got 'labels'"),
        (["unpack", "nowhere.zip"], "nowhere.zip: no such file"),
    ],
    ids=["no such night", "no such thing", "no such file"],
)
def test_bad_arguments_are_one_line_and_exit_code_2(
    root: Path, tmp_path: Path, arguments: list[str], line: str
) -> None:
    done = nightlens(*[root if argument == "ROOT" else argument for argument in arguments], cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert line in done.stderr.splitlines()[-1] and done.stderr.splitlines()[-1].startswith("nightlens: ")
    assert list(tmp_path.iterdir()) == []


def test_a_night_is_published_and_what_is_there_is_not_sent_again(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("fsspec", reason="the extra `remote` is not installed")
    pytest.importorskip("pydantic", reason="the extra `pipeline` is not installed")
    address = f"file://{tmp_path}/there"
    said = [nightlens("publish", root, address, cwd=tmp_path) for _ in range(2)]
    assert [done.returncode for done in said] == [0, 0], said[0].stderr
    first, second = (done.stdout for done in said)
    assert re.fullmatch(
        rf"{address}/nights/{NIGHT}: 5 files, (\d\.\d) MB, each read back and of the same sha256; 5 of them sent now, \1 MB\n",
        first,
    )
    assert "0 of them sent now, 0.0 MB" in second
    assert nightlens("show", tmp_path / "there", "--row", "7", cwd=tmp_path).returncode == 0
    done = nightlens("publish", root, "https://host/nights", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    line = "nightlens: publish_to must be an address that can be written, such as s3://bucket/prefix, got 'https://host/nights'"
    assert done.stderr.splitlines()[-1] == line
