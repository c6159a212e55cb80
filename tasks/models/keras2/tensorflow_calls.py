"""Calls of TensorFlow's functions and of Python's operators on tensors, which Keras 2 keeps as layers of its own.

`preprocess_input(images)` inside a model, `x / 255`, `tf.concat` or `x[..., ::-1]` become TFOpLambda and SlicingOpLambda in
a Keras 2 file: a function's name and its arguments, some of them tensors. Here each becomes a `TensorFlowCall` of the same
function with the same constants, if the function is one of those listed: pure ones, whose name means today what it meant.
Arithmetic with constants becomes keras.layers.Rescaling, by which the scaling of a model's input can be recognised.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

__all__ = ["TensorFlowCall", "hard_sigmoid_of_keras2", "is_known_call", "rescaling_of"]

LISTED = {
    "": """broadcast_to cast clip_by_norm clip_by_value concat convert_to_tensor expand_dims eye fill gather identity
        linalg.matmul linalg.norm linalg.normalize meshgrid norm ones_like one_hot pad range rank repeat reshape reverse
        roll shape size slice split squeeze stack stop_gradient strided_slice tensordot tile transpose unstack where
        zeros_like""",
    "math.": """abs add add_n argmax argmin ceil cos cumsum divide divide_no_nan equal erf exp expm1 floor floordiv floormod
        greater greater_equal l2_normalize less less_equal log log1p log_sigmoid logical_and logical_not logical_or
        maximum minimum multiply multiply_no_nan negative not_equal pow reciprocal reduce_logsumexp reduce_max
        reduce_mean reduce_min reduce_prod reduce_std reduce_sum reduce_variance round rsqrt scalar_mul sigmoid sign
        sin softplus sqrt square squared_difference subtract tan tanh top_k truediv xdivy""",
    "nn.": """avg_pool avg_pool2d bias_add conv2d crelu depth_to_space elu gelu l2_loss leaky_relu
        local_response_normalization log_softmax max_pool max_pool2d moments relu relu6 selu silu softmax softsign
        space_to_depth""",
    "image.": """adjust_brightness adjust_contrast central_crop convert_image_dtype crop_to_bounding_box flip_left_right
        flip_up_down grayscale_to_rgb hsv_to_rgb pad_to_bounding_box per_image_standardization resize
        resize_with_crop_or_pad resize_with_pad rgb_to_grayscale rgb_to_hsv rot90 transpose""",
    "compat.v1.": """argmax argmin depth_to_space expand_dims floor_div gather image.resize_bilinear image.resize_nearest_neighbor
        nn.avg_pool nn.max_pool nn.softmax norm ones_like pad reduce_max reduce_mean reduce_min reduce_sum reverse shape size
        space_to_depth squeeze strided_slice transpose where zeros_like""",
}
NAMES = frozenset(f"{module}{name}" for module, names in LISTED.items() for name in names.split())


def _sliced(tensor: tf.Tensor, slice_spec: Any) -> tf.Tensor:
    """Python's indexing; slice_spec as Keras 2 writes it: slices and the ellipsis as dicts."""
    spec = slice_spec if isinstance(slice_spec, list) else [slice_spec]
    return tensor[tuple(_index(part) for part in spec)]


def _index(part: Any) -> Any:
    if part == "..." or (isinstance(part, Mapping) and part.get("class_name") == "__ellipsis__"):
        return Ellipsis
    if isinstance(part, Mapping):
        bounds = part.get("config", part)
        return slice(bounds["start"], bounds["stop"], bounds["step"])
    return part


