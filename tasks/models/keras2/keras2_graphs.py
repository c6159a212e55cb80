"""The configuration of a model that Keras 2 wrote, as Keras 3 spells it.

What differs: classes are named by module; layer names have no "/"; a graph refers to the first call of a nested model as its
node 0, not 1; functions of TensorFlow are layers of ours (`keras2_calls`); arguments and activations (`keras2_layers`).
Models that are no graph of layers, and layers that are nobody's, stay as they are: `custom_code` finds them, or says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks.models.keras2.keras2_calls import CALLS, is_reference, translate_call
from tasks.models.keras2.keras2_layers import keras_layer, layer_arguments, new_name, plain_dtype, translate_activation
from tasks.models.model_errors import ModelError

__all__ = ["translate"]

GRAPHS, NESTED = ("Functional", "Model"), ("Functional", "Model", "Sequential")
# Layers of keras.applications, and the module that Keras 3 itself names for each.
OF_APPLICATIONS = {"LayerScale": "convnext", "StochasticDepth": "convnext", "CustomScaleLayer": "inception_resnet_v2"}
# Written beside a layer or a model, and of no use to one that is not trained.
DROPPED = ("build_config", "compile_config", "shared_object_id")


def translate(config: Mapping[str, Any], file: str) -> dict[str, Any]:
    """The configuration of a model for keras.saving.deserialize_keras_object.

    file: the name of the model's file, for messages. Raises ModelError for what Keras 3 cannot compute.
    """
    return _layer(config, file)


def _layer(entry: Mapping[str, Any], file: str) -> dict[str, Any]:
    class_name, config = entry["class_name"], entry["config"]
    plain = {key: value for key, value in entry.items() if key not in DROPPED}
    if class_name == "Sequential":
        return plain | _of_keras("keras", "Sequential", _sequential(config, file))
    if class_name in GRAPHS and "layers" in config and "input_layers" in config:
        return plain | _of_keras("keras", "Model", _Graph(config, file).translated())
    if class_name == "InputLayer":
        return plain | _of_keras("keras.layers", "InputLayer", _input(config))
    own = class_name.removeprefix("Custom>")
    if own in OF_APPLICATIONS:
        return plain | _of_keras(f"keras.src.applications.{OF_APPLICATIONS[own]}", own, _arguments(config, file))
    if class_name in CALLS:
        raise ModelError(f"{file}: layer {config.get('name')!r} calls a function outside a graph of layers")
    layer = keras_layer(class_name)
    if layer is None or class_name == "Lambda" or _is_foreign(entry):
        return plain | {"config": _arguments(config, file), "name": new_name(config.get("name", class_name))}
    arguments = _arguments(layer_arguments(layer, class_name, config, file), file)
    if layer.__module__.startswith("keras."):
        return plain | _of_keras("keras.layers", layer.__name__, arguments)
    return plain | {
        "module": None,
        "class_name": layer.__name__,
        "config": arguments,
        "registered_name": f"nightlens>{layer.__name__}",
    }


def _is_foreign(entry: Mapping[str, Any]) -> bool:
    """Whether somebody registered a layer of their own under the name of one of Keras's."""
    return ">" in (entry.get("registered_name") or "")


def _of_keras(module: str, class_name: str, config: dict[str, Any]) -> dict[str, Any]:
    return {"module": module, "class_name": class_name, "config": config, "registered_name": None}


def _arguments(config: Mapping[str, Any], file: str) -> dict[str, Any]:
    """The arguments with their dtypes, activations and layers as Keras 3 spells them."""
    return {key: _argument(key, value, file) for key, value in config.items() if key != "batch_input_shape"}


def _argument(key: str, value: Any, file: str) -> Any:
    if key == "dtype":
        return plain_dtype(value)
    if key == "name" and isinstance(value, str):
        return new_name(value)
    if key.endswith("activation") and not (isinstance(value, Mapping) and value.get("class_name") != "function"):
        return translate_activation(value)
    if isinstance(value, Mapping) and keras_layer(str(value.get("class_name"))) is not None:
        return _layer(value, file)  # the layer in a wrapper, a cell, or an activation that is a layer
    if isinstance(value, list):
        return [_argument("", part, file) for part in value]
    return value


