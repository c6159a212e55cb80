"""TensorFlow's SavedModel folders, which Keras 2 and TensorFlow's converters write and Keras 3 exports.

Such a folder holds a compiled function, not layers: a map for Grad-CAM cannot be had, gradients with respect to the image can.
"""

from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tasks.models.model_errors import ModelError, reason

__all__ = ["load_saved_model"]

PREFERRED = ("serving_default", "serve")
EXPORT = "export the classifier alone with model.export(FOLDER)"


def load_saved_model(path: Path) -> keras.Model:
    """The folder's function as a model of one layer, from a float32 image to the function's one output.

    Raises ModelError if there is no such function, or it is of something else than one image.
    """
    try:
        signatures = dict(tf.saved_model.load(str(path)).signatures)
    except (OSError, ValueError, KeyError, AttributeError, RuntimeError, tf.errors.OpError) as error:
        raise ModelError(f"{path}: not a SavedModel that can be loaded ({reason(error)}); {EXPORT}") from None
    endpoint = _endpoint(signatures, path)
    name, image = _input(signatures[endpoint], endpoint, path)
    output = _output(signatures[endpoint], endpoint, path)
    layer = keras.layers.TFSMLayer(str(path), call_endpoint=endpoint)
    images = keras.Input(image.shape[1:], dtype="float32", name=name)
    given = images if image.dtype == tf.float32 else keras.ops.cast(images, image.dtype.name)
    outputs: Any = layer(given)
    return keras.Model(images, outputs[output] if isinstance(outputs, dict) else outputs)


def _endpoint(signatures: dict[str, Any], path: Path) -> str:
    names = [name for name in signatures if not name.startswith("__")]
    found = next((name for name in PREFERRED if name in names), names[0] if len(names) == 1 else None)
    if found is None:
        what = f"the signatures {', '.join(sorted(names))}" if names else "no signature"
        raise ModelError(f"{path}: expected a SavedModel with the signature serving_default, got {what}; {EXPORT}")
    return found


def _input(signature: Any, endpoint: str, path: Path) -> tuple[str, tf.TensorSpec]:
    inputs = signature.structured_input_signature[1]
    if len(inputs) != 1:
        raise ModelError(
            f"{path}: expected a function of one image, got {endpoint} of {', '.join(sorted(inputs)) or 'nothing'}; {EXPORT}"
        )
    ((name, image),) = inputs.items()
    if not image.dtype.is_floating:
        raise ModelError(
            f"{path}: {endpoint} takes {image.dtype.name}, through which no gradient passes; {EXPORT}, from float32 images"
        )
    if image.shape.rank is None or image.shape.rank < 2:
        raise ModelError(f"{path}: expected a function of images, got {endpoint} of the shape {image.shape}; {EXPORT}")
    if image.shape[0] is not None:
        raise ModelError(
            f"{path}: {endpoint} takes batches of {image.shape[0]} images only; export the model again from an input "
            "without a batch size"
        )
    return name, image


def _output(signature: Any, endpoint: str, path: Path) -> str:
    outputs = signature.structured_outputs
    if len(outputs) != 1:
        raise ModelError(
            f"{path}: expected a function with one output, got {endpoint} with {', '.join(sorted(outputs))}; {EXPORT}"
        )
    return next(iter(outputs))
