"""What is explained: a classifier's score for a target class, as a probability or as a logit.

A score model is a Functional Keras model from one image batch, float32 (row, y, x, channel), to one score a class,
(row, class). It is made from any classifier, whatever that ends with: a softmax in the last layer,
a Softmax layer or operation, or bare logits. Everything downstream, our engines and foreign ones, explains score models.
"""

import re
from collections.abc import Callable

import keras
import numpy as np

from tasks.numerics.compiled import Compiled, Tell

__all__ = ["CompiledScores", "has_logits", "score_model"]


def score_model(model: keras.Model, score: str) -> keras.Model:
    """The Functional model whose output is the score of each class.

    model: built, Sequential or Functional, with one 4-D image input and one (row, class) output.
    score: "probability" or "logit".
    Raises ValueError if the inputs or outputs are others, or the last layer is neither softmax nor linear.
    """
    if score not in ("probability", "logit"):
        raise ValueError(f"score must be 'probability' or 'logit', got {score!r}")
    _check_signature(model)
    output = model.outputs[0]
    last, node, _ = output._keras_history
    is_softmax = _ends_in_softmax(last)
    if score == "probability":
        return keras.Model(model.inputs[0], output if is_softmax else keras.ops.softmax(output))
    if not is_softmax:
        return keras.Model(model.inputs[0], output)
    before = last._inbound_nodes[node].input_tensors[0]  # last.input would be that of its first call, maybe elsewhere
    if isinstance(last, keras.layers.Dense):
        logits = keras.ops.matmul(before, last.kernel)
        return keras.Model(model.inputs[0], logits if last.bias is None else logits + last.bias)
    if _is_only_softmax(last):
        return keras.Model(model.inputs[0], before)
    raise ValueError(
        f"the logits before the softmax of layer {last.name!r} ({type(last).__name__}) cannot be reached; "
        "explain the probability instead, or end the model with a Dense or Softmax layer"
    )


def has_logits(model: keras.Model) -> bool:
    """Whether `score_model` can reach the model's logits."""
    last = model.outputs[0]._keras_history.operation
    return not _ends_in_softmax(last) or isinstance(last, keras.layers.Dense) or _is_only_softmax(last)


def _is_only_softmax(last: keras.Operation) -> bool:
    only = isinstance(last, keras.layers.Softmax | keras.layers.Activation)
    return only or not isinstance(last, keras.layers.Layer)


def _check_signature(model: keras.Model) -> None:
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(
            f"expected a model with one image input and one output, got {len(model.inputs)} input(s) and "
            f"{len(model.outputs)} output(s); save a model of one of each, as keras.Model(inputs, outputs) makes it"
        )
    shape, out = model.inputs[0].shape, model.outputs[0].shape
    if len(shape) != 4 or None in shape[1:]:
        raise ValueError(
            f"expected an input of fixed shape (row, y, x, channel), got {tuple(shape)}; call the model on a "
            "keras.Input((y, x, channel)) of the size that is wanted, and save the model from that to its output"
        )
    if not str(model.inputs[0].dtype).startswith(("float", "bfloat")):
        raise ValueError(
            f"expected an input of floats, images as 0 to 1, got {model.inputs[0].dtype}; save the model with a float32 input "
            "and what it did to integers, such as a Rescaling layer, left out or adapted"
        )
    if len(out) != 2 or out[1] is None or out[1] < 2:
        raise ValueError(f"expected an output of shape (row, class) with two classes or more, got {tuple(out)}")


def _ends_in_softmax(last: keras.Operation) -> bool:
    while isinstance(last, keras.Model):
        last = last.outputs[0]._keras_history.operation
    activation = _activation(last)
    if activation in (keras.activations.softmax, keras.activations.linear):
        return activation is keras.activations.softmax
    raise ValueError(
        f"expected a model that ends in a softmax or in bare logits, got activation "
        f"{getattr(activation, '__name__', activation)!r} in layer {last.name!r}"
    )


def _activation(last: keras.Operation) -> Callable:
    if isinstance(last, keras.layers.Softmax):
        return keras.activations.softmax
    if isinstance(last, keras.layers.Layer):
        return getattr(last, "activation", None) or keras.activations.linear
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(last).__name__).lower()  # keras.ops.log_softmax makes a LogSoftmax
    return getattr(keras.activations, name, keras.activations.linear)


class CompiledScores:
    """The scores of a score model in one compiled function.

    Calling with images, float32 (row, y, x, channel), returns (row, class) float32. batch_size, tell: as of `Compiled`.
    """

    def __init__(self, model: keras.Model, batch_size: int, tell: Tell | None = None):
        self._compiled = Compiled("scores", lambda images: (model(images, training=False),), batch_size, tell=tell)
        self.n_classes = int(model.outputs[0].shape[1])

    @property
    def n_traces(self) -> int:
        """How often the function was traced."""
        return self._compiled.n_traces

    def __call__(self, images: np.ndarray) -> np.ndarray:
        if not len(images):
            return np.empty((0, self.n_classes), np.float32)
        return self._compiled(images.astype(np.float32, copy=False))[0]
