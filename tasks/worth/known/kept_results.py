"""Results that depend on a model or a configuration, and not on the night: measured once and kept under the root."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from prefect.logging import get_run_logger
from pydantic import BaseModel, ValidationError

from storage.file.disk.durable import make_folder, replacing
from tasks.parts.part_digest import code_digest, settings_digest

__all__ = ["FOLDER", "find_kept", "keep", "kept"]

FOLDER = "known-answers"

Result = TypeVar("Result", bound=BaseModel)


def kept(root: Path, kind: type[Result], settings: Any, measure: Callable[[], Result]) -> Result:
    """The result for these JSON-like settings and this code, as it was measured before, or as it is measured now."""
    found = find_kept(root, kind, settings)
    if found is None:
        found = measure()
        keep(root, settings, found)
    return found


def find_kept(root: Path, kind: type[Result], settings: Any) -> Result | None:
    """The result as it was measured before; None where it was not, or cannot be read."""
    file = _file(root, kind, settings)
    if not file.exists():
        return None
    try:
        return kind.model_validate_json(file.read_text(encoding="utf-8"))
    except ValidationError as error:
        get_run_logger().warning("%s cannot be read and is measured again: %s", file, str(error).splitlines()[0])
        return None


def keep(root: Path, settings: Any, found: BaseModel) -> None:
    """Writes a result down for the next night."""
    file = _file(root, type(found), settings)
    make_folder(file.parent)
    with replacing(file) as temporary:
        temporary.write_text(found.model_dump_json(indent=1), encoding="utf-8")


def _file(root: Path, kind: type[BaseModel], settings: Any) -> Path:
    digest = settings_digest({"code": code_digest(), "own": _own_digest(), "settings": settings})
    return Path(root) / FOLDER / f"{kind.__name__.lower()}-{digest}.json"


def _own_digest() -> str:
    """Of the code that measures what is kept and is not among what computes parts."""
    here, digest = Path(__file__).parent, hashlib.sha256()
    for path in sorted([*here.glob("*.py"), here.parent / "drift" / "reference_networks.py"]):
        digest.update(path.read_bytes())
    return digest.hexdigest()
