"""Nights as their folders tell them, and what pruning takes and spares."""

import json
import os
import shutil
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from example_store import ATTRIBUTES, CLASS_NAMES, DIGEST, flip_byte, write_parts
from storage import (
    Catalog,
    LockBusy,
    StoreNotFound,
    find_night,
    part_path,
    pin,
    pruning,
    read_nights,
    remove,
    seal_store,
)
from storage.file.disk.lock import locked
from storage.nights.night_entries import begin_run, end_run, root_lock, working_on

OLD, OLDER, NEW = "20260102T020000Z-old000", "20260101T020000Z-older0", "20260103T020000Z-new000"
MODEL = "c0de"


@pytest.fixture(scope="module")
def sealed_night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a night of 20 rows, sealed and recorded."""
    folder = tmp_path_factory.mktemp("night")
    parts = write_parts(folder / "parts", 0, 20)
    night = folder / "night"
    seal_store(night / "attributions.h5", parts, class_names=CLASS_NAMES, attributes=ATTRIBUTES)
    (night / "night.json").write_text(json.dumps({"n_rows": 20, "accuracy": 0.75}))
    return night


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path / "data")


@pytest.fixture
def add(catalog: Catalog, sealed_night: Path) -> Callable[..., Path]:
    """Adds a night in a state, with a folder of one part, and a model; returns its folder."""

    def add(night_id: str, state: str = "sealed", digest: str = DIGEST, model: str = MODEL) -> Path:
        folder = catalog.night_dir(night_id)
        if state == "sealed":
            shutil.copytree(sealed_night, folder)
        plan = {"digest": digest, "start": 0, "stop": 20, "part_rows": 8, "model_sha256": model}
        begin_run(catalog, night_id, parameters={"run": {"rows": "0:20"}}, plan=plan)
        if state in ("sealed", "failed"):
            end_run(catalog, night_id, failure="AuditError: rows [3] differ" if state == "failed" else None)
        part = part_path(catalog.parts_dir(digest), 0, 8)
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(b"a part")
        return folder

    return add


def add_model(catalog: Catalog, name: str, sha256: str) -> list[Path]:
    catalog.models.mkdir(parents=True, exist_ok=True)
    files = [catalog.models / f"{name}.keras", catalog.models / f"{name}.json"]
    files[0].write_bytes(b"weights")
    files[1].write_text(json.dumps({"name": name, "sha256": sha256}))
    return files


def removed(catalog: Catalog, keep: int) -> set[str]:
    """What pruning removes, below the root; removes it, too."""
    with pruning(catalog, keep) as decided:
        remove(catalog, decided.removals)
    assert not (Path(catalog.root) / ".pruned").exists()
    assert not any(removal.path.exists() for removal in decided.removals)
    return {str(removal.path.relative_to(catalog.root)) for removal in decided.removals}


# Listing


def test_nights_are_told_by_state_newest_first(catalog: Catalog, add: Callable[..., Path]) -> None:
    add(OLDER, "failed"), add(OLD), add(NEW, "interrupted")
    catalog.point_latest(catalog.night_dir(OLD))
    new, old, older = read_nights(catalog)
    assert [night.id for night in (new, old, older)] == [NEW, OLD, OLDER]
    assert (new.state, new.can_resume, new.n_rows, new.note) == ("interrupted", True, 20, "1 of 3 parts")
    assert (old.state, old.can_resume, old.accuracy, old.n_rows) == ("sealed", False, 0.75, 20)
    assert (older.state, older.can_resume) == ("failed", True) and "AuditError: rows [3] differ" in older.note
    assert [night.is_latest for night in (new, old, older)] == [False, True, False]
    assert old.began == datetime(2026, 1, 2, 2, tzinfo=UTC)
    assert old.bytes == sum(path.stat().st_size for path in old.folder.iterdir())


def test_a_night_is_running_while_its_process_works_on_it(catalog: Catalog, add: Callable[..., Path]) -> None:
    add(NEW, "interrupted")
    with working_on(catalog, NEW):
        (night,) = read_nights(catalog)
        assert (night.state, night.can_resume) == ("running", False) and str(os.getpid()) in night.note
        with pytest.raises(LockBusy, match=f"held by night {NEW}"), working_on(catalog, NEW):
            pass
    assert read_nights(catalog)[0].state == "interrupted"


def test_a_night_without_a_folder_is_listed_while_it_runs(catalog: Catalog) -> None:
    with working_on(catalog, NEW):
        (night,) = read_nights(catalog)
        assert (night.id, night.state, night.n_rows) == (NEW, "running", None)
    assert read_nights(catalog) == []


def test_a_night_from_before_run_records_is_told_by_its_store(catalog: Catalog, add: Callable[..., Path]) -> None:
    (add(OLD) / "run.json").unlink()
    (night,) = read_nights(catalog)
    assert (night.state, night.digest, night.model_sha256, night.can_resume) == ("sealed", DIGEST, MODEL, False)


UNREADABLE = {
    "run.json": [
        "",
        "[1]",
        "{",
        "{}",
        '{"plan": {"digest": "d"}, "parameters": {}}',
        '{"plan": 7, "parameters": {}}',
        b"\xff",
    ],
    "night.json": ["", "[1]", "{", "{}", '{"n_rows": 20, "accuracy": null}', '{"n_rows": "20", "accuracy": 0.5}'],
}


def spoil(record: Path, content: str | bytes) -> None:
    record.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize(
    ("record", "content"), [(name, content) for name, contents in UNREADABLE.items() for content in contents]
)
def test_a_night_whose_record_cannot_be_read_is_damaged_and_is_never_removed(
    catalog: Catalog, add: Callable[..., Path], record: str, content: str | bytes
) -> None:
    folder = add(NEW)
    spoil(folder / record, content)
    add(OLD, digest="d-old"), add(OLDER, digest="d-older"), add_model(catalog, "new", MODEL)
    new, old, _ = read_nights(catalog)
    assert (new.state, new.can_resume) == ("damaged", False) and record in new.note
    assert (old.state, old.note) == ("sealed", "")
    with pruning(catalog, 1) as decided:
        assert any(NEW in spared and record in spared for spared in decided.spared)
    assert removed(catalog, 1) == {f"nights/{OLDER}", "parts/d-older"}
    assert folder.is_dir()


def test_a_record_that_the_system_does_not_give_out_makes_a_night_damaged(
    catalog: Catalog, add: Callable[..., Path]
) -> None:
    record = add(NEW) / "night.json"
    record.unlink()
    record.mkdir()
    assert read_nights(catalog)[0].note == "night.json cannot be read (Is a directory)"
    assert removed(catalog, 1) == set()


@pytest.mark.parametrize("content", [None, "", "{}"], ids=["none", "empty", "without-keys"])
def test_while_a_damaged_night_does_not_say_what_is_its_own_parts_and_models_stay(
    catalog: Catalog, add: Callable[..., Path], content: str | None
) -> None:
    add(OLD)
    record = add(NEW, "interrupted", digest="d-new") / "run.json"
    if content is None:
        record.rename(record.with_name("notes.txt"))
    else:
        spoil(record, content)
    (night, _) = read_nights(catalog)
    assert (night.state, night.digest) == ("damaged", None) and "run.json" in night.note
    assert removed(catalog, 1) == set()
    assert catalog.parts_dir("d-new").is_dir()


def test_a_folder_of_a_night_that_was_killed_before_its_record_goes(catalog: Catalog, add: Callable[..., Path]) -> None:
    add(OLD)
    killed = catalog.night_dir(NEW)
    killed.mkdir()
    (killed / "run.json.0a1b2c3d.tmp").touch()
    assert read_nights(catalog)[0].state == "interrupted"
    assert f"nights/{NEW}" in removed(catalog, 1)


def test_what_goes_while_it_is_counted_is_no_error(catalog: Catalog, add: Callable[..., Path]) -> None:
    """A writer makes and removes files and folders in a night for as long as it is read; it has done so when this ends."""
    folder, stop, n_made = add(OLD), threading.Event(), 0

    def write() -> None:
        nonlocal n_made
        while not stop.is_set():
            for name in ("a", "b"):
                (folder / name).mkdir()
                for k in range(8):
                    (folder / name / f"{k}.tmp").touch()
                shutil.rmtree(folder / name)
            n_made += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while n_made < 300:
            assert read_nights(catalog)[0].state == "sealed"
    finally:
        stop.set()
        writer.join()


@pytest.mark.parametrize("name", ["../../etc", "/etc", "a/b", "..", "", "latest\n"])
def test_a_night_that_leads_out_of_the_root_is_refused(catalog: Catalog, name: str) -> None:
    for refused in (lambda: find_night(catalog, name), lambda: pin(catalog, name, pinned=True)):
        with pytest.raises(ValueError, match="expected a night's id"):
            refused()


def test_an_unknown_night_is_told_with_those_there_are(catalog: Catalog, add: Callable[..., Path]) -> None:
    with pytest.raises(StoreNotFound, match="there is none yet"):
        find_night(catalog, NEW)
    add(OLD)
    with pytest.raises(StoreNotFound, match=f"no night '{NEW}'; the last of 1 are .*{OLD}"):
        find_night(catalog, NEW)


# Pruning


def test_the_newest_nights_stay_and_what_only_the_others_refer_to_goes(
    catalog: Catalog, add: Callable[..., Path]
) -> None:
    add(OLDER, digest="d-older", model="m-older"), add(OLD, digest="d-old", model="m-old"), add(NEW, digest="d-new")
    catalog.point_latest(catalog.night_dir(NEW))
    mine = [*add_model(catalog, "old", "m-old"), *add_model(catalog, "new", MODEL)]
    others = [*add_model(catalog, "older", "m-older"), *add_model(catalog, "unused", "m-unused")]
    assert removed(catalog, 2) == {
        f"nights/{OLDER}",
        "parts/d-older",
        *(f"models/{path.name}" for path in others),
    }
    assert all(path.exists() for path in mine)
    assert removed(catalog, 2) == set()
    assert [night.id for night in read_nights(catalog)] == [NEW, OLD]


def test_the_latest_and_the_pinned_stay_whatever_their_age(catalog: Catalog, add: Callable[..., Path]) -> None:
    add(OLDER), add(OLD), add(NEW)
    catalog.point_latest(catalog.night_dir(OLDER))
    pin(catalog, OLD, pinned=True)
    assert find_night(catalog, OLD).is_pinned
    assert removed(catalog, 1) == set()
    pin(catalog, OLD, pinned=False)
    assert removed(catalog, 1) == {f"nights/{OLD}"}


def test_while_a_night_runs_parts_and_models_are_left_alone(catalog: Catalog, add: Callable[..., Path]) -> None:
    add(OLDER, digest="d-older"), add(OLD), add_model(catalog, "unused", "m-unused")
    with working_on(catalog, NEW):
        with pruning(catalog, 1) as decided:
            assert any(f"{NEW} still running" in spared for spared in decided.spared)
        assert removed(catalog, 1) == {f"nights/{OLDER}"}
    assert removed(catalog, 1) == {"parts/d-older", "models/unused.keras", "models/unused.json"}


def test_a_store_that_cannot_be_read_spares_parts_and_models(catalog: Catalog, add: Callable[..., Path]) -> None:
    store = add(NEW, digest="d-new") / "attributions.h5"
    store.with_name("run.json").unlink()
    flip_byte(store, 2)
    with pruning(catalog, 1) as decided:
        assert decided.removals == () and any(NEW in spared for spared in decided.spared)


def test_unfinished_nights_stay_only_if_newer_than_the_last_sealed_one(
    catalog: Catalog, add: Callable[..., Path]
) -> None:
    add(OLDER, "interrupted", digest="d-older"), add(OLD), add(NEW, "failed", digest="d-new")
    assert removed(catalog, 5) == {f"nights/{OLDER}", "parts/d-older"}
    assert find_night(catalog, NEW).can_resume and catalog.parts_dir("d-new").is_dir()


def test_a_night_that_failed_its_audit_stays_as_long_as_a_sealed_one_would(
    catalog: Catalog, add: Callable[..., Path], sealed_night: Path
) -> None:
    """The audit says that the store is kept; nights of this kind do not push out good ones, nor each other without end."""

    def add_unaudited(night_id: str) -> None:
        folder = add(night_id, "failed")
        shutil.copy(sealed_night / "attributions.h5", folder)

    first, second, third = (f"2026010{day}T030000Z-audit0" for day in (1, 2, 3))
    add(OLDER), add_unaudited(first), add(OLD)
    assert [night.note for night in read_nights(catalog) if night.id == first] == [
        "AuditError: rows [3] differ; sealed, not audited"
    ]
    with pruning(catalog, 2) as decided:
        assert [spared for spared in decided.spared if first in spared and "has a store" in spared]
    assert removed(catalog, 2) == set()
    add(NEW)
    assert removed(catalog, 2) == {f"nights/{OLDER}", f"nights/{first}"}
    add_unaudited(second), add_unaudited(third)
    assert removed(catalog, 1) == {f"nights/{OLD}", f"nights/{second}"}
    assert [night.id for night in read_nights(catalog)] == [third, NEW]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"sha256": null}', '{"sha256": [1]}', None])
def test_a_models_record_that_cannot_be_read_stays_and_is_named(
    catalog: Catalog, add: Callable[..., Path], content: str | None
) -> None:
    add(NEW)
    _, record = add_model(catalog, "theirs", "m-unused")
    record.unlink()
    record.mkdir() if content is None else record.write_text(content)
    with pruning(catalog, 1) as decided:
        assert decided.spared == ("theirs.json: no model record that can be read",)
    assert removed(catalog, 1) == set()


def test_leftovers_of_killed_writers_go(catalog: Catalog, add: Callable[..., Path]) -> None:
    night, root = add(NEW), Path(catalog.root)
    left = [
        night / "attributions.h5.partial",
        catalog.parts_dir(DIGEST) / "rows-000008-000016.h5.0a1b2c3d.tmp",
        catalog.parts_dir(DIGEST) / "rows-000008-000016.lock",
        root / "latest.0a1b2c3d.tmp",
        root / ".running" / f"{OLD}.lock",
        root / ".pruned" / "half" / "deleted",
    ]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    removed(catalog, 1)
    assert not any(path.exists() for path in left)
    assert find_night(catalog, NEW).state == "sealed"


def test_what_a_symlink_points_to_is_never_removed(catalog: Catalog, add: Callable[..., Path], tmp_path: Path) -> None:
    add(NEW)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").touch()
    (catalog.nights / OLD).symlink_to(elsewhere)
    (Path(catalog.root) / "parts" / "d-linked").symlink_to(elsewhere)
    assert removed(catalog, 1) == set()
    assert (elsewhere / "precious").exists()


def test_one_clean_up_at_a_time_and_at_least_one_night(catalog: Catalog, add: Callable[..., Path]) -> None:
    add(NEW)
    with (
        locked(root_lock(catalog), "another clean-up"),
        pytest.raises(LockBusy, match="another clean-up"),
        pruning(catalog, 1),
    ):
        pass
    with pytest.raises(ValueError, match="at least 1 night, got 0"), pruning(catalog, 0):
        pass
