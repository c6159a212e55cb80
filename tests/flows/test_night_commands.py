"""`nightlens nights`, `pin`, `unpin`, `prune` and `run --resume`: what they print, and how they refuse."""

import json
import re
from pathlib import Path

import pytest

from command import nightlens
from example_store import ATTRIBUTES, CLASS_NAMES, write_parts
from flows.cli import BadParameters
from flows.parameters import resumed_parameters
from storage import Catalog, StoreNotFound, seal_store
from storage.nights.night_entries import begin_run, end_run, working_on
from tasks.config import AlertConfig

OLD, NEW = "20260102T020000Z-old000", "20260103T020000Z-new000"
PLAN = {"digest": "d1935c", "start": 0, "stop": 20, "part_rows": 64, "model_sha256": "c0de"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with a sealed night, the latest, and a newer one that was interrupted."""
    catalog = Catalog(tmp_path / "data")
    parts = write_parts(catalog.parts_dir("d1935c"), 0, 20)
    store = catalog.night_dir(OLD) / "attributions.h5"
    seal_store(store, parts, class_names=CLASS_NAMES, attributes=ATTRIBUTES)
    (store.parent / "night.json").write_text('{"n_rows": 20, "accuracy": 0.75}')
    catalog.point_latest(store.parent)
    begin_run(catalog, OLD, parameters={}, plan=PLAN)
    end_run(catalog, OLD)
    asked = {"dataset": {"source": "digits"}, "run": {"root": "elsewhere", "rows": "0:20", "n_workers": 1}}
    begin_run(catalog, NEW, parameters=asked, plan=PLAN | {"digest": "d-new"})
    return catalog.root


def test_nights_are_listed_newest_first(root: Path) -> None:
    done = nightlens("nights", "--root", root)
    assert done.returncode == 0, done.stderr
    head, new, old = (re.split(r"\s{2,}", line.strip()) for line in done.stdout.splitlines())
    assert head == ["night", "state", "rows", "accuracy", "worth", "size", "age"]
    assert new[:3] == [NEW, "interrupted", "20"] and new[-1] == "0 of 1 parts"
    assert old[:4] == [OLD, "sealed", "20", "0.7500"] and old[-1] == "latest"


@pytest.mark.parametrize(
    ("record", "cells", "remarks"),
    [
        ({"relevance_gain": 0.1234, "warnings": []}, ["0.7500", "+0.123"], "latest"),
        ({"relevance_gain": -0.05}, ["0.7500", "-0.050"], "latest"),
        (
            {"relevance_gain": 0.2, "warnings": [{"kind": "shortcut", "message": "a"}, {"kind": "sanity"}]},
            ["0.7500", "+0.200"],
            "latest; warns: shortcut, sanity",
        ),
        (
            {"warnings": [{"kind": "zero-maps", "message": "a"}, {"kind": "zero-maps", "message": "b"}]},
            ["0.7500"],
            "latest; warns: zero-maps",
        ),
        ({"relevance_gain": None}, ["0.7500"], "latest"),
        ({}, ["0.7500"], "latest"),
    ],
    ids=["worth", "negative", "warnings", "twice the same, before worth", "nothing", "before worth"],
)
def test_worth_and_kinds_of_warnings_are_shown_where_a_night_has_them(
    record: dict[str, object], cells: list[str], remarks: str, root: Path
) -> None:
    (root / "nights" / OLD / "night.json").write_text(json.dumps({"n_rows": 20, "accuracy": 0.75} | record))
    done = nightlens("nights", "--root", root)
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith(OLD))
    shown = re.split(r"\s{2,}", line.strip())
    assert shown[3 : 3 + len(cells)] == cells
    assert len(shown) == 6 + len(cells)
    assert shown[-1] == remarks


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"relevance_gain": "much"}, "relevance_gain cannot be 'much'"),
        ({"warnings": "shortcut"}, "warnings cannot be 'shortcut'"),
        ({"warnings": [7]}, "warnings cannot be [7]"),
    ],
    ids=["worth", "warnings", "no warning"],
)
def test_a_record_with_another_sort_of_worth_or_warnings_is_a_damaged_night(
    record: dict[str, object], said: str, root: Path
) -> None:
    (root / "nights" / OLD / "night.json").write_text(json.dumps({"n_rows": 20, "accuracy": 0.75} | record))
    done = nightlens("nights", "--root", root)
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = (line for line in done.stdout.splitlines() if line.startswith(OLD))
    assert "damaged" in line and said in line


def test_a_root_without_nights_says_so(tmp_path: Path) -> None:
    assert nightlens("nights", "--root", tmp_path).stdout.startswith(f"no night in {tmp_path} yet")


@pytest.mark.parametrize("command", ["nights", "pin", "prune"])
def test_a_root_that_is_not_there_is_one_line(command: str, tmp_path: Path) -> None:
    arguments = {"pin": [OLD], "prune": ["--keep", 1]}.get(command, [])
    done = nightlens(command, *arguments, "--root", tmp_path / "nowhere")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[0].startswith("nightlens: ") and "no such folder" in done.stderr


def test_pinning_is_shown_and_taken_back(root: Path) -> None:
    assert nightlens("pin", OLD, "--root", root).returncode == 0
    assert "latest; pinned" in nightlens("nights", "--root", root).stdout
    assert nightlens("unpin", OLD, "--root", root).returncode == 0
    assert "pinned" not in nightlens("nights", "--root", root).stdout


@pytest.mark.parametrize(
    ("night", "said"), [("../../etc", "expected a night's id"), ("20300101T000000Z-x", f"the last of 2 are .*{NEW}")]
)
def test_a_night_that_is_not_there_is_one_line(night: str, said: str, root: Path) -> None:
    done = nightlens("pin", night, "--root", root)
    assert done.returncode == 2 and re.search(said, done.stderr) and len(done.stderr.splitlines()) == 1


def test_a_dry_run_says_what_pruning_then_does(root: Path) -> None:
    stray = root / "parts" / "d-stray"
    stray.mkdir()
    (stray / "rows-000000-000008.h5").write_bytes(bytes(2000))
    would = nightlens("prune", "--keep", 1, "--root", root, "--dry-run")
    assert would.returncode == 0, would.stderr
    assert "2.0 kB  parts/d-stray  parts that no night refers to" in would.stdout
    assert would.stdout.endswith("1 would be removed, 2.0 kB\n") and stray.is_dir()
    assert f"{NEW} is interrupted and newer than the last sealed night: `nightlens run --resume`" in would.stdout
    done = nightlens("prune", "--keep", 1, "--root", root)
    assert done.stdout == would.stdout.replace("would be removed", "removed") and not stray.exists()


def test_keeping_no_night_is_refused(root: Path) -> None:
    done = nightlens("prune", "--keep", 0, "--root", root)
    assert done.returncode == 2 and "--keep" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["nights"], 0), (["status"], 1), (["prune", "--keep", 1], 0), (["run", "--resume", "--night", NEW], 2)],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
@pytest.mark.parametrize(
    "content", ['{"plan": {"digest": "d-new"}, "parameters": {}}', '{"plan": {}, "parameters": {}}', "{}"]
)
def test_a_run_record_without_its_keys_is_a_damaged_night(
    content: str, arguments: list[object], code: int, root: Path
) -> None:
    record = root / "nights" / NEW / "run.json"
    record.write_text(content)
    done = nightlens(*arguments, "--root", root)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    said, *_ = (line for line in (done.stdout + done.stderr).splitlines() if NEW in line)
    assert "damaged" in said and "is missing" in said
    assert record.read_text() == content


# Resuming


def test_a_night_goes_on_with_the_parameters_it_began_with(root: Path) -> None:
    parameters = resumed_parameters(root, None)
    run = parameters["run"]
    assert (run.resume, run.root, run.rows, run.n_workers) == (NEW, root, "0:20", 1)
    assert resumed_parameters(root, NEW) == parameters


def test_a_night_from_before_a_group_of_settings_goes_on_with_its_defaults(root: Path) -> None:
    record = root / "nights" / NEW / "run.json"
    run = json.loads(record.read_text())
    assert "alert" not in run["parameters"]
    assert resumed_parameters(root, NEW)["alert"] == AlertConfig()
    run["parameters"]["alert"] = {"accuracy_drop": 0.5}
    record.write_text(json.dumps(run))
    assert resumed_parameters(root, NEW)["alert"] == AlertConfig(accuracy_drop=0.5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--resume", "--epochs", 3, "--rows", "0:5"], "leave out --epochs, --rows"),
        (["--resume", "--config", "night.yaml"], "leave out --config"),
        (["--night", NEW], "--night .* needs --resume"),
        (["--resume", "--night", OLD], f"night {OLD} is sealed and cannot be resumed"),
        (["--resume", "--night", "../x"], "expected a night's id"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_what_cannot_be_resumed_is_one_line(options: list[object], said: str, root: Path) -> None:
    done = nightlens("run", *options, "--root", root)
    assert done.returncode == 2 and re.search(said, done.stderr), done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_running_night_is_not_resumed(root: Path) -> None:
    with working_on(Catalog(root), NEW):
        with pytest.raises(ValueError, match=f"night {NEW} is running"):
            resumed_parameters(root, NEW)
        with pytest.raises(StoreNotFound, match="no night is unfinished"):
            resumed_parameters(root, None)


def test_parameters_of_another_version_are_named(root: Path) -> None:
    begin_run(Catalog(root), NEW, parameters={"dataset": {"sauce": "digits"}}, plan=PLAN)
    with pytest.raises(BadParameters, match=r"run\.json: dataset\.sauce: no such key"):
        resumed_parameters(root, NEW)
