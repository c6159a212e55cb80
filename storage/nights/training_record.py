"""How the model of a store was trained, from the record that a night leaves beside each model that it trains."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from storage.file.catalog import Catalog
from storage.read.reader import StoreReader

__all__ = ["read_history"]


def read_history(store: StoreReader, root: Path | None = None) -> dict[str, list[float]]:
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
