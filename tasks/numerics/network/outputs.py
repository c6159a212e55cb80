"""What a classifier's outputs are, judged by what they are on real images and never by the kind of its last layer.

    probability    K values, none negative, that sum to 1: as they are
    independent    K values in 0..1 that do not: a probability of each class by itself, as they are
    logits         K values of any other kind, whatever activation they went through: their softmax
    sigmoid        one value p in 0..1: the probabilities 1 - p and p of two classes
    logit          one value z of any other kind: 1 - sigmoid(z) and sigmoid(z)

The logit of a class is what its probability was made from: before the softmax, or before the sigmoid. For one value z they are
-z and z, the log-odds of either class.
"""

from typing import Any, Literal, get_args

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tasks.numerics.network.graph import Call, Trace

__all__ = [
    "KINDS",
    "OutputKind",
    "as_logits",
    "as_probabilities",
    "breaks",
    "flat_outputs",
    "kind_of",
    "logits_of",
]

OutputKind = Literal["probability", "independent", "logits", "sigmoid", "logit"]
KINDS: dict[str, str] = {
    "probability": "probabilities that sum to 1, taken as they are",
    "independent": "a probability of each class by itself, in 0..1, taken as they are",
    "logits": "logits, of which the softmax is the probability",
    "sigmoid": "one value in 0..1, the probability of the second of two classes",
    "logit": "one logit, whose sigmoid is the probability of the second of two classes",
}
assert set(KINDS) == set(get_args(OutputKind))

SUM_TOLERANCE = 1e-3  # outputs of a model in half precision sum to 1 within that
RANGE_TOLERANCE = 1e-6


def kind_of(outputs: NDArray) -> OutputKind:
    """What outputs (row, output) are, all finite."""
    inside = outputs.min() >= -RANGE_TOLERANCE and outputs.max() <= 1 + SUM_TOLERANCE
    if outputs.shape[1] == 1:
        return "sigmoid" if inside else "logit"
    if inside and _off_one(outputs) <= SUM_TOLERANCE:
        return "probability"
    return "independent" if inside else "logits"


def breaks(kind: OutputKind, outputs: NDArray) -> str:
    """What of outputs (row, output), all finite, contradicts their kind, in words; empty where nothing does."""
    if kind in ("logits", "logit"):
        return ""
    if outputs.min() < -RANGE_TOLERANCE or outputs.max() > 1 + SUM_TOLERANCE:
        return f"they run from {outputs.min():.4g} to {outputs.max():.4g}"
    if kind == "probability" and (off := _off_one(outputs)) > SUM_TOLERANCE:
        return f"their sum is off 1 by up to {off:.2g}"
    return ""


def _off_one(outputs: NDArray) -> float:
    return float(np.abs(outputs.sum(axis=1, dtype=np.float64) - 1).max())


def flat_outputs(output: tf.Tensor) -> tf.Tensor:
    """(row, output) of an output (row, ...) that has one axis longer than 1 at most."""
    return output if len(output.shape) == 2 else tf.reshape(output, (-1, int(np.prod(output.shape[1:]))))


def as_probabilities(outputs: Any, kind: OutputKind) -> tf.Tensor:
    """(row, class) of outputs (row, output) of that kind."""
    if kind == "logits":
        return tf.nn.softmax(outputs)
    if kind in ("probability", "independent"):
        return outputs
    p = tf.sigmoid(outputs) if kind == "logit" else outputs
    q = tf.sigmoid(-outputs) if kind == "logit" else 1 - outputs
    return tf.concat([q, p], axis=1)


def as_logits(before: tf.Tensor, kind: OutputKind) -> tf.Tensor:
    """(row, class) of what `logits_of` found, (row, output)."""
    return tf.concat([-before, before], axis=1) if kind in ("sigmoid", "logit") else before


def logits_of(traced: Trace, kind: OutputKind) -> tf.Tensor | None:
    """What went into the softmax or sigmoid that gave the outputs, (row, output); None where that is out of reach."""
    if kind in ("logits", "logit"):
        return None  # the outputs themselves are
    activation = keras.activations.softmax if kind == "probability" else keras.activations.sigmoid
    label = traced.last
    while label in traced.calls:
        call = traced.calls[label]
        before = _before(call, activation)
        if before is not None:
            return flat_outputs(before)
        if not _passes(call) or len(call.sources) != 1:
            return None
        label = call.sources[0]
    return None


def _passes(call: Call) -> bool:
    """Whether the call gives at inference the values it took, in the same order."""
    operation = call.operation
    only_training = keras.layers.Dropout | keras.layers.ActivityRegularization | keras.layers.Identity
    if isinstance(operation, keras.layers.Reshape | keras.layers.Flatten | only_training):
        return True
    if isinstance(operation, keras.layers.Activation):
        return operation.activation is keras.activations.linear
    return type(operation).__name__ in ("Reshape", "Squeeze", "Cast", "Identity")


def _before(call: Call, activation: Any) -> tf.Tensor | None:
    """What the call puts through the activation, if it does that to the last axis."""
    operation, taken = call.operation, call.inputs[0] if len(call.inputs) == 1 else None
    if taken is None:
        return None
    if isinstance(operation, keras.layers.Softmax):
        last = len(taken.shape) - 1
        return taken if activation is keras.activations.softmax and operation.axis in (-1, last) else None
    if not isinstance(operation, keras.layers.Layer):  # keras.ops.softmax makes an operation called Softmax
        named = {"Softmax": keras.activations.softmax, "Sigmoid": keras.activations.sigmoid}
        axis = getattr(operation, "axis", -1)
        return (
            taken if named.get(type(operation).__name__) is activation and axis in (-1, len(taken.shape) - 1) else None
        )
    if getattr(operation, "activation", None) is not activation:
        return None
    if isinstance(operation, keras.layers.Activation):
        return taken
    if isinstance(operation, keras.layers.Dense):
        return _biased(keras.ops.matmul(taken, operation.kernel), operation)
    if type(operation) is keras.layers.Conv2D and operation.data_format == "channels_last":
        return _biased(operation.convolution_op(taken, operation.kernel), operation)
    return None


def _biased(values: tf.Tensor, layer: Any) -> tf.Tensor:
    return values if layer.bias is None else values + layer.bias
