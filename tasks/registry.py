"""The registry of trained models: `.keras` files in a folder, each with a JSON record beside it.

A model is reused only if it was trained on the same dataset (fingerprint) with the same settings, and its file still has
the digest that the record gives. Any other Keras file can be loaded by its path; Keras' safe mode stays on.
"""

import contextlib
import hashlib
import logging
import zipfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from storage.durable import make_folder, replacing
from tasks.numerics.precision import in_precision, other_precisions

__all__ = [
    "ModelError",
    "ModelRecord",
    "check_fit",
    "existing_model",
    "find_model",
    "list_models",
    "load_model",
    "read_record",
    "save_model",
]

logger = logging.getLogger(__name__)

SUFFIXES = (".keras", ".h5", ".hdf5")


class ModelError(ValueError):
    """A model that cannot be used: what was expected, what came, what to do."""


class ModelRecord(BaseModel):
    """What is known of a model.

    history: per epoch, the values of loss, accuracy, val_loss and val_accuracy; empty for a model from elsewhere.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    path: Path
    sha256: str
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


def digest_file(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    """The file of a registered model, given its name, or of any model, given its path.

    Raises ModelError saying what there is if that is neither.
    """
    path = Path(source).expanduser()
    if path.suffix in SUFFIXES:
        return read_record(path).path
    records = list_models(folder)
    found = next((record.path for record in records if record.name == source), None)
    if found is None:
        known = f"the newest of {len(records)} are {[r.name for r in records[:5]]}" if records else "there is none yet"
        raise ModelError(
            f"no model {source!r} in {folder}, {known}; give a name that `nightlens models` lists, "
            f"or the path of a {' or '.join(SUFFIXES[:2])} file"
        )
    return read_record(found).path


def read_record(path: Path) -> ModelRecord:
    """The record of any model file; one from elsewhere has a name and a digest only.

    Raises ModelError if there is no such file.
    """
    if not path.is_file():
        raise ModelError(f"no model file at {path}; expected auto, train, or the path of a .keras or .h5 file")
    sha256, beside = digest_file(path), path.with_suffix(".json")
    if beside.is_file():
        with contextlib.suppress(ModelError):  # a .json of theirs is none of our records
            record = _parse(beside)
            if record.sha256 == sha256:
                return record.model_copy(update={"path": path.absolute()})
    return ModelRecord(name=path.stem, path=path.absolute(), sha256=sha256)


def load_model(path: Path) -> keras.Model:
    """The model of a .keras or .h5 file, not compiled, to compute in float32 whatever it was saved with.

    Raises ModelError if it is not a model, needs code of its own, has no fixed graph, has weights that are not finite, or
    cannot be had in float32.
    """
    if path.suffix not in SUFFIXES:
        raise ModelError(f"{path}: expected a .keras or .h5 model file, got {path.suffix or 'no suffix'}")
    if path.suffix == ".keras" and not zipfile.is_zipfile(path):
        raise ModelError(
            f"{path}: expected a .keras file, which is a zip archive, got something else; save it with model.save()"
        )
    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise ModelError(
            f"{path}: not a Keras model that can be loaded ({_first_line(error)}); save it again with model.save()"
        ) from None
    if not isinstance(model, keras.Sequential) and not model.inputs:
        raise ModelError(f"{path}: expected a Functional or built Sequential model, got {type(model).__name__}")
    if not model.built:
        raise ModelError(f"{path}: the model has no input shape; call it once on an image before saving it")
    for weight in model.weights:
        if not np.isfinite(weight.numpy()).all():
            raise ModelError(f"{path}: weight {weight.path!r} has values that are not finite; train the model again")
    return _in_float32(model, path)


def _in_float32(model: keras.Model, path: Path) -> keras.Model:
    """The model itself, or one of the same weights if it computes in another precision; several inputs are refused later."""
    others = other_precisions(model)
    if not others or len(model.inputs) != 1:
        return model
    try:
        return in_precision(model, "float32")
    except ValueError as error:
        raise ModelError(
            f"{path}: expected a model that computes in float32, got {', '.join(others)}, and {error}; "
            "save it with the dtype policy 'float32'"
        ) from error


def check_fit(model: keras.Model, record: ModelRecord, *, shape: tuple[int, int, int], n_classes: int) -> None:
    """Raises ModelError unless the model takes images of that shape, (y, x, channel), and knows so many classes."""
    shapes = [tuple(tensor.shape[1:]) for tensor in model.inputs]
    if shapes != [shape]:
        raise ModelError(
            f"model {record.name} takes images of shape {shapes[0] if len(shapes) == 1 else shapes}, "
            f"the dataset has {shape}; choose another model, or set dataset.transform and dataset.size"
        )
    known = model.outputs[0].shape[-1]
    if known != n_classes:
        raise ModelError(
            f"model {record.name} knows {known} classes, the dataset has {n_classes}; "
            "choose another model, or train one with `--model train`"
        )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
