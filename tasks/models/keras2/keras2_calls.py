"""Calls of TensorFlow's functions in the configuration of a graph that Keras 2 wrote, as layers of Keras 3.

Keras 2 writes the function with its layer, and the arguments with the layer's node: a tensor as the name of a layer, its
node, and which of the node's outputs; with the first tensor, the arguments by keyword.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tasks.models.keras2.keras2_layers import new_name, plain_dtype
from tasks.models.keras2.tensorflow_calls import is_known_call, rescaling_of
from tasks.models.model_errors import ModelError

__all__ = ["CALLS", "is_reference", "translate_call"]

CALLS = ("TFOpLambda", "SlicingOpLambda")
CONSTANT = "_CONSTANT_VALUE"

Tensor = dict[str, Any]
# Positional arguments and pairs of a name and an argument, with a mark for each tensor, and the tensors.
Template = tuple[list[Any], list[Any], list[Tensor]]


def translate_call(entry: Mapping[str, Any], tensor_of: Callable[[Any], Tensor], file: str) -> dict[str, Any]:
    """The configuration of a layer that calls the function: a Rescaling where it is one, else a TensorFlowCall.

    tensor_of: makes Keras 3's configuration of a tensor from Keras 2's. file: the name of the model's file, for messages.
    Raises ModelError for a function that is not known to mean the same.
    """
    name, function = entry["name"], entry["config"]["function"]
    called = f"{file}: layer {name!r} calls {function} of TensorFlow"
    if not is_known_call(function):
        raise ModelError(f"{called}, which is not one of the functions that are known to mean the same in Keras 3")
    calls = [_template(node, tensor_of) for node in entry["inbound_nodes"]]
    if not calls or not all(tensors for *_, tensors in calls):
        raise ModelError(f"{called}, and the file does not say of what")
    if any(call[:2] != calls[0][:2] for call in calls):
        raise ModelError(f"{called} with different constants")
    positional, named, _ = calls[0]
    options = {"name": new_name(name), "dtype": plain_dtype(entry["config"].get("dtype", "float32"))}
    inbound = [{"args": [tensors if len(tensors) > 1 else tensors[0]], "kwargs": {}} for *_, tensors in calls]
    placed = {"name": options["name"], "inbound_nodes": inbound}
    rescaling = _rescaling(function, positional, named) if options["dtype"] == "float32" else None
    if rescaling is not None:
        kind = {"module": "keras.layers", "class_name": "Rescaling", "registered_name": None}
        return kind | {"config": options | rescaling} | placed
    kind = {"module": None, "class_name": "TensorFlowCall", "registered_name": "nightlens>TensorFlowCall"}
    return kind | {"config": options | {"function": function, "positional": positional, "named": named}} | placed


def _template(node: Any, tensor_of: Callable[[Any], Tensor]) -> Template:
    tensors: list[Tensor] = []

    def marked(value: Any) -> Any:
        if is_reference(value) and value[0] == CONSTANT:
            return value[2]
        if is_reference(value):
            tensors.append(tensor_of(value))
            return {"tensor": len(tensors) - 1}
        if isinstance(value, Mapping):
            return {key: marked(part) for key, part in value.items()}
        return [marked(part) for part in value] if isinstance(value, list) else value

    first = next(_references(node))
    positional = [marked(node)]
    keywords = first[3] if len(first) > 3 else {}
    return positional, [[key, marked(value)] for key, value in keywords.items() if key != "name"], tensors


def _rescaling(function: str, positional: list[Any], named: list[Any]) -> dict[str, Any] | None:
    """The arguments of Rescaling, if the call is of one tensor and one constant, in this order."""
    constants = [value for key, value in named if key != "data_format" and value is not None]
    is_nhwc = all(value in (None, "NHWC") for key, value in named if key == "data_format")
    if positional != [{"tensor": 0}] or len(constants) != 1 or not is_nhwc:
        return None
    return rescaling_of(function, constants[0])


def is_reference(value: Any) -> bool:
    """Whether a value of a configuration is a tensor: a layer's name, its node, and which of the node's outputs."""
    return isinstance(value, list) and len(value) in (3, 4) and isinstance(value[0], str) and type(value[1]) is int


def _references(node: Any) -> Iterator[list[Any]]:
    if is_reference(node):
        yield node
    elif isinstance(node, list | Mapping):
        for part in node.values() if isinstance(node, Mapping) else node:
            yield from _references(part)
