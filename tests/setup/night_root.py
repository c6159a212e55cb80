"""A root with a night in it already, what is under it, and nights that must fail there."""

from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import State

from flows.nightly import nightly

EARLIER = "20260101T020000Z-000000"


def fails(parameters: dict[str, Any]) -> str:
    """Runs a night that must fail; the message of its state."""
    state: State = nightly(**parameters, return_state=True)
    assert state.is_failed(), state
    assert state.message
    return state.message


def left_behind(root: Path) -> dict[str, tuple[int, int]]:
    """Every file under nights, models and parts with its inode and modification time, and where `latest` points.

    But for run.json, by which an unfinished night is resumed: a night that explains has one, whatever becomes of it.
    """
    files = {
        str(path.relative_to(root)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for folder in ("nights", "models", "parts")
        for path in (root / folder).rglob("*")
        if path.is_file() and path.name != "run.json"
    }
    latest = root / "latest"
    return files | ({f"latest -> {latest.readlink()}": (0, 0)} if latest.is_symlink() else {})
