"""Which numbers a network computes with: the same weights, its layers rebuilt in another precision.

float32 is what scores, probabilities and maps are computed in, whatever precision a model was saved with. In bfloat16, 8 bits
of significand instead of 24, layers multiply faster where the processor has instructions for it. The weights stay
float32, and so does what gives the scores: the last layer with weights and all that follows it. tf32 needs no other layers: it is
how a GPU multiplies those of float32, if it may (tensor_float_32.py).
"""

from typing import Any, Literal

import keras

__all__ = ["Precision", "in_precision", "other_precisions"]

Precision = Literal["float32", "tf32", "bfloat16"]

POLICIES = {"float32": "float32", "tf32": "float32", "bfloat16": "mixed_bfloat16"}


def other_precisions(model: keras.Model) -> list[str]:
    """The precisions other than float32 that the model computes, or keeps weights, in; empty for most models."""
    used = {layer.compute_dtype for layer in model._flatten_layers()}
    used |= {weight.dtype for weight in model.weights}
    used |= {tensor.dtype for tensor in (*model.inputs, *model.outputs)}
    return sorted(str(dtype) for dtype in used if str(dtype).startswith(("float", "bfloat")) and dtype != "float32")


def in_precision(model: keras.Model, precision: Precision) -> keras.Model:
    """A model with the same weights, its layers in that precision; from float32 images to float32 outputs.

    model: with one image input.
    Raises ValueError if a layer cannot be built again, as some with code of their own cannot, or keeps its precision.
    """
    final = _last_layers(model)

    reached: keras.Operation | None = None

    def rebuilt(layer: keras.Operation) -> keras.Operation:
        nonlocal reached
        reached = layer
        if not isinstance(layer, keras.layers.Layer):  # an operation follows its inputs; only a cast has a dtype
            return type(layer).from_config(_with_dtype(layer.get_config(), "float32"))
        policy = POLICIES["float32" if layer.name in final else precision]
        named = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": policy}}
        return type(layer).from_config(_with_dtype(layer.get_config(), named))

    try:
        images = keras.Input(model.inputs[0].shape[1:], dtype="float32", name=model.inputs[0].name)
        structure = images if isinstance(model, keras.Sequential) else model.input
        given: Any = images
        if isinstance(structure, dict):
            given = dict.fromkeys(structure, images)
        elif isinstance(structure, list):
            given = [images]
        copy = keras.models.clone_model(model, input_tensors=given, clone_function=rebuilt, recursive=True)
        copy.set_weights(model.get_weights())
    except (ValueError, TypeError, NotImplementedError, AttributeError, KeyError) as error:
        where = "it" if reached is None else f"layer {reached.name!r} ({type(reached).__name__})"
        raise ValueError(
            f"the model cannot be rebuilt in {precision}: {where} cannot be made again from its configuration"
        ) from error
    if precision == "float32" and (left := other_precisions(copy)):
        raise ValueError(f"the model cannot be rebuilt in float32: a layer of it asks for {', '.join(left)} itself")
    return copy


def _last_layers(model: keras.Model) -> set[str]:
    """Names of the layers from the output back to the first that has weights, also within nested models."""
    waiting, names = list(model.outputs), set()
    while waiting:
        operation, node, _ = waiting.pop()._keras_history
        names.add(operation.name)
        if isinstance(operation, keras.Model):
            waiting += operation.outputs
        elif not getattr(operation, "weights", ()):
            waiting += operation._inbound_nodes[node].input_tensors
    return names


def _with_dtype(config: Any, dtype: Any) -> Any:
    """A layer's configuration with that dtype, also for the layers that it wraps."""
    if isinstance(config, list):
        return [_with_dtype(value, dtype) for value in config]
    if not isinstance(config, dict):
        return config
    return {
        key: dtype if key == "dtype" and value is not None else _with_dtype(value, dtype)
        for key, value in config.items()
    }
