"""Results that depend on a model or a configuration, and not on the night: measured once and kept under the root."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from prefect.logging import get_run_logger
from pydantic import BaseModel, ValidationError

from storage.file.disk.durable import make_folder, replacing
from tasks.parts.part_digest import code_digest, settings_digest

__all__ = ["FOLDER", "kept"]

FOLDER = "known-answers"

Result = TypeVar("Result", bound=BaseModel)


def kept(root: Path, kind: type[Result], settings: Any, measure: Callable[[], Result]) -> Result:
    """The result for these JSON-like settings and this code, as it was measured before, or as it is measured now."""
    digest = settings_digest({"code": code_digest(), "own": _own_digest(), "settings": settings})
    file = Path(root) / FOLDER / f"{kind.__name__.lower()}-{digest}.json"
    if file.exists():
        try:
            return kind.model_validate_json(file.read_text(encoding="utf-8"))
        except ValidationError as error:
            get_run_logger().warning("%s cannot be read and is measured again: %s", file, str(error).splitlines()[0])
    found = measure()
    make_folder(file.parent)
    with replacing(file) as temporary:
        temporary.write_text(found.model_dump_json(indent=1), encoding="utf-8")
    return found


def _own_digest() -> str:
    """Of the code in this package, which is not what computes parts."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