# Functions that are Python's or Keras 2's own, and so have no place in TensorFlow's module.
OWN: dict[str, Callable[..., Any]] = {
    "__operators__.getitem": _sliced,
    "__operators__.add": tf.math.add,
    "keras.backend.abs": tf.abs,
    "keras.backend.batch_flatten": lambda x: tf.reshape(x, (-1, math.prod(x.shape[1:]))),
    "keras.backend.clip": tf.clip_by_value,
    "keras.backend.concatenate": lambda tensors, axis=-1: tf.concat(tensors, axis),
    "keras.backend.exp": tf.exp,
    "keras.backend.expand_dims": lambda x, axis=-1: tf.expand_dims(x, axis),
    "keras.backend.log": tf.math.log,
    "keras.backend.max": tf.reduce_max,
    "keras.backend.mean": tf.reduce_mean,
    "keras.backend.min": tf.reduce_min,
    "keras.backend.pow": tf.pow,
    "keras.backend.sigmoid": tf.sigmoid,
    "keras.backend.softmax": tf.nn.softmax,
    "keras.backend.sqrt": lambda x: tf.sqrt(tf.maximum(x, 0.0)),
    "keras.backend.square": tf.square,
    "keras.backend.squeeze": tf.squeeze,
    "keras.backend.sum": tf.reduce_sum,
    "keras.backend.tanh": tf.tanh,
}


def is_known_call(function: str) -> bool:
    """Whether the function, by the name that Keras 2 writes (math.truediv, __operators__.getitem), is one of those listed."""
    return function in NAMES or function in OWN


def _function(name: str) -> Callable[..., Any]:
    if name in OWN:
        return OWN[name]
    if name not in NAMES:
        raise ValueError(f"the function {name} of TensorFlow is not one that is called for a model")
    found: Any = tf
    for part in name.split("."):
        found = getattr(found, part)
    return found


@keras.saving.register_keras_serializable("nightlens")
class TensorFlowCall(keras.layers.Layer):
    """Calls one function of TensorFlow on tensors and constants.

    function: its name, as `is_known_call` takes it. positional: its arguments, and named: pairs of a name and an argument;
    in both {"tensor": k} stands for the k-th tensor that the layer is called with.
    Raises ValueError if the function is not one of those listed.
    """

    def __init__(self, function: str, positional: list[Any], named: list[Any], **options: Any) -> None:
        super().__init__(**options)
        self.function, self.positional, self.named = function, positional, named
        _function(function)  # which is refused here, not in the middle of a night

    def call(self, tensors: Any) -> Any:
        given = tensors if isinstance(tensors, list | tuple) else [tensors]
        named = {name: _filled(value, given) for name, value in self.named}
        positional = [_filled(value, given) for value in self.positional]
        # A constant before the tensor, as in 1 - x, is of the tensor's precision, as one behind it is.
        positional = [tf.cast(value, given[0].dtype) if isinstance(value, float) else value for value in positional]
        return _function(self.function)(*positional, **named)

    def get_config(self) -> dict[str, Any]:
        own = {"function": self.function, "positional": self.positional, "named": self.named}
        return super().get_config() | own


def _filled(value: Any, tensors: Any) -> Any:
    if isinstance(value, Mapping) and value.keys() == {"tensor"}:
        return tensors[value["tensor"]]
    if isinstance(value, Mapping):
        return {key: _filled(part, tensors) for key, part in value.items()}
    return [_filled(part, tensors) for part in value] if isinstance(value, list | tuple) else value


ADDING = ("math.add", "__operators__.add", "nn.bias_add")


def rescaling_of(function: str, constant: Any) -> dict[str, Any] | None:
    """The scale and offset of keras.layers.Rescaling that computes function(x, constant), if there are such.

    constant: a number, or one for each channel.
    """
    numbers = constant if isinstance(constant, list) else [constant]
    if not numbers or not all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers):
        return None
    single = not isinstance(constant, list)
    if function in ADDING:
        return {"scale": 1.0, "offset": constant}
    if function == "math.subtract":
        return {"scale": 1.0, "offset": -constant if single else [-number for number in numbers]}
    if function == "math.multiply":
        return {"scale": constant, "offset": 0.0}
    if function in ("math.truediv", "math.divide") and 0 not in numbers:
        return {"scale": 1 / constant if single else [1 / number for number in numbers], "offset": 0.0}
    return None


@keras.saving.register_keras_serializable("nightlens")
def hard_sigmoid_of_keras2(x: Any) -> Any:
    """0.2 x + 0.5 within 0 to 1, which Keras 2 called hard_sigmoid; Keras 3's is x / 6 + 0.5 within 0 to 1."""
    return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)
