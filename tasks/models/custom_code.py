"""Layers and functions of a model that are not Keras's own: which they are, and where they are found.

A file names them and holds no code of theirs. `model.code` is a Python file that defines them. It is executed, as
importing any file is, and only because the owner named it; code that is in a model's file never is.
"""

import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import keras

from tasks.models.keras2.keras2_layers import is_activation
from tasks.models.model_digest import digest_file
from tasks.models.model_errors import ModelError, reason

__all__ = ["custom_objects", "digest_code", "import_code"]

NAMESPACES = ("layers", "activations", "initializers", "regularizers", "constraints", "dtype_policies", "ops", "random")
MODELS = ("Functional", "Model", "Sequential")
EXTENSIONS = ("keras_hub", "keras_cv", "keras_nlp")  # packages that Keras imports for a model
SKIPPED = ("build_config", "compile_config", "inbound_nodes")
# What TensorFlow calls functions that are Keras's too. Their arguments other than the first are at their defaults.
OF_TENSORFLOW: dict[str, Callable[[Any], Any]] = {
    "softmax_v2": keras.activations.softmax,
    "log_softmax_v2": keras.activations.log_softmax,
    "leaky_relu": keras.activations.leaky_relu,
    "swish": keras.activations.silu,
    "identity": keras.activations.linear,
    "exp": keras.ops.exp,
    "abs": keras.ops.abs,
    "square": keras.ops.square,
    "sin": keras.ops.sin,
    "cos": keras.ops.cos,
}
REMEDY = "set model.code to the Python file that defines it"


@dataclass(frozen=True)
class _Named:
    """A class or function that a configuration names. where: what of the model it is, for a reader."""

    name: str
    kind: str
    where: str


def custom_objects(config: Mapping[str, Any], path: Path, code: Path | None) -> dict[str, Any]:
    """What of the model is not Keras's own, by the names that its configuration has for it.

    config: of the model. code: the file that defines it.
    Raises ModelError naming what is not found, a Lambda layer, and a file that cannot be imported.
    """
    module = import_code(code) if code is not None else None
    found: dict[str, Any] = dict(OF_TENSORFLOW)
    if module is not None:  # also for names that only a custom layer knows the meaning of
        found |= {
            name: value for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__
        }
    for named in _strangers(config, str(path)):
        if named.name in found:
            continue
        value = None if module is None else vars(module).get(named.name.rpartition(">")[2])
        if not callable(value):
            raise ModelError(_not_found(named, path, code, module))
        found[named.name] = value
    return {name: value for name, value in found.items() if callable(value)}


def _not_found(named: _Named, path: Path, code: Path | None, module: ModuleType | None) -> str:
    if module is None:
        return (
            f"{path}: {named.where} is {'of ' if named.kind == 'class' else ''}the {named.kind} {named.name}, which is not "
            f"Keras's own; {REMEDY}, which is then executed"
        )
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
    has = f"it defines {', '.join(sorted(own)[:8])}" if own else "it defines no class and no function"
    return f"{code}: does not define the {named.kind} {named.name} of {named.where} in {path.name}; {has}"


def _strangers(config: Any, file: str, where: str = "") -> Iterator[_Named]:
    """Everything in a configuration that Keras does not know. Raises ModelError for code in the file itself."""
    if isinstance(config, list):
        for part in config:
            yield from _strangers(part, file, where)
        return
    if not isinstance(config, Mapping):
        return
    if "class_name" in config and "config" in config:
        where = _described(config, where) if where else "the model"
        _refuse_lambda(config, file, where)
        named = _stranger(config, where)
        if named is not None:
            yield named
    for key, value in config.items():
        if key.endswith("activation") and isinstance(value, str) and not (is_activation(value) or _registered(value)):
            yield _Named(value, "function", f"the {key} of {where}")
        if key not in SKIPPED:
            yield from _strangers(value, file, f"the {key} of {where}" if key.endswith("activation") else where)


def _described(entry: Mapping[str, Any], where: str) -> str:
    name = entry["config"].get("name") if isinstance(entry["config"], Mapping) else None
    return f"layer {name!r}" if isinstance(name, str) and entry["class_name"] != "DTypePolicy" else where


def _refuse_lambda(entry: Mapping[str, Any], file: str, where: str) -> None:
    config = entry["config"]
    function = config.get("function") if isinstance(config, Mapping) else None
    is_code = isinstance(function, list) or (
        isinstance(function, Mapping) and function.get("class_name") == "__lambda__"
    )
    if entry["class_name"] == "Lambda" and is_code:
        raise ModelError(
            f"{file}: not a Keras model that can be loaded ({where} is a Lambda, whose code is in the file and is never "
            "executed); put a layer class of your own in its place, which model.code defines, or, if you trust the file, "
            "run load_model(FILE, compile=False, safe_mode=False).export(FOLDER) in the Keras that wrote it, and give the folder"
        )


def _stranger(entry: Mapping[str, Any], where: str) -> _Named | None:
    class_name, module = str(entry["class_name"]), entry.get("module", "keras" if "module" not in entry else None)
    if class_name == "function":
        name = str(entry["config"])
        known = (module or "").startswith("keras") or is_activation(name) or _registered(name)
        return None if known else _Named(name, "function", where)
    package = (module or "").partition(".")[0]
    if class_name.startswith("__") or _registered(entry.get("registered_name") or class_name):
        return None
    if package in EXTENSIONS:
        if importlib.util.find_spec(package) is None:
            raise ModelError(f"{where} is {class_name} of {package}, which is not installed; install it, or {REMEDY}")
        return None
    if package == "keras" and ("module" in entry or class_name in MODELS or _in_keras(class_name)):
        return None
    return _Named(str(entry.get("registered_name") or class_name), "class", where)


def _registered(name: str) -> bool:
    return keras.saving.get_registered_object(name) is not None


def _in_keras(name: str) -> bool:
    return any(hasattr(getattr(keras, namespace), name) for namespace in NAMESPACES)


def digest_code(code: Path) -> str:
    """The sha256 of a file of code. Raises ModelError if it is none."""
    path = code.expanduser()
    if not path.is_file():
        raise ModelError(f"model.code: expected a Python file, got {code}, which is not there")
    if path.suffix != ".py":
        raise ModelError(f"model.code: expected a Python file, whose name ends in .py, got {code}")
    return digest_file(path)


def import_code(code: Path) -> ModuleType:
    """The module of a Python file, executed once a process for what it holds. Raises ModelError if it cannot be imported."""
    return _import(code.expanduser().absolute(), digest_code(code))


@lru_cache(maxsize=8)
def _import(path: Path, sha256: str) -> ModuleType:
    name = f"nightlens_model_code_{sha256[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ModelError(f"model.code: {path}: cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _beside(path):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever somebody's file raises
        del sys.modules[name]
        raise ModelError(
            f"model.code: {path}{_line_of(error, path)}: cannot be imported ({type(error).__name__}: {reason(error)})"
        ) from error
    return module


def _line_of(error: BaseException, path: Path) -> str:
    """Where in the file it went wrong, as ", line 7"."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    if isinstance(error, SyntaxError) and error.filename == str(path):
        lines.append(error.lineno)
    return f", line {lines[-1]}" if lines else ""


@contextmanager
def _beside(path: Path) -> Iterator[None]:
    """What lies beside the file can be imported from it, as when Python runs it."""
    sys.path.insert(0, str(path.parent))
    try:
        yield
    finally:
        sys.path.remove(str(path.parent))
