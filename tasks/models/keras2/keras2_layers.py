"""Layers of Keras 2 as Keras 3 takes them: their arguments, and those that have another name or meaning there.

An argument that Keras 3 does not know is left out if it says nothing (None, False), is about training or about how a layer
is computed; any other is refused, because without it the layer would be another function. Initializers, regularizers
and constraints are left out of Keras's own layers: the weights come from the file.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import keras

from tasks.models.keras2.tensorflow_calls import hard_sigmoid_of_keras2
from tasks.models.model_errors import ModelError

__all__ = ["is_activation", "keras_layer", "layer_arguments", "new_name", "plain_dtype", "translate_activation"]

# Arguments of Keras 2 that decide nothing about the outputs at inference, whatever their value.
MEANINGLESS = (
    *(
        "autocast",
        "batch_input_shape",
        "batch_size",
        "dtype_policy",
        "experimental_autocast",
        "force_generator",
        "fused",
    ),
    *(
        "implementation",
        "input_dtype",
        "input_length",
        "input_spec",
        "key_shape",
        "query_shape",
        "ragged",
        "renorm_clipping",
    ),
    *("renorm_momentum", "rng_type", "softmax_robust_masking", "sparse", "value_shape", "virtual_batch_size"),
)
# Those that must have this value, which is what Keras 3 computes.
ONLY = {"groups": (1, None), "time_major": (False, None), "num_parallel_calls": (None,)}
ABOUT_TRAINING = ("_initializer", "_regularizer", "_constraint")
OF_EVERY_LAYER = ("name", "dtype", "trainable")
# Layers of Keras 2 that Keras 3 has under another name or not at all, and what does the same.
OTHER_NAMES = {
    "ThresholdedReLU": "ReLU",
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "GRUV2": "GRU",
    "LSTMV2": "LSTM",
    "RandomWidth": "Identity",  # as every random layer of Keras at inference
    "RandomHeight": "Identity",
}


@keras.saving.register_keras_serializable("nightlens")
class SyncBatchNormalization(keras.layers.BatchNormalization):
    """BatchNormalization whose training was spread over devices; at inference it is the same."""


def keras_layer(class_name: str) -> type[keras.layers.Layer] | None:
    """Keras 3's layer for a class of Keras 2, if there is one."""
    if class_name == "SyncBatchNormalization":
        return SyncBatchNormalization
    found = getattr(keras.layers, OTHER_NAMES.get(class_name, class_name), None)
    return found if isinstance(found, type) and issubclass(found, keras.layers.Layer) else None


def layer_arguments(
    layer: type[keras.layers.Layer], class_name: str, config: Mapping[str, Any], file: str
) -> dict[str, Any]:
    """The arguments of Keras 3's layer for the configuration of one of Keras 2.

    class_name: what Keras 2 calls the layer. file: the name of the model's file, for the message.
    Raises ModelError for an argument without its like in Keras 3.
    """
    known = _arguments_of(layer)
    given = {key: value for key, value in _renamed(class_name, config).items() if not key.endswith(ABOUT_TRAINING)}
    kept = {key: value for key, value in given.items() if key in known or key in OF_EVERY_LAYER}
    for key in given.keys() - kept.keys() - {*MEANINGLESS}:
        value = given[key]
        harmless = value in ONLY[key] if key in ONLY else value is None or value is False or value == []
        if not harmless:
            raise ModelError(
                f"{file}: layer {config.get('name')!r} ({class_name}) has {key}={value!r}, which Keras 3 cannot compute"
            )
    return kept


def _arguments_of(layer: type[keras.layers.Layer]) -> set[str]:
    """What a layer's constructor takes by name, also by way of its parents."""
    names: set[str] = set()
    for parent in layer.__mro__:
        if parent is keras.layers.Layer or parent is object:
            break
        if "__init__" in vars(parent):
            parameters = inspect.signature(vars(parent)["__init__"]).parameters
            names |= parameters.keys()
            if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
                break
    return names - {"self", "kwargs", "args"}


def _renamed(class_name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with the names and the spellings of Keras 3."""
    given = dict(config)
    if class_name == "LeakyReLU":
        given["negative_slope"] = float(given.pop("alpha", given.get("negative_slope", 0.3)))
    if class_name == "ThresholdedReLU":
        given["threshold"] = given.pop("theta", 1.0)
    if OTHER_NAMES.get(class_name) == "Identity":
        return {key: given[key] for key in OF_EVERY_LAYER if key in given}
    if "BatchNormalization" in class_name and isinstance(given.get("axis"), list):
        (given["axis"],) = given["axis"]
    if class_name == "GRU":
        given.setdefault("reset_after", False)  # as it was before there was a choice
    return given


def new_name(name: str) -> str:
    """The name of a layer in Keras 3, where a name has no slash."""
    return name.replace("/", "_")


def plain_dtype(dtype: Any) -> Any:
    """A dtype or policy as its name."""
    if isinstance(dtype, Mapping):
        config = dtype.get("config")
        return config.get("name", "float32") if isinstance(config, Mapping) else config
    return dtype


def translate_activation(activation: Any) -> Any:
    """The activation as Keras 3 finds it: by name if it is Keras's own, else as a function of that name."""
    name = activation["config"] if isinstance(activation, Mapping) else activation
    if name == "hard_sigmoid":
        name = f"nightlens>{hard_sigmoid_of_keras2.__name__}"
    if name is None or is_activation(name):
        return name
    return {"module": None, "class_name": "function", "config": name, "registered_name": name}


def is_activation(name: str) -> bool:
    """Whether Keras itself finds a function of that name."""
    try:
        return callable(keras.activations.get(name))
    except ValueError:
        return False
