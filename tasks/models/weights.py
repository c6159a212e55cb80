"""The weights of a file that Keras 2 wrote, each in its place.

An .h5 file lists a layer's weights by name, the trainable ones first, so that their order depends on which layers were frozen;
a nested model is one layer. So they are matched by name: first the layer within the layer, then the weight. A .keras
file numbers them by class and position of the layers, and names nothing. In both, every weight of the file must have a place
and every place a weight: what does not fit is refused, never loaded by guess.
"""

import hashlib
import io
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
from numpy.typing import NDArray

from tasks.models.file_kinds import WEIGHTS
from tasks.models.keras2.keras2_layers import new_name
from tasks.models.model_errors import ModelError, reason

__all__ = ["check_order", "load_archived", "load_named"]

OTHER_NAMES = {"depthwise_kernel": "kernel"}  # of DepthwiseConv2D
OF_TRAINING = ("optimizer", "metrics", "loss_tracker", "_metrics")
OF_DRAWING = re.compile(r"(random|seed)_generator")
Weights = dict[str, Any]


def load_named(model: keras.Model, path: Path) -> None:
    """Sets the weights of the model, made from the file's configuration, to those of an .h5 file.

    Raises ModelError if they do not fit.
    """
    with h5py.File(path) as file:
        group = file["model_weights"]
        layers = {layer.name: layer for layer in model.layers}
        for name in _attribute(group, "layer_names"):
            values = {weight: np.asarray(group[name][weight]) for weight in _attribute(group[name], "weight_names")}
            if not values:
                continue
            layer = layers.pop(new_name(name), None)
            if layer is None:
                raise ModelError(f"{path}: the weights of layer {name!r} have no layer in the model")
            _set(layer, values, path)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # which computes with numbers that it makes of its weights
    left = [name for name, layer in layers.items() if layer.weights]
    if left:
        raise ModelError(f"{path}: no weights for layer {left[0]!r}; the file is incomplete, save the model again")


def _attribute(group: Any, name: str) -> list[str]:
    """A list of names, which a long one is cut into pieces for."""
    pieces = [group.attrs[name]] if name in group.attrs else []
    while f"{name}{len(pieces)}" in group.attrs:
        pieces.append(group.attrs[f"{name}{len(pieces)}"])
    return [text.decode() if isinstance(text, bytes) else str(text) for piece in pieces for text in piece]


def _set(layer: keras.layers.Layer, values: dict[str, NDArray], path: Path) -> None:
    """Sets a layer's weights, those of the layers within it too."""
    theirs: list[tuple[str, Weights]] = []
    for name, value in values.items():
        owner, _, weight = name.partition(":")[0].rpartition("/")
        _group(theirs, new_name(owner), weight)[weight] = value
    ours: list[tuple[str, Weights]] = []
    for variable in (*layer.trainable_weights, *layer.non_trainable_weights):
        owner, _, weight = variable.path.rpartition("/")
        _group(ours, owner, weight)[weight] = variable
    for (owner, variables), (_, given) in _paired(ours, theirs, layer, path):
        for weight, numbers in _matched(variables, given):
            if numbers is None or tuple(weight.shape) != numbers.shape:
                raise ModelError(
                    f"{path}: the weights of layer {owner!r} do not fit: expected {weight.name} of shape "
                    f"{tuple(weight.shape)}, got {'none' if numbers is None else numbers.shape}"
                )
            weight.assign(numbers)


def _group(groups: list[tuple[str, Weights]], owner: str, weight: str) -> Weights:
    """The weights of an owner; a second one of the same name has its own."""
    for name, weights in groups:
        if name == owner and weight not in weights:
            return weights
    groups.append((owner, {}))
    return groups[-1][1]


def _paired(ours: list, theirs: list, layer: keras.layers.Layer, path: Path) -> list[tuple[Any, Any]]:
    """Owners of weights in the model and in the file: those of the same name, in order, and then the others in order."""
    if len(ours) != len(theirs):
        raise ModelError(
            f"{path}: the weights of layer {layer.name!r} do not fit: expected those of {len(ours)} layers, got {len(theirs)}"
        )
    by_name: dict[str, list] = defaultdict(list)
    for owner in theirs:
        by_name[_last(owner[0])].append(owner)
    pairs, left = [], []
    for owner in ours:
        same = by_name[_last(owner[0])]
        if same:
            pairs.append((owner, same.pop(0)))
        else:
            left.append(owner)
    return [*pairs, *zip(left, [owner for owners in by_name.values() for owner in owners], strict=True)]


def _last(owner: str) -> str:
    return owner.rpartition("/")[2]


def _matched(variables: Weights, given: Weights) -> list[tuple[Any, NDArray | None]]:
    """Each variable with its value, by name, and one that has another name in the file with what is left there."""
    renamed = {OTHER_NAMES.get(name, name) if name not in variables else name: value for name, value in given.items()}
    left = iter([value for name, value in renamed.items() if name not in variables])
    return [(variable, renamed[name] if name in renamed else next(left, None)) for name, variable in variables.items()]


def check_order(model: keras.Model, config: dict[str, Any], path: Path) -> None:
    """Raises ModelError unless the model's layers, and those of nested models, are in the order of the configuration.

    A .keras file counts its layers in that order.
    """
    named = [layer for layer in config["config"]["layers"] if layer["class_name"] != "InputLayer"]
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    if [layer["config"].get("name", layer.get("name")) for layer in named] != [layer.name for layer in layers]:
        raise ModelError(
            f"{path}: Keras 3 orders the layers of {model.name!r} otherwise than the Keras that wrote the file"
        )
    for layer, written in zip(layers, named, strict=True):
        if isinstance(layer, keras.Model) and "layers" in written["config"]:
            check_order(layer, written, path)


def load_archived(model: keras.Model, config: dict[str, Any], path: Path, weights: Path) -> None:
    """Sets the weights of the model to those of a .keras file.

    config: the configuration it was made from. weights: the .keras file, or model.weights.h5 of an unpacked one.
    Raises ModelError if they do not fit.
    """
    check_order(model, config, path)
    try:
        model.load_weights(weights)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ModelError(f"{path}: the weights do not fit the model ({reason(error)})") from None
    written = sorted(_digest(value) for value in _archived(weights))
    if written != sorted(_digest(weight.numpy()) for weight in model.weights):
        raise ModelError(f"{path}: the file's {len(written)} weights are not those of the model, {len(model.weights)}")


def _archived(weights: Path) -> Iterator[NDArray]:
    """The weights of the network in a .keras file or its model.weights.h5."""
    with ExitStack() as stack:
        source: Any = weights
        if weights.suffix == ".keras":
            source = io.BytesIO(stack.enter_context(zipfile.ZipFile(weights)).read(WEIGHTS))
        file, found = stack.enter_context(h5py.File(source)), list[Any]()
        file.visititems(lambda name, value: found.append((name, value)) if isinstance(value, h5py.Dataset) else None)
        for name, value in found:
            if name.partition("/")[0] not in OF_TRAINING and not OF_DRAWING.search(name):
                yield np.asarray(value)


def _digest(value: NDArray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(value).tobytes()).digest()
