"""Load: the network in a file or a folder, as a Keras model that computes in float32.

Keras' safe mode stays on: no code that is in a model's file is executed.
"""

import copy
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tasks.models.custom_code import custom_objects
from tasks.models.file_kinds import WEIGHTS, Kind, kind_of
from tasks.models.keras2.keras2_graphs import translate
from tasks.models.keras_archive import Contents, read_contents
from tasks.models.model_errors import ModelError, reason
from tasks.models.saved_model import load_saved_model
from tasks.models.weights import load_archived, load_named
from tasks.numerics.network.precision import in_precision, other_precisions

__all__ = ["load_model", "load_own_model"]

# A way that works for every model that Keras 2 itself can load.
CONVERT = (
    "convert it with Keras 2, which `pip install tf_keras` installs: tf_keras.models.load_model(FILE, compile=False)"
    ".export(FOLDER), and give the folder"
)
ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    IndexError,
    NotImplementedError,
    RuntimeError,
)


def load_model(path: Path, code: Path | None = None, place: str | None = None) -> keras.Model:
    """The model of a .keras or .h5 file, or of a SavedModel's folder, not compiled, to compute in float32.

    It is read once for as long as its file stays the same, since a night asks for it at every stage: it is not to be changed.
    code: a Python file that defines the layers and functions of the model that are not Keras's own; it is executed.
    place: the device that its weights are put on, of several GPUs; TensorFlow's choice by default.
    Raises ModelError if it is not a model, needs code that is not there, is no function of one image, has weights that
    are not finite, or cannot be had in float32.
    """
    with tf.device(place):
        return _load(path, code, _state(path), _state(code) if code else (), place)


def load_own_model(path: Path, code: Path | None = None) -> keras.Model:
    """The same model, read once more and nobody else's: it may be changed. Raises ModelError as `load_model` does."""
    return _load.__wrapped__(path, code, (), (), None)


def _state(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Name, size and time of change of a file, or of the files of a SavedModel; of anything else nothing."""
    saved = (path / "saved_model.pb").is_file()
    files = sorted(path.rglob("*")) if saved else [path] if path.is_file() else []
    return tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)


@lru_cache(maxsize=1)
def _load(path: Path, code: Path | None, _path_state: tuple, _code_state: tuple, _place: str | None) -> keras.Model:
    kind = kind_of(path)
    if kind == "saved_model":
        model = load_saved_model(path)
    else:
        if kind == "archive":
            _refuse_damaged(path)
        contents = read_contents(path, kind)
        model = _of_keras2(path, kind, contents, code) if contents.is_keras2 else _of_keras3(path, kind, contents, code)
        model = _as_graph(model, path)
    for weight in model.weights:
        if not np.isfinite(weight.numpy()).all():
            raise ModelError(f"{path}: weight {weight.path!r} has values that are not finite; train the model again")
    return _in_float32(model, path)


def _of_keras3(path: Path, kind: Kind, contents: Contents, code: Path | None) -> keras.Model:
    own = custom_objects(contents.config, path, code)
    try:
        with _named_as(path, kind) as file:
            return keras.models.load_model(file, custom_objects=own, compile=False, safe_mode=True)
    except ERRORS as error:
        raise ModelError(
            f"{path}: not a Keras model that can be loaded ({reason(error)}); save it again with model.save()"
        ) from None


def _refuse_damaged(path: Path) -> None:
    """Raises ModelError if a checksum of the archive is wrong: HDF5 may end the process when it reads damaged weights."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError):
        damaged = "its directory"
    if damaged:
        raise ModelError(f"{path}: damaged, {damaged} in it has another checksum than it should; copy or save it again")


@contextmanager
def _named_as(path: Path, kind: Kind) -> Iterator[Path]:
    """The file under a name that says what it is, which Keras goes by."""
    right = {"hdf5": (".h5", ".hdf5"), "archive": (".keras",), "folder": (path.suffix,)}[kind]
    if path.suffix in right:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(shutil.copyfile(path, Path(folder) / f"model{right[0]}"))


def _of_keras2(path: Path, kind: Kind, contents: Contents, code: Path | None) -> keras.Model:
    """A model of Keras 2, made by Keras 3 from its configuration in Keras 3's words, with its weights."""
    written = f"written by Keras {contents.version}" if contents.version else "written by a Keras that says no version"
    if not contents.version.startswith("2.") or contents.backend not in ("", "tensorflow"):
        by = f" on {contents.backend}" if contents.backend else ""
        raise ModelError(f"{path}: {written}{by}; expected Keras 2 on TensorFlow, or Keras 3")
    try:
        config = translate(contents.config, str(path))
    except ModelError as error:
        raise ModelError(f"{error} ({written}); {CONVERT}") from None
    except ERRORS:
        raise ModelError(f"{path}: {written}, and its configuration is none that Keras 2 writes; {CONVERT}") from None
    own = custom_objects(config, path, code)
    try:
        model = keras.saving.deserialize_keras_object(copy.deepcopy(config), custom_objects=own, safe_mode=True)
        with _named_as(path, kind) as file:
            if kind == "hdf5":
                load_named(model, file)
            else:
                load_archived(model, config, path, file if kind == "archive" else path / WEIGHTS)
    except ModelError as error:
        raise ModelError(f"{error} ({written}); {CONVERT}") from None
    except ERRORS as error:
        raise ModelError(f"{path}: {written}, and Keras 3 cannot load it ({reason(error)}); {CONVERT}") from None
    return model


def _as_graph(model: Any, path: Path) -> keras.Model:
    """The model itself if it is a graph of layers, else one around it, if it is called with one image."""
    if not isinstance(model, keras.Model):
        raise ModelError(f"{path}: expected a model, got {type(model).__name__}; save the model with model.save()")
    if isinstance(model, keras.Sequential) or getattr(model, "inputs", None):
        if not model.built:
            raise ModelError(f"{path}: the model has no input shape; call it once on an image before saving it")
        return model
    shape = _input_shape(model)
    if shape is None:
        raise ModelError(
            f"{path}: the model {type(model).__name__} has no graph of layers, and its file does not say which images it "
            "takes; call it once on an image before saving it"
        )
    images = keras.Input(shape, name="images")
    try:
        return keras.Model(images, model(images))
    except ERRORS as error:
        raise ModelError(
            f"{path}: the model {type(model).__name__} cannot be called on one image of shape {shape} ({reason(error)}); "
            "build a Functional model around it, and save that"
        ) from None


def _input_shape(model: keras.Model) -> tuple[int | None, ...] | None:
    """The shape of an image that a model without a graph was built for, if its file says so."""
    shape = (model.get_build_config() or {}).get("input_shape")
    if not isinstance(shape, list | tuple) or len(shape) < 2 or not all(n is None or isinstance(n, int) for n in shape):
        return None
    return tuple(shape[1:])


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
