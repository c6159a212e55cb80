"""Where `nightlens browse` shows a root: browse.json in it, for as long as that process serves there.

    {"address": "http://127.0.0.1:8123", "host": "lab", "pid": 4711, "started": "2026-11-26T02:00:00+00:00"}

A browse that was killed leaves its record behind, and so nobody believes one whose process is gone, or whose address takes no
connection: the number of a process is given to another one some day. Nor is one of another machine believed, where roots are
shared: its 127.0.0.1 is not ours.
"""

import json
import os
import re
import socket
import urllib.parse
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from storage.errors import StoreCorrupt
from storage.file.disk.durable import replacing
from storage.nights.night_records import read_json

__all__ = ["browse_address", "remove_browse_record", "write_browse_record"]

RECORD = "browse.json"
# It becomes a link on pages, so nothing else may be in it.
ADDRESS = re.compile(r"http://([\w.-]+|\[[\da-fA-F:]+\]):\d{1,5}", re.ASCII)
CONNECT_TIMEOUT_S = 1.0


def write_browse_record(root: Path, address: str) -> None:
    """Say that this process shows the root at an address, such as http://127.0.0.1:8123; the last one to say so counts.

    Raises ValueError if it is no such address, OSError if the record cannot be written.
    """
    if not ADDRESS.fullmatch(address):
        raise ValueError(f"expected an address such as http://127.0.0.1:8123, got {address!r}")
    started = datetime.now(UTC).isoformat(timespec="seconds")
    about = {"address": address, "host": socket.gethostname(), "pid": os.getpid(), "started": started}
    with replacing(Path(root) / RECORD) as temporary:
        temporary.write_text(json.dumps(about) + "\n", encoding="utf-8")


def remove_browse_record(root: Path) -> None:
    """Take this process's record away; one of a browse that came later stays."""
    about = _read(root)
    if (about.get("host"), about.get("pid")) == (socket.gethostname(), os.getpid()):
        (Path(root) / RECORD).unlink(missing_ok=True)


def browse_address(root: Path) -> str | None:
    """Where this machine shows the root now; None without a record, with one that is no record, or if nobody is there."""
    about = _read(root)
    address, pid = about.get("address"), about.get("pid")
    if not (isinstance(address, str) and ADDRESS.fullmatch(address) and isinstance(pid, int) and pid > 0):
        return None
    if about.get("host") != socket.gethostname():
        return None
    return address if _lives(pid) and _answers(address) else None


def _read(root: Path) -> dict[str, Any]:
    try:
        return read_json(Path(root) / RECORD) or {}
    except StoreCorrupt:
        return {}


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def _answers(address: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(address)
        with socket.create_connection((parts.hostname, parts.port or 0), timeout=CONNECT_TIMEOUT_S):
            return True
    except (OSError, ValueError):
        return False
