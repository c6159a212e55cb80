"""What a sealed night left beside its store: its record."""

import json
from pathlib import Path
from typing import Any

from storage.nights.night_records import NIGHT_RECORD

__all__ = ["read_night"]


def read_night(folder: Path) -> dict[str, Any]:
    """The night.json in a night's folder; empty if the night was never finished.

    Raises ValueError if the file is no night's record.
    """
    path = folder / NIGHT_RECORD
    if not path.is_file():
        return {}
    try:
        night = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: expected the JSON of a night, got something else ({error})") from None
    if not isinstance(night, dict) or not isinstance(night.get("verdict"), str):
        raise ValueError(f"{path}: expected the record of a night with a verdict, got none; is it another's file?")
    return night
