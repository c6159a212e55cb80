"""What a night says of itself while it runs, so that somebody can speak of it if it is killed: .running/<id>.json.

The night takes its mark away when it ends, however that is, as long as it can. A mark whose night runs no more was left by one
that was killed, be it by a signal, by the memory's end or with its machine.
"""

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from storage.errors import StoreCorrupt
from storage.file.catalog import SAFE_NAME, Catalog
from storage.file.disk.durable import replacing
from storage.file.disk.lock import LockBusy, locked
from storage.nights.night_entries import running_lock
from storage.nights.night_records import NIGHT_RECORD, read_json

__all__ = ["lost_nights", "mark", "marked_runs", "sealed_runs", "unmark"]


def mark(catalog: Catalog, night_id: str, about: Mapping[str, Any]) -> None:
    """Say of a night that this process works on what is to be known if it never ends.

    Raises OSError if that cannot be written.
    """
    known = {**about, "pid": os.getpid(), "host": socket.gethostname()}
    with replacing(_path(catalog, night_id)) as temporary:
        temporary.write_text(json.dumps(known), encoding="utf-8")


def unmark(catalog: Catalog, night_id: str) -> None:
    """The night ended as it should, or everything was said."""
    _path(catalog, night_id).unlink(missing_ok=True)


def lost_nights(catalog: Catalog) -> Iterator[tuple[str, dict[str, Any]]]:
    """The nights that were killed, and what they said of themselves; nobody else works on one while it is spoken of.

    Whoever takes the next one has done with the last: its mark goes. One that cannot be read is passed on empty.
    """
    for path in sorted((Path(catalog.root) / ".running").glob("*.json")):
        if not SAFE_NAME.fullmatch(path.stem):
            continue
        with ExitStack() as held:
            try:
                held.enter_context(locked(running_lock(catalog, path.stem), f"the page of night {path.stem}"))
            except LockBusy:
                continue
            if path.is_file():
                yield path.stem, _read(path)
                unmark(catalog, path.stem)


def marked_runs(catalog: Catalog) -> set[str]:
    """The flow runs of the nights that have a mark, for whatever is known of them otherwise."""
    marks = (Path(catalog.root) / ".running").glob("*.json")
    return {str(about["flow_run_id"]) for about in map(_read, marks) if "flow_run_id" in about}


def sealed_runs(catalog: Catalog) -> set[str]:
    """The flow runs of the nights that have a record, and so came to their end."""
    records = catalog.nights.glob(f"*/{NIGHT_RECORD}")
    return {str(about["flow_run_id"]) for about in map(_read, records) if "flow_run_id" in about}


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_json(path) or {}
    except StoreCorrupt:
        return {}


def _path(catalog: Catalog, night_id: str) -> Path:
    return running_lock(catalog, night_id).with_suffix(".json")
