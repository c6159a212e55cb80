"""What a Keras file says of its network: the configuration, and which Keras wrote it."""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from tasks.models.file_kinds import CONFIG, Kind
from tasks.models.model_errors import ModelError

__all__ = ["Contents", "read_contents"]

METADATA = "metadata.json"


@dataclass(frozen=True, kw_only=True)
class Contents:
    """config: of the model, as JSON gives it. version: keras_version of the writer, such as 2.15.0; empty if unsaid.

    backend: what computed the weights; empty if unsaid.
    """

    config: dict[str, Any]
    version: str
    backend: str

    @property
    def is_keras2(self) -> bool:
        return not self.version.startswith("3.")


def read_contents(path: Path, kind: Kind) -> Contents:
    """What the file says. Raises ModelError if that is no configuration of a model."""
    try:
        if kind == "hdf5":
            found = _of_hdf5(path)
        elif kind == "archive":
            with zipfile.ZipFile(path) as archive:
                found = _of_texts(archive.read(CONFIG), archive.read(METADATA))
        else:
            found = _of_texts((path / CONFIG).read_bytes(), (path / METADATA).read_bytes())
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        zipfile.BadZipFile,
        EOFError,
        NotImplementedError,
    ):
        found = None
    if found is None or not isinstance(found.config, dict) or "class_name" not in found.config:
        raise ModelError(
            f"{path}: not a Keras model that can be loaded (its configuration cannot be read); "
            "save it again with model.save()"
        )
    return found


def _of_texts(config: bytes, metadata: bytes) -> Contents:
    return Contents(config=json.loads(config), version=str(json.loads(metadata).get("keras_version", "")), backend="")


def _of_hdf5(path: Path) -> Contents:
    with h5py.File(path) as file:
        weights = file["model_weights"].attrs if "model_weights" in file else {}
        version, backend = (_text(file.attrs.get(name, weights.get(name, ""))) for name in ("keras_version", "backend"))
        return Contents(config=json.loads(_text(file.attrs["model_config"])), version=version, backend=backend)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
