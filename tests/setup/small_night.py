"""The parameters of a night that takes a few seconds: rows 0 to 19 in three parts, of a given model, without an audit."""

from pathlib import Path
from typing import Any

import yaml

NO_GALLERY = {"draw": False, "per_class": 0, "mistakes": 0}


def small_night(root: Path, model: object, dataset: object, /, **changed: dict[str, Any]) -> dict[str, Any]:
    """The flow's parameters. model, dataset: their sources. changed: settings by section, beside these or instead of them."""
    parameters: dict[str, dict[str, Any]] = {
        "dataset": {"source": str(dataset)},
        "model": {"source": str(model)},
        "audit": {"n_rows": 0},
        "worth": {"level": "none"},
        "gallery": {"draw": False},
        "explanation": {"part_rows": 8, "batch_size": 64},
        "run": {"root": str(root), "rows": "0:20"},
    }
    for section, settings in changed.items():
        parameters[section] = parameters.get(section, {}) | settings
    return parameters


def write_settings(path: Path, parameters: dict[str, Any]) -> Path:
    """The parameters as a file for `nightlens run --config`."""
    path.write_text(yaml.safe_dump(parameters))
    return path
