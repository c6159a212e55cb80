"""What a sealed night left beside its store: its record, and how its model was trained."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from storage import AttributionStore, Catalog
from storage.nights.night_records import NIGHT_RECORD

__all__ = ["read_history", "read_night"]


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


def read_history(store: AttributionStore, root: Path | None = None) -> dict[str, list[float]]:
    """The training curves from the record beside the model that the store names; empty where there is none of that model.

    root: where the model is, by default as recorded.
    """
    configuration: Any = store.attributes["configuration"]
    resolved = configuration.get("resolved", {}) if isinstance(configuration, Mapping) else {}
    recorded = Path(resolved["model_path"]) if "model_path" in resolved else None
    name = str(store.attributes["model_name"])
    folders = [Catalog(root).models] if root else []
    folders += [recorded.parent] if recorded else []
    for path in (folder / f"{Path(name).name}.json" for folder in folders):
        if path.is_file():
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                continue  # a .json of theirs is none of our records
            if isinstance(record, dict) and record.get("sha256") == store.attributes["model_sha256"]:
                return dict(record.get("history", {}))
    return {}
