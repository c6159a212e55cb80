"""What a file or a folder is, by its content: its name says what its owner thinks it is.

archive       a .keras file: a zip archive with config.json, metadata.json and the weights
folder        the same files, not in an archive
hdf5          an .h5 file with a model_config
saved_model   a folder with saved_model.pb
"""

import zipfile
from pathlib import Path
from typing import Literal

import h5py

from tasks.models.model_errors import ModelError

__all__ = ["ACCEPTED", "SUFFIXES", "Kind", "kind_of"]

Kind = Literal["archive", "folder", "hdf5", "saved_model"]

ACCEPTED = "a .keras or .h5 file, or the folder of a SavedModel"
SUFFIXES = (".keras", ".h5", ".hdf5")
CONFIG, WEIGHTS = "config.json", "model.weights.h5"
HEAD_BYTES = 512
HDF5, ZIP, LFS = b"\x89HDF\r\n\x1a\n", b"PK", b"version https://git-lfs.github.com/spec"
# Files of other programs, and what is to be done with them.
KERAS_IT = (
    "nightlens explains Keras models: build the network in Keras, give it these weights, and save it with model.save()"
)
OTHERS = {
    (".pt", ".pth", ".ckpt", ".safetensors", ".bin"): ("weights of PyTorch or of another program", KERAS_IT),
    (".onnx",): ("an ONNX model", "give the Keras model that it was made from"),
    (".tflite", ".lite"): ("a TensorFlow Lite model", "give the Keras model that it was converted from"),
    (".json", ".yaml", ".yml"): (
        "a description without weights",
        "save the whole model with model.save('model.keras')",
    ),
    (".pb", ".pbtxt"): ("one file of a SavedModel, or a frozen graph", "give the folder that holds saved_model.pb"),
    (".pkl", ".pickle", ".joblib"): (
        "a pickle, which is never opened",
        "save the model with model.save('model.keras')",
    ),
    (".index", ".data-00000-of-00001"): (
        "part of a TensorFlow checkpoint, which holds weights only",
        "build the network, load the checkpoint into it, and save it with model.save('model.keras')",
    ),
}


def kind_of(path: Path) -> Kind:
    """What the model at a path is. Raises ModelError saying what else it is, and what to do."""
    if path.is_dir():
        return _kind_of_folder(path)
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if head.startswith(LFS):
        raise ModelError(f"{path}: a pointer of Git LFS, not the model itself; run `git lfs pull` in its repository")
    if head.lstrip()[:9].lower() in (b"<!doctype", b"<html><he") or head.lstrip()[:6].lower() == b"<html>":
        raise ModelError(f"{path}: a web page, not a model; download the file itself, not the page that shows it")
    if path.suffix not in SUFFIXES:
        raise ModelError(f"{path}: expected a .keras or .h5 model file, got {_other(path, head)}")
    if head.startswith(HDF5):
        return _hdf5_with_model(path)
    if zipfile.is_zipfile(path):
        return _archive_with_model(path)
    what = _damage(head)
    if path.suffix == ".keras":
        raise ModelError(
            f"{path}: expected a .keras file, which is a zip archive, got {what}; save it with model.save(), or copy it again"
        )
    raise ModelError(
        f"{path}: not a Keras model that can be loaded (expected an HDF5 file, got {what}); "
        "save it again with model.save(), or copy it again"
    )


def _other(path: Path, head: bytes) -> str:
    """What a file of another suffix is, and what to do."""
    if head[4:8] == b"TFL3":
        return "a TensorFlow Lite model; give the Keras model that it was converted from"
    for suffixes, (what, advice) in OTHERS.items():
        if path.suffix.lower() in suffixes:
            return f"{path.suffix}, {what}; {advice}"
    if head.startswith(HDF5) or zipfile.is_zipfile(path):
        right = ".h5" if head.startswith(HDF5) else ".keras"
        return f"{path.suffix or 'no suffix'}; rename it to {path.stem}{right} if it is one"
    return f"{path.suffix or 'no suffix'}; give {ACCEPTED}"


def _damage(head: bytes) -> str:
    if not head:
        return "an empty file"
    if head.startswith(ZIP):
        return "one that is cut off"
    return "something else"


def _kind_of_folder(path: Path) -> Kind:
    if (path / "saved_model.pb").is_file() or (path / "saved_model.pbtxt").is_file():
        return "saved_model"
    if (path / CONFIG).is_file() and (path / WEIGHTS).is_file():
        return "folder"
    inside = sorted(file.name for file in path.iterdir())
    if "checkpoint" in inside or any(name.endswith(".index") for name in inside):
        what = "a TensorFlow checkpoint, which holds weights only"
        advice = "build the network, load the checkpoint into it, and save it with model.save('model.keras')"
        raise ModelError(f"{path}: {what}; {advice}")
    models = [name for name in inside if name.endswith(SUFFIXES) or (path / name / "saved_model.pb").is_file()]
    if models:
        raise ModelError(f"{path}: a folder with {', '.join(models[:5])} in it; give one of them")
    holds = f"it holds {', '.join(inside[:5])}{', ...' if len(inside) > 5 else ''}" if inside else "it is empty"
    raise ModelError(f"{path}: a folder without saved_model.pb, {holds}; give {ACCEPTED}")


def _archive_with_model(path: Path) -> Kind:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    missing = [name for name in (CONFIG, WEIGHTS) if name not in names]
    if len(missing) == 2:
        raise ModelError(
            f"{path}: not a Keras model that can be loaded (a zip archive with {', '.join(names[:3]) or 'nothing'} in it, "
            f"not with {CONFIG} and {WEIGHTS}); save the model with model.save('model.keras')"
        )
    if missing:
        raise ModelError(
            f"{path}: not a Keras model that can be loaded (the archive has no {missing[0]}); "
            "save it again with model.save()"
        )
    return "archive"


def _hdf5_with_model(path: Path) -> Kind:
    try:
        with h5py.File(path) as file:
            if "model_config" in file.attrs:
                return "hdf5"
            is_keras = "layer_names" in file.attrs or not {
                "layers",
                "vars",
                "_layer_checkpoint_dependencies",
            }.isdisjoint(file)
            names = sorted(file)
    except OSError:
        raise ModelError(
            f"{path}: not a Keras model that can be loaded (an HDF5 file that is damaged or cut off); "
            "save it again with model.save(), or copy it again"
        ) from None
    if is_keras:
        raise ModelError(
            f"{path}: weights only, without the network they belong to; build the network in Python, "
            f"call model.load_weights({path.name!r}), and save it whole with model.save('model.keras')"
        )
    raise ModelError(
        f"{path}: not a Keras model that can be loaded (an HDF5 file with {', '.join(names[:3]) or 'nothing'} in it, "
        "without model_config); save the model with model.save('model.keras')"
    )
