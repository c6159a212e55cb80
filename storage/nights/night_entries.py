"""The nights of a root: what has become of each, by its folder alone.

    nights/<id>/run.json         what was asked for, what is explained, and how it ended; from before the first part on
    nights/<id>/attributions.h5  sealed
    nights/<id>/night.json       audited, too
    nights/<id>/pinned           never to be pruned
    .running/<id>.lock           held by the process that works on it

A night that was killed leaves a run.json that knows of no end, and no lock: it is interrupted, and can be resumed.
One whose run.json or night.json cannot be read is damaged, as is a folder that holds something else: what became of it is
not known, so nothing is done to it.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from storage.errors import StoreCorrupt, StoreError, StoreNotFound
from storage.file.catalog import STORE_NAME, Catalog
from storage.file.disk.durable import make_folder, replacing, sync
from storage.file.disk.lock import locked, owner_of
from storage.file.disk.sizes import size_below
from storage.file.layout import read_attributes
from storage.nights.night_records import RUN_RECORD, read_json, read_result, read_run
from storage.read import checked
from storage.read.parts.part_summary import part_path

State = Literal["running", "sealed", "failed", "interrupted", "damaged"]
PIN = "pinned"
ROOT_PATIENCE_S, NIGHT_PATIENCE_S = 600.0, 5.0
# What a writer leaves that was killed before the night had a record.
UNFINISHED = (".tmp", ".partial")


@dataclass(frozen=True)
class NightEntry:
    """One night, as its folder says.

    n_rows, accuracy, relevance_gain (mean of its rows), digest, model_sha256, began: None where nothing is known of them (yet).
    warnings: the kind of each.
    n_parts, n_parts_done: of a night that is not sealed. bytes: all files in its folder. note: what else there is to say.
    """

    id: str
    folder: Path
    state: State
    n_rows: int | None = None
    accuracy: float | None = None
    relevance_gain: float | None = None
    warnings: tuple[str, ...] = ()
    bytes: int = 0
    began: datetime | None = None
    is_latest: bool = False
    is_pinned: bool = False
    has_store: bool = False
    can_resume: bool = False
    n_parts: int = 0
    n_parts_done: int = 0
    digest: str | None = None
    model_sha256: str | None = None
    note: str = ""
    run: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


@contextmanager
def working_on(catalog: Catalog, night_id: str) -> Iterator[None]:
    """Be known as the process that works on a night; a clean-up that has begun is waited for.

    Raises LockBusy if another process works on it, ValueError for an id that is no plain name.
    """
    lock = running_lock(catalog, night_id)
    make_folder(lock.parent)
    with ExitStack() as held:
        with locked(root_lock(catalog), f"the beginning of night {night_id}", patience_s=ROOT_PATIENCE_S):
            held.enter_context(locked(lock, f"night {night_id}", patience_s=NIGHT_PATIENCE_S))
        yield


def root_lock(catalog: Catalog) -> Path:
    """Held while a night begins and while a root is pruned."""
    return Path(catalog.root) / ".lock"


def running_lock(catalog: Catalog, night_id: str) -> Path:
    """Held by the process that works on a night."""
    return Path(catalog.root) / ".running" / f"{catalog.night_dir(night_id).name}.lock"


def begin_run(catalog: Catalog, night_id: str, *, parameters: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
    """Write down what a night is about to explain, so that it can be resumed; how it ended before is forgotten.

    parameters: all that the night was asked for. plan: digest, start, stop, part_rows and model_sha256.
    """
    make_folder(catalog.night_dir(night_id))
    _write_run(catalog, night_id, {"parameters": parameters, "plan": plan})


def end_run(catalog: Catalog, night_id: str, *, failure: str | None = None) -> None:
    """Write down that a night that had begun came to its end, or why it failed."""
    path = catalog.night_dir(night_id) / RUN_RECORD
    if (run := read_json(path)) is not None:
        ended = {"ended": datetime.now(UTC).isoformat(timespec="seconds")}
        _write_run(catalog, night_id, run | ({"failure": failure} if failure else ended))


def _write_run(catalog: Catalog, night_id: str, run: Mapping[str, Any]) -> None:
    with replacing(catalog.night_dir(night_id) / RUN_RECORD) as temporary:
        temporary.write_text(json.dumps(run, indent=1, allow_nan=False), encoding="utf-8")


def pin(catalog: Catalog, night_id: str, *, pinned: bool) -> None:
    """Protect a night from being pruned, or stop to. Raises StoreNotFound listing the nights if there is none so called."""
    folder = find_night(catalog, night_id).folder
    if pinned:
        (folder / PIN).touch()
    else:
        (folder / PIN).unlink(missing_ok=True)
    sync(folder)


def find_night(catalog: Catalog, night_id: str) -> NightEntry:
    """The night of that id. Raises StoreNotFound listing the nights if there is none, ValueError for no plain name."""
    folder = catalog.night_dir(night_id)
    if not folder.is_dir():
        known = [night.id for night in read_nights(catalog)]
        there = f"the last of {len(known)} are {known[:5]}" if known else "there is none yet"
        raise StoreNotFound(f"{catalog.root} has no night {night_id!r}; {there}")
    return read_night(catalog, folder.name)


def read_nights(catalog: Catalog) -> list[NightEntry]:
    """All nights of a root, newest first; those that run and have no folder yet, too."""
    ids = {folder.name for folder in catalog.nights.glob("*") if folder.is_dir() and not folder.is_symlink()}
    ids |= {lock.stem for lock in (Path(catalog.root) / ".running").glob("*.lock") if owner_of(lock)}
    return [read_night(catalog, night_id) for night_id in sorted(ids, reverse=True)]


def read_night(catalog: Catalog, night_id: str) -> NightEntry:
    """What there is to know of one night. A record that cannot be read makes it damaged, says why, and is no error."""
    folder, problems = catalog.nights / night_id, list[str]()
    run, result = _noted(read_run, folder, problems), _noted(read_result, folder, problems)
    owner = owner_of(Path(catalog.root) / ".running" / f"{night_id}.lock")
    plan, has_store = run.get("plan", {}), (folder / STORE_NAME).is_file()
    if not (run or result or has_store or problems) and _holds_something(folder):
        problems.append(f"there is no {RUN_RECORD}: no night of nightlens")
    state = _state(run, result, is_running=owner is not None, is_damaged=bool(problems))
    parts = [part_path(catalog.parts_dir(plan["digest"]), *rows) for rows in _ranges(plan)] if plan else []
    n_done = sum(part.is_file() for part in parts)
    notes = list(problems)
    if owner:
        notes.append(str(owner))
    elif "failure" in run:
        notes.append(str(run["failure"]))
    if state not in ("sealed", "damaged"):
        notes.append(
            "sealed, not audited" if has_store else f"{n_done} of {len(parts)} parts" if parts else "no part yet"
        )
    digest, model = (plan["digest"], plan["model_sha256"]) if plan else _sealed_identity(folder / STORE_NAME)
    return NightEntry(
        id=night_id,
        folder=folder,
        state=state,
        n_rows=result.get("n_rows", plan["stop"] - plan["start"] if plan else None),
        accuracy=result.get("accuracy"),
        relevance_gain=result.get("relevance_gain"),
        warnings=tuple(str(warning["kind"]) for warning in result.get("warnings", ())),
        bytes=size_below(folder),
        began=night_began(night_id),
        is_latest=catalog.latest_name() == night_id,
        is_pinned=(folder / PIN).is_file(),
        has_store=has_store,
        can_resume=bool(plan) and "ended" not in run and not owner,
        n_parts=len(parts),
        n_parts_done=n_done,
        digest=digest,
        model_sha256=model,
        note="; ".join(notes),
        run=run,
    )


def _state(run: Mapping[str, Any], result: Mapping[str, Any], *, is_running: bool, is_damaged: bool) -> State:
    if is_running:
        return "running"
    if is_damaged:
        return "damaged"
    return "sealed" if result else "failed" if "failure" in run else "interrupted"


def _holds_something(folder: Path) -> bool:
    """Whether a folder holds more than what a killed writer leaves."""
    return folder.is_dir() and any(path.suffix not in UNFINISHED for path in folder.iterdir())


def _ranges(plan: Mapping[str, Any]) -> list[tuple[int, int]]:
    start, stop, step = plan["start"], plan["stop"], plan["part_rows"]
    return [(first, min(stop, first + step)) for first in range(start, stop, step)]


def _sealed_identity(store: Path) -> tuple[str | None, str | None]:
    """Digest and model of a store from before nights had a run.json; None where it does not say."""
    try:
        with checked.open_file(store) as file, checked.named_damage(store, "the root attributes"):
            about = read_attributes(file)
    except (StoreError, OSError):
        return None, None
    return str(about.get("digest")), str(about.get("model_sha256"))


def _noted(read: Callable[[Path], dict[str, Any]], folder: Path, problems: list[str]) -> dict[str, Any]:
    try:
        return read(folder)
    except StoreCorrupt as error:
        problems.append(str(error))
        return {}


def night_began(night_id: str) -> datetime | None:
    try:
        return datetime.strptime(night_id.partition("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None