def _input(config: Mapping[str, Any]) -> dict[str, Any]:
    """An input, of batches of any size."""
    shape = config.get("batch_input_shape", config.get("batch_shape"))
    given = {"name": new_name(config["name"])} if "name" in config else {}
    return given | {"batch_shape": [None, *shape[1:]], "dtype": plain_dtype(config.get("dtype", "float32"))}


def _sequential(config: Any, file: str) -> dict[str, Any]:
    """A stack of layers, its input before it. The oldest ones are a list of layers without a name."""
    layers = config if isinstance(config, list) else config["layers"]
    name = "sequential" if isinstance(config, list) else config["name"]
    stack = [_layer(layer, file) for layer in layers]
    shape = (
        layers[0]["config"].get("batch_input_shape") if layers and isinstance(layers[0]["config"], Mapping) else None
    )
    if shape is None and isinstance(config, Mapping):
        shape = config.get("build_input_shape")
    if stack and shape is not None and layers[0]["class_name"] not in ("InputLayer", *NESTED):
        dtype = layers[0]["config"].get("dtype", "float32")
        dtype = dtype if str(dtype).startswith(("uint", "int")) else "float32"
        images = _input({"batch_input_shape": shape, "dtype": dtype})
        stack.insert(0, _of_keras("keras.layers", "InputLayer", images))
    return {"name": new_name(name), "layers": stack}


@dataclass
class _Graph:
    """A graph of layers: which of them are nested models decides how their nodes are counted."""

    config: Mapping[str, Any]
    file: str
    nested: dict[str, str] = field(default_factory=dict)

    def translated(self) -> dict[str, Any]:
        self.nested = {
            layer["name"]: layer["class_name"] for layer in self.config["layers"] if layer["class_name"] in NESTED
        }
        return {
            "name": new_name(self.config["name"]),
            "trainable": self.config.get("trainable", True),
            "layers": [self._node_of(layer) for layer in self.config["layers"]],
            "input_layers": self._ends(self.config["input_layers"]),
            "output_layers": self._ends(self.config["output_layers"]),
        }

    def _node_of(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        name, nodes = entry["name"], entry["inbound_nodes"]
        if entry["class_name"] in CALLS:
            return translate_call(entry, self._tensor, self.file)
        layer = _layer(entry, self.file)
        return layer | {"name": new_name(name), "inbound_nodes": [self._node(node) for node in nodes]}

    def _node(self, node: Any) -> dict[str, Any]:
        """One call of a layer: its tensors, in the structure that they came in, and its keywords."""
        if isinstance(node, Mapping) and "args" in node:
            return dict(node)
        keywords: dict[str, Any] = {}

        def tensors(part: Any) -> Any:
            if isinstance(part, Mapping):
                return {key: tensors(value) for key, value in part.items()}
            if not is_reference(part):
                return [tensors(value) for value in part]
            keywords.update(part[3] if len(part) > 3 else {})
            return self._tensor(part)

        given = tensors(node)
        if isinstance(given, list) and len(given) == 1:
            (given,) = given
        named = {key: self._keyword(value) for key, value in keywords.items() if not (key == "mask" and value is None)}
        return {"args": [given], "kwargs": named}

    def _keyword(self, value: Any) -> Any:
        if is_reference(value):
            return self._tensor(value)
        return [self._keyword(part) for part in value] if isinstance(value, list) else value

    def _tensor(self, reference: Any) -> dict[str, Any]:
        name, node, tensor = reference[:3]
        history = [new_name(name), node - (name in self.nested and node > 0), tensor]
        return {"class_name": "__keras_tensor__", "config": {"shape": [], "dtype": "float32", "keras_history": history}}

    def _ends(self, ends: Any) -> Any:
        """The inputs or outputs; a single one without the list around it."""
        if isinstance(ends, Mapping):
            return {key: self._ends(value) for key, value in ends.items()}
        if is_reference(ends):
            name, node, tensor = ends[:3]
            # Keras 3 itself counts on from the node that a nested graph begins with, but not for a Sequential.
            return [new_name(name), node - (self.nested.get(name) == "Sequential" and node > 0), tensor]
        found = [self._ends(part) for part in ends]
        return found[0] if len(found) == 1 else found
