"""Results that depend on a model or a configuration, and not on the night: measured once and kept under the root.

A file has the result beside its digest. One that is damaged is measured again: it is never believed, and no night fails by it.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from prefect.logging import get_run_logger
from pydantic import BaseModel

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
        return _read(file, kind)
    except (OSError, ValueError, TypeError, KeyError) as error:
        get_run_logger().warning("%s cannot be read and is measured again: %s", file, str(error).splitlines()[0])
        return None


def keep(root: Path, settings: Any, found: BaseModel) -> None:
    """Writes a result down for the next night."""
    file = _file(root, type(found), settings)
    make_folder(file.parent)
    result = json.loads(found.model_dump_json())
    with replacing(file) as temporary:
        written = {"sha256": settings_digest(result), "result": result}
        temporary.write_text(json.dumps(written, indent=1, allow_nan=False), encoding="utf-8")


def _file(root: Path, kind: type[BaseModel], settings: Any) -> Path:
    digest = settings_digest({"code": code_digest(), "own": _own_digest(), "settings": settings})
    return Path(root) / FOLDER / f"{kind.__name__.lower()}-{digest}.json"


def _read(file: Path, kind: type[Result]) -> Result:
    """Raises ValueError, TypeError or KeyError if the file is not as it was written."""
    written = json.loads(file.read_bytes())
    result, expected = written["result"], written["sha256"]
    if (came := settings_digest(result)) != expected:
        raise ValueError(f"expected a result with the sha256 {expected}, got {came}")
    return kind.model_validate(result)


def _own_digest() -> str:
    """Of the code that measures what is kept and is not among what computes parts."""
    here, digest = Path(__file__).parent, hashlib.sha256()
    for path in sorted([*here.glob("*.py"), here.parent / "drift" / "reference_networks.py"]):
        digest.update(path.read_bytes())
    return digest.hexdigest()
