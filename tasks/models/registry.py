"""The registry of trained models: `.keras` files in a folder, each with a JSON record beside it.

A model is reused only if it was trained on the same dataset (fingerprint) with the same settings, and its file still has
the digest that the record gives. Any other model can be loaded by its path (`tasks.models`).
"""

import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

import keras
from pydantic import BaseModel, ConfigDict, ValidationError

from storage.file.disk.durable import make_folder, replacing
from tasks.models import ACCEPTED, SUFFIXES, ModelError, digest_code, digest_file, is_there, load_model

__all__ = [
    "ModelError",
    "ModelRecord",
    "digest_file",
    "existing_model",
    "find_model",
    "list_models",
    "load_model",
    "read_record",
    "save_model",
]

logger = logging.getLogger(__name__)


class ModelRecord(BaseModel):
    """What is known of a model.

    path: of its file, or of a SavedModel's folder. code: the Python file that defines what in it is not Keras's own.
    history: per epoch, the values of loss, accuracy, val_loss and val_accuracy; empty for a model from elsewhere.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    path: Path
    sha256: str
    code: Path | None = None
    code_sha256: str = ""
    dataset_name: str = ""
    dataset_sha256: str = ""
    training: dict[str, float | int | bool] = {}
    history: dict[str, list[float]] = {}
    n_parameters: int = 0
    seconds: float = 0.0
    created_utc: str = ""

    @property
    def epochs(self) -> int:
        return len(self.history.get("loss", []))


def save_model(model: keras.Model, folder: Path, record: ModelRecord) -> ModelRecord:
    """Writes the model and then its record, each under its final name only once it is whole; returns the record.

    record: path and sha256 are filled in here.
    """
    path = make_folder(folder).absolute() / f"{record.name}.keras"
    with replacing(path, temporary=path.with_name(f".{record.name}.partial.keras")) as temporary:
        model.save(temporary)
    record = record.model_copy(update={"path": path, "sha256": digest_file(path)})
    with replacing(path.with_suffix(".json")) as temporary:
        temporary.write_text(record.model_dump_json(indent=1))
    return record


def list_models(folder: Path, warn: Callable[[str], object] = logger.warning) -> list[ModelRecord]:
    """The records in the registry, newest first. One that cannot be read is passed over; `warn` is called with why."""
    records = []
    for path in sorted(folder.glob("*.json")):
        try:
            records.append(_parse(path))
        except ModelError as error:
            warn(str(error))
    return sorted(records, key=lambda record: record.created_utc, reverse=True)


def _parse(path: Path) -> ModelRecord:
    try:
        record = ModelRecord.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else _validation_reason(error)
        raise ModelError(
            f"{path}: not a model record that can be read ({reason}), passed over; delete it and the model beside it"
        ) from None
    return record.model_copy(update={"path": path.with_suffix(".keras").absolute()})


def _validation_reason(error: ValidationError) -> str:
    """The first thing that pydantic found, in a line: where, and what is wrong."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else first["msg"]


def find_model(folder: Path, *, dataset_sha256: str, training: dict[str, float | int | bool]) -> ModelRecord | None:
    """The newest model trained on that dataset with those settings whose file is as it was written, if there is one.

    A record or a file that cannot be read is passed over, with a warning.
    """
    for record in list_models(folder):
        if record.dataset_sha256 != dataset_sha256 or record.training != training or not record.path.is_file():
            continue
        try:
            if digest_file(record.path) == record.sha256:
                return record
        except OSError as error:
            logger.warning("%s cannot be read (%s), passed over", record.path, error.strerror)
    return None


def existing_model(source: str, folder: Path) -> Path:
    """The path of a registered model, given its name, or of any model, given its path.

    Raises ModelError saying what there is if that is neither.
    """
    path = Path(source).expanduser()
    if "/" in source or path.suffix in SUFFIXES:
        return read_record(path).path
    records = list_models(folder)
    found = next((record.path for record in records if record.name == source), path)
    if not is_there(found):
        known = f"the newest of {len(records)} are {[r.name for r in records[:5]]}" if records else "there is none yet"
        raise ModelError(
            f"no model {source!r} in {folder}, {known}; give a name that `nightlens models` lists, "
            f"or the path of {ACCEPTED}"
        )
    return read_record(found).path


def read_record(path: Path, code: Path | None = None) -> ModelRecord:
    """The record of any model, a file or a folder; one from elsewhere has a name and a digest only.

    code: the Python file that defines what in it is not Keras's own.
    Raises ModelError if there is no such model, or no such code.
    """
    if not is_there(path):
        raise ModelError(f"no model file at {path}; expected auto, train, or the path of {ACCEPTED}")
    sha256, beside = digest_file(path), path.with_suffix(".json")
    own = {"code": code.expanduser().absolute(), "code_sha256": digest_code(code)} if code is not None else {}
    if beside.is_file():
        with contextlib.suppress(ModelError):  # a .json of theirs is none of our records
            record = _parse(beside)
            if record.sha256 == sha256:
                return record.model_copy(update={"path": path.absolute(), **own})
    return ModelRecord(name=path.stem, path=path.absolute(), sha256=sha256, **own)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
