"""What a night's folder says of it, run.json and night.json: read, and checked for what readers of them rely on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from storage.errors import StoreCorrupt
from storage.file.catalog import SAFE_NAME

__all__ = ["NIGHT_RECORD", "RUN_RECORD", "checked_result", "parsed_json", "read_json", "read_result", "read_run"]

RUN_RECORD, NIGHT_RECORD = "run.json", "night.json"
PLAN_KEYS = {"digest": str, "start": int, "stop": int, "part_rows": int, "model_sha256": str}


def read_run(folder: Path) -> dict[str, Any]:
    """A night's run.json, empty where there is none. Raises StoreCorrupt if it does not say what the night explains."""
    run = read_json(folder / RUN_RECORD)
    if run is None:
        return {}
    plan, parameters = (_checked(RUN_RECORD, run, key, dict) for key in ("plan", "parameters"))
    for key, kind in PLAN_KEYS.items():
        _checked(f"{RUN_RECORD}, plan", plan, key, kind)
    for section in parameters:
        _checked(f"{RUN_RECORD}, parameters", parameters, section, dict)
    if not SAFE_NAME.fullmatch(plan["digest"]) or plan["part_rows"] < 1:
        raise StoreCorrupt(f"{RUN_RECORD}, plan: expected a digest and parts of rows, got {plan}")
    return run


def read_result(folder: Path) -> dict[str, Any]:
    """A night's night.json, empty where there is none. Raises StoreCorrupt if it does not say how the night came out."""
    result = read_json(folder / NIGHT_RECORD)
    return {} if result is None else checked_result(result)


def checked_result(result: dict[str, Any]) -> dict[str, Any]:
    """The same of what such a file holds."""
    _checked(NIGHT_RECORD, result, "n_rows", int)
    _checked(NIGHT_RECORD, result, "accuracy", (int, float))
    if not isinstance(result.get("relevance_gain"), int | float | None):
        raise StoreCorrupt(f"{NIGHT_RECORD}: relevance_gain cannot be {result['relevance_gain']!r}")
    warnings = result.get("warnings", [])
    if not isinstance(warnings, list) or not all(isinstance(each, dict) and "kind" in each for each in warnings):
        raise StoreCorrupt(f"{NIGHT_RECORD}: warnings cannot be {warnings!r}")
    return result


def _checked(what: str, record: Mapping[str, Any], key: str, kind: type | tuple[type, ...]) -> Any:
    if key not in record:
        raise StoreCorrupt(f"{what}: {key} is missing")
    if not isinstance(record[key], kind):
        raise StoreCorrupt(f"{what}: {key} cannot be {record[key]!r}")
    return record[key]


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file, None where there is no such file. Raises StoreCorrupt for anything else."""
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreCorrupt(f"{path.name} cannot be read ({error.strerror})") from error
    return parsed_json(path.name, text)


def parsed_json(name: str, text: bytes) -> dict[str, Any]:
    """The object in the text of a file of that name. Raises StoreCorrupt for anything else."""
    try:
        read = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise StoreCorrupt(f"{name} cannot be read ({error})") from error
    if not isinstance(read, dict):
        raise StoreCorrupt(f"{name} is no record of a night")
    return read
